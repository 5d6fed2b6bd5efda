//! An open database, and how it is opened.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::store::{
    StoreError,
    disk_health::DiskHealth,
    sled::{
        DiskError,
        acknowledged::{AcknowledgedFile, Counts},
        panics::caught,
    },
};

/// sled's page cache. The working set is the newest lines of the users who are connected.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// The key of the count of acknowledged writes, in the database's own tree.
const ACKNOWLEDGED: &str = "acknowledged";

/// What is written to find out whether the disk takes data again: a segment of sled's log and some for its snapshot.
const PROBE_BYTES: usize = 1024 * 1024;
const PROBE_FILE: &str = ".probe";

/// The state of the disk, and how far the committer is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub health: Arc<DiskHealth>,
    /// How often the database was opened in this process.
    opened: AtomicU64,
    /// Something was written since the last flush began.
    is_dirty: AtomicBool,
    /// Flushes that have begun.
    began: AtomicU64,
    /// The newest flush after which everything written before it began is durable.
    durable: AtomicU64,
}

impl Progress {
    /// The mark of a write that is complete: it is durable once [`is_durable`](Self::is_durable) says so.
    pub(super) fn mark(&self) -> u64 {
        self.began.load(Ordering::SeqCst)
    }

    pub(super) fn is_durable(&self, mark: u64) -> bool {
        // Flush number `mark` had begun when the write was complete: the next one includes it.
        self.durable.load(Ordering::SeqCst) > mark
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty.load(Ordering::SeqCst)
    }

    /// The disk takes no writes. The error that a write gets.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        self.health.failure().map(|cause| StoreError::Unavailable { cause })
    }
}

/// One open database. Trees are looked up for each operation and not kept: sled releases its files only once
/// no tree is left.
pub(super) struct Database {
    db: sled::Db,
    /// fdatasync works on the file, whichever descriptor it is called on.
    file: File,
    acknowledged: AcknowledgedFile,
    counts: Mutex<Counts>,
    progress: Arc<Progress>,
    /// A number of its own in this process. A write to an earlier one may be lost.
    pub epoch: u64,
}

