//! The files that `scripts/setup` installs, and that they are what it installed.
//!
//! A damaged model gives wrong results and no error; a damaged ONNX Runtime ends the process by SIGBUS or
//! SIGSEGV as soon as it is loaded. So every file is compared with its SHA-256 before it is used. What was
//! compared is remembered by path, size and time of change, in this process and in a file, so that a start does
//! not read 145 MB.

mod elf;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::providers::{ProviderConfig, ProviderError};

/// What `scripts/setup models` installs ONNX Runtime as.
pub(super) const RUNTIME_FILE: &str = "libonnxruntime.so.1.23.2";

/// The SHA-256 of each file, as in `scripts/setup`.
const MANIFEST: &[(&str, &str)] = &[
    #[cfg(target_arch = "x86_64")]
    (RUNTIME_FILE, "718c3fb0785d5ea06061b92c32ce4ad35be1bd4c71ae6192efe06f1ab21f0f8a"),
    #[cfg(target_arch = "aarch64")]
    (RUNTIME_FILE, "ab8c4363e06ac80b3d1279ea55ebea44e906c5b131ba783ff684a067540c0e94"),
    ("silero-vad-v6.onnx", "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28"),
    ("smart-turn-v3.2-cpu.onnx", "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f"),
    ("moonshine-tiny-en-encoder.ort", "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221"),
    ("moonshine-tiny-en-decoder.ort", "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0"),
    ("moonshine-tiny-en-tokenizer.bin", "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d"),
    ("piper-en-us-joe-medium.onnx", "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06"),
    ("piper-en-us-joe-medium.json", "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33"),
    ("cmudict.dict", "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22"),
    ("smollm2-135m-instruct-q4_1.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
];

/// What was hashed: a file that has not changed since has the same hash.
static HASHED: Mutex<BTreeMap<Version, String>> = Mutex::new(BTreeMap::new());

/// A file at one time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    path: PathBuf,
    size: u64,
    /// When it was last changed, in nanoseconds since the Unix epoch.
    modified: i128,
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        let modified = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
        Ok(Self { path: fs::canonicalize(path)?, size: found.len(), modified })
    }
}

/// The files in the folder of models.
pub(super) struct ModelFiles<'a> {
    folder: &'a Path,
    are_compared: bool,
    /// Where it is kept what was hashed.
    record: Option<&'a Path>,
}

impl<'a> ModelFiles<'a> {
    pub(super) fn new(config: &'a ProviderConfig) -> Self {
        let files = Self {
            folder: &config.models,
            are_compared: config.checksums,
            record: config.checked_models.as_deref(),
        };
        files.read_record();
        files
    }

    /// The path of a file. [`ProviderError::Unavailable`] if it is there and damaged.
    pub(super) fn path(&self, name: &str) -> Result<PathBuf, ProviderError> {
        let path = self.folder.join(name);
        let expected = MANIFEST.iter().find(|(known, _)| *known == name).map(|(_, hash)| *hash);
        if let Some(expected) = expected.filter(|_| self.are_compared && path.is_file()) {
            let damaged = |problem: String| {
                ProviderError::Unavailable(format!("{} is damaged: {problem}", path.display()))
            };
            let actual = self.hash(&path).map_err(|error| damaged(error.to_string()))?;
            if actual != expected {
                return Err(damaged(format!("its SHA-256 is {actual}")));
            }
        }
        Ok(path)
    }

    /// The path of ONNX Runtime. One that is not in the manifest, or whose hash is not compared, is at least complete.
    pub(super) fn runtime(&self) -> Result<PathBuf, ProviderError> {
        let path = self.path(RUNTIME_FILE)?;
        if path.is_file()
            && let Err(problem) = elf::check(&path)
        {
            return Err(ProviderError::Unavailable(format!("{} is damaged: {problem}", path.display())));
        }
        Ok(path)
    }

    fn hash(&self, path: &Path) -> io::Result<String> {
        let version = Version::of(path)?;
        if let Some(hash) = HASHED.lock().get(&version) {
            return Ok(hash.clone());
        }
        let hash = sha256(path)?;
        HASHED.lock().insert(version, hash.clone());
        self.write_record();
        Ok(hash)
    }

