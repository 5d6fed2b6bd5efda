//! Whether a shared library is complete: everything that its ELF headers name lies within the file. Mapping one that
//! was cut ends the process by SIGBUS.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// The header of a 64-bit ELF file is this long (System V ABI, "ELF Header").
const HEADER: usize = 64;
/// 64-bit, little-endian: the platforms for which there are models.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// A section without bytes in the file.
const SHT_NOBITS: u32 = 8;

/// The problem, if there is one.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).map_err(|_| "it is too short for a library".to_owned())?;
    if !header.starts_with(MAGIC) {
        return Err("it is not a 64-bit ELF library".into());
    }
    // Offsets of e_phoff, e_phentsize, e_phnum; e_shoff, e_shentsize, e_shnum.
    let segments = Table { at: u64_at(&header, 32), size: u16_at(&header, 54), count: u16_at(&header, 56) };
    let sections = Table { at: u64_at(&header, 40), size: u16_at(&header, 58), count: u16_at(&header, 60) };
    for entry in segments.read(&file, 56).map_err(|_| "its segments are beyond its end".to_owned())? {
        // p_offset, p_filesz
        within(u64_at(&entry, 8), u64_at(&entry, 32), length)?;
    }
    for entry in sections.read(&file, 64).map_err(|_| "its sections are beyond its end".to_owned())? {
        // sh_type, sh_offset, sh_size
        if u32_at(&entry, 4) != SHT_NOBITS {
            within(u64_at(&entry, 24), u64_at(&entry, 32), length)?;
        }
    }
    Ok(())
}

struct Table {
    at: u64,
    /// Of an entry.
    size: u16,
    count: u16,
}

impl Table {
    /// The entries, each of at least so many bytes.
    fn read(&self, file: &File, least: u16) -> io::Result<Vec<Vec<u8>>> {
        if self.count > 0 && self.size < least {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let read = |n: u16| {
            let mut entry = vec![0; usize::from(self.size)];
            let at = self.at.checked_add(u64::from(n) * u64::from(self.size));
            file.read_exact_at(&mut entry, at.ok_or(io::ErrorKind::InvalidData)?)?;
            Ok(entry)
        };
        (0..self.count).map(read).collect()
    }
}

fn within(at: u64, size: u64, length: u64) -> Result<(), String> {
    match at.checked_add(size) {
        Some(end) if end <= length => Ok(()),
        _ => Err(format!("it has {length} bytes and should have more")),
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let (bytes, _) = bytes[at..].split_first_chunk().expect("every offset is within the entry's least size");
    *bytes
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_library_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("library.so");
        for content in [&b""[..], b"\x7fELF", &[7; 4096]] {
            std::fs::write(&path, content).unwrap();
            assert!(check(&path).is_err());
        }
        // A table of segments whose entries are too small to have fields.
        let mut header = [0; 256];
        header[..6].copy_from_slice(MAGIC);
        header[56] = 9;
        std::fs::write(&path, header).unwrap();
        assert!(check(&path).is_err());
    }

    #[test]
    fn this_program_is_complete_and_half_of_it_is_not() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, &program).unwrap();
        assert_eq!(check(&path), Ok(()));

        std::fs::write(&path, &program[..program.len() / 2]).unwrap();
        assert!(check(&path).is_err());
    }
}