impl Database {
    /// Opens or creates the database of a folder. What was lost of it is counted and logged.
    pub(super) fn open(folder: &Path, progress: Arc<Progress>) -> Result<Self, DiskError> {
        let database = Self::open_files(folder, progress)?;
        // sled does not make the names of the files that it creates durable.
        for folder in [folder, &folder.join("sled")] {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| DiskError::unwritable(folder, &error))?;
        }
        database.settle_counts(folder)?;
        Ok(database)
    }

    /// Opens or creates the database of a folder, and compares nothing.
    pub(super) fn open_files(folder: &Path, progress: Arc<Progress>) -> Result<Self, DiskError> {
        let unwritable = |error: &io::Error| DiskError::unwritable(folder, error);
        let path = folder.join("sled");
        remove_partial_snapshots(&path).map_err(|error| unwritable(&error))?;
        let config = sled::Config::new().path(&path).cache_capacity(CACHE_BYTES);
        let db = match caught(|| config.open()) {
            Ok(Ok(db)) => db,
            Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
                return Err(DiskError::Locked { path: folder.into() });
            }
            Ok(Err(sled::Error::Io(error))) => return Err(unwritable(&error)),
            Ok(Err(error)) => return Err(DiskError::damaged(folder, error)),
            Err(panic) => return Err(DiskError::damaged(folder, panic)),
        };
        let file = File::open(path.join("db")).map_err(|error| unwritable(&error))?;
        let acknowledged = AcknowledgedFile::open(folder).map_err(|error| unwritable(&error))?;
        let epoch = progress.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Self { db, file, acknowledged, counts: Mutex::default(), progress, epoch })
    }

    pub(super) fn tree(&self, name: &str) -> Result<sled::Tree, StoreError> {
        Ok(self.db.open_tree(name)?)
    }

    pub(super) fn tree_names(&self) -> Vec<String> {
        self.db.tree_names().iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Something was written.
    pub(super) fn written(&self) {
        self.progress.is_dirty.store(true, Ordering::SeqCst);
    }

    /// The number of acknowledged writes as of the database itself.
    pub(super) fn acknowledged(&self) -> Result<u64, StoreError> {
        let count = self.db.get(ACKNOWLEDGED)?.and_then(|count| <[u8; 8]>::try_from(count.as_ref()).ok());
        Ok(count.map_or(0, u64::from_be_bytes))
    }

    /// Makes everything that was written before durable, and counts `writes` of it as acknowledged.
    pub(super) fn commit(&self, writes: u64) -> Result<(), StoreError> {
        let Progress { health, is_dirty, began, durable, .. } = &*self.progress;
        let number = began.fetch_add(1, Ordering::SeqCst) + 1;
        is_dirty.store(false, Ordering::SeqCst);
        health.sync_began();
        let synced = self.commit_now(writes);
        health.sync_ended(synced.is_ok());
        if synced.is_ok() {
            durable.store(number, Ordering::SeqCst);
        }
        synced
    }

    fn commit_now(&self, writes: u64) -> Result<(), StoreError> {
        let mut counts = self.counts.lock();
        let after = Counts { acknowledged: counts.acknowledged + writes, ..*counts };
        self.db.insert(ACKNOWLEDGED, &after.acknowledged.to_be_bytes())?;
        self.db.flush()?;
        self.file.sync_data().map_err(|error| unavailable(&error))?;
        self.acknowledged.write(after).map_err(|error| unavailable(&error))?;
        *counts = after;
        Ok(())
    }

    /// Makes the counts in the file beside the database durable.
    pub(super) fn sync_counts(&self) -> Result<(), StoreError> {
        self.acknowledged.sync().map_err(|error| unavailable(&error))
    }

    /// Compares the database with the file beside it, and reports each loss once.
    fn settle_counts(&self, folder: &Path) -> Result<(), DiskError> {
        let found = caught(|| self.acknowledged()).map_err(|panic| DiskError::damaged(folder, panic))?;
        let found = found.map_err(|error| DiskError::of_store(folder, error))?;
        let mut counts = Counts::read(folder).unwrap_or_default();
        let missing = counts.acknowledged.saturating_sub(found);
        if missing > 0 {
            tracing::error!(
                path = %folder.join("sled").display(),
                acknowledged = counts.acknowledged,
                found,
                "the end of the database is lost: up to {missing} acknowledged writes are missing"
            );
            self.progress.health.lost(missing);
            counts.lost += missing;
        }
        counts.acknowledged = counts.acknowledged.max(found);
        *self.counts.lock() = counts;
        self.commit(0).map_err(|error| DiskError::of_store(folder, error))
    }
}

/// A snapshot that was being written when the process ended, or the disk was full. sled takes it for a
/// complete one, and does not open.
fn remove_partial_snapshots(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether the disk takes data: writes some, and removes it again.
pub(super) fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(PROBE_FILE);
    let written = (|| {
        let mut file = File::create(&path)?;
        file.write_all(&vec![0xa5; PROBE_BYTES])?;
        file.sync_all()
    })();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
        _ => written,
    }
}

fn unavailable(error: &io::Error) -> StoreError {
    StoreError::Unavailable { cause: in_words(error) }
}

/// An error of the operating system as an operator reads it.
pub(super) fn in_words(error: &io::Error) -> String {
    let words = [
        (io::ErrorKind::StorageFull, "the disk is full"),
        (io::ErrorKind::ReadOnlyFilesystem, "the disk is read-only"),
        (io::ErrorKind::QuotaExceeded, "the disk quota is used up"),
    ];
    let known = words.iter().find(|(kind, _)| *kind == error.kind());
    known.map_or_else(|| error.to_string(), |(_, words)| (*words).to_owned())
}
