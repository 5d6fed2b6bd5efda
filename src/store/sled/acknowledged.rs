//! How many writes were ever acknowledged, in a file beside the database.
//!
//! sled cuts its log silently where it cannot read it. So the committer keeps a count of acknowledged writes
//! in two places: in the database, in the same flush as the writes themselves, and in this file. If the
//! database that is opened has a lower count than the file, its tail was lost.
//!
//! ```text
//!   writes of a batch ─▶ count in the database ─▶ flush, fdatasync ─▶ count in this file ─▶ acknowledge
//! ```
//! The file is written only once the same count is durable in the database, so it is never ahead of a
//! database that lost nothing. It needs no sync of its own per batch: `kill -9` loses nothing of the page
//! cache, and a power failure leaves an older count, which can hide a loss of the last second but cannot invent
//! one. The count is in one aligned block of 32 bytes, which no disk writes in parts.
//!
//! ```text
//!   0..8 acknowledged   8..16 lost, in all   16..24 first eight bytes XOR second eight bytes XOR MAGIC
//! ```

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

const FILE: &str = "acknowledged";
const MAGIC: u64 = u64::from_be_bytes(*b"june-ack");

/// The counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub acknowledged: u64,
    /// Acknowledged writes that were missing when the database was opened, in the life of this folder.
    pub lost: u64,
}

impl Counts {
    /// The counts of a folder of data; none if there are none, or if they cannot be read.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let bytes = std::fs::read(folder.join(FILE)).ok()?;
        let number = |at| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (acknowledged, lost) = (number(0)?, number(8)?);
        (number(16)? == acknowledged ^ lost ^ MAGIC).then_some(Self { acknowledged, lost })
    }
}

#[derive(Debug)]
pub(super) struct AcknowledgedFile(File);

impl AcknowledgedFile {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(folder.join(FILE)).map(Self)
    }

    pub(super) fn write(&self, Counts { acknowledged, lost }: Counts) -> io::Result<()> {
        let mut block = [0; 32];
        block[..8].copy_from_slice(&acknowledged.to_be_bytes());
        block[8..16].copy_from_slice(&lost.to_be_bytes());
        block[16..24].copy_from_slice(&(acknowledged ^ lost ^ MAGIC).to_be_bytes());
        self.0.write_all_at(&block, 0)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_they_were_written_and_damaged_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Counts::read(folder.path()), None);
        let file = AcknowledgedFile::open(folder.path()).unwrap();
        let counts = Counts { acknowledged: 255, lost: 12 };

        file.write(Counts { acknowledged: 254, lost: 0 }).unwrap();
        file.write(counts).unwrap();
        assert_eq!(Counts::read(folder.path()), Some(counts));

        file.0.write_all_at(&[1], 7).unwrap();
        assert_eq!(Counts::read(folder.path()), None);
    }
}