    /// Lines of hash, size, time of change and path.
    fn read_record(&self) {
        let Some(text) = self.record.and_then(|record| fs::read_to_string(record).ok()) else { return };
        let parse = |line: &str| {
            let mut fields = line.splitn(4, ' ');
            let hash = fields.next()?.to_owned();
            let (size, modified) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some((Version { size, modified, path: fields.next()?.into() }, hash))
        };
        HASHED.lock().extend(text.lines().filter_map(parse));
    }

    fn write_record(&self) {
        let Some(record) = self.record else { return };
        let hashed = HASHED.lock();
        // Versions of files that have changed since are of no use.
        let current =
            hashed.iter().filter(|(version, _)| Version::of(&version.path).is_ok_and(|now| now == **version));
        let lines = current.map(|(Version { path, size, modified }, hash)| {
            format!("{hash} {size} {modified} {}\n", path.display())
        });
        // Under the lock: models are loaded by several threads.
        if let Err(error) = fs::write(record, lines.collect::<String>()) {
            tracing::debug!(%error, "the next start hashes the models again");
        }
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut block) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hash.update(&block[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::testing;

    fn config(models: &Path) -> ProviderConfig {
        ProviderConfig { models: models.into(), ..ProviderConfig::default() }
    }

    #[test]
    fn the_manifest_has_every_file_that_the_setup_installs() {
        let setup = include_str!("../../scripts/setup");
        for (name, hash) in MANIFEST {
            assert!(setup.contains(name) && setup.contains(hash), "{name}");
        }
        let installed = setup.split("models() {").nth(1).unwrap().split("# --- livekit").next().unwrap();
        let suffixes = [".onnx ", ".ort ", ".bin ", ".json ", ".dict ", ".gguf ", ".so.1.23.2 "];
        let names =
            installed.split_inclusive(' ').filter(|word| suffixes.iter().any(|end| word.ends_with(end)));
        let names: Vec<&str> = names.map(str::trim).filter(|name| !name.contains('/')).collect();
        assert_eq!(names.len(), MANIFEST.len(), "{names:?}");
    }

    #[test]
    fn an_installed_file_is_used_and_one_with_a_flipped_bit_is_named_and_not_used() {
        let name = "silero-vad-v6.onnx";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut bytes = fs::read(testing::models().join(name)).unwrap();
        fs::write(&path, &bytes).unwrap();
        let config = config(folder.path());
        assert_eq!(ModelFiles::new(&config).path(name), Ok(path.clone()));

        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();

        let error = ModelFiles::new(&config).path(name).unwrap_err().to_string();
        assert!(error.contains(&format!("{} is damaged", path.display())), "{error}");
        let unchecked = ProviderConfig { checksums: false, ..config };
        assert_eq!(ModelFiles::new(&unchecked).path(name), Ok(path));
    }

    #[test]
    fn what_was_hashed_is_not_hashed_again_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let name = "cmudict.dict";
        let path = folder.path().join(name);
        fs::write(&path, "not the dictionary").unwrap();
        let record = folder.path().join("models.checked");
        let version = Version::of(&path).unwrap();
        let known = MANIFEST.iter().find(|(known, _)| *known == name).unwrap().1;
        let line = format!("{known} {} {} {}\n", version.size, version.modified, version.path.display());
        fs::write(&record, line).unwrap();
        let config = ProviderConfig { checked_models: Some(record.clone()), ..config(folder.path()) };

        assert_eq!(ModelFiles::new(&config).path(name), Ok(path.clone()), "the record is believed");

        fs::write(&path, "something longer than before").unwrap();
        assert!(ModelFiles::new(&config).path(name).is_err());
        assert!(!fs::read_to_string(&record).unwrap().contains(known));
    }

    #[test]
    fn a_damaged_runtime_is_refused_also_where_no_checksum_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = fs::read(testing::models().join(RUNTIME_FILE)).unwrap();
        bytes.truncate(bytes.len() / 2);
        fs::write(folder.path().join(RUNTIME_FILE), bytes).unwrap();

        for checksums in [true, false] {
            let config = ProviderConfig { checksums, ..config(folder.path()) };
            let error = ModelFiles::new(&config).runtime().unwrap_err().to_string();
            assert!(error.contains("is damaged"), "{error}");
        }
        let config = ProviderConfig { checksums: false, ..config(&testing::models()) };
        assert!(ModelFiles::new(&config).runtime().is_ok());
    }
}
