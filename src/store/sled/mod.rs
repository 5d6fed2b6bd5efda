//! The embedded database, and the one thread that makes what is written to it durable.
//!
//! sled's own `flush()` is no fsync on Linux (it calls `sync_file_range`), so what we call saved is
//! flushed **and** fdatasync-ed; one committer does it for all writers at once, since a disk syncs a
//! hundred lines as fast as one.
//!
//! ```text
//!   writers ──▶ bounded queue ──▶ committer: apply a batch ─▶ flush ─▶ fdatasync ─▶ acknowledge all
//! ```

pub mod history;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    thread,
};

use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};

/// Writes that may wait for the committer. At 5,000 lines a second this is more than a second's worth;
/// a disk that is further behind should be heard of.
const QUEUE: usize = 8192;

/// Writes that share one sync.
const BATCH: usize = 1024;

/// sled's page cache. The working set is the newest lines of the users who are here.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Why the database could not be opened or written.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DiskError {
    /// The folder cannot be made or written.
    #[error("{path}: {cause}")]
    Unwritable {
        /// Which folder.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// Another process has it open.
    #[error("{path}: another gateway uses this folder")]
    Locked {
        /// Which folder.
        path: PathBuf,
    },
    /// The database itself failed.
    #[error("database: {0}")]
    Sled(String),
    /// Too many writes wait.
    #[error("too many writes wait for the disk")]
    Full,
    /// The gateway is going down.
    #[error("the database is closed")]
    Closed,
}

impl From<sled::Error> for DiskError {
    fn from(error: sled::Error) -> Self {
        Self::Sled(error.to_string())
    }
}

/// One database in one folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk {
    db: sled::Db,
    writes: mpsc::Sender<Write>,
}

/// A write that was applied to memory and waits to be durable.
type Write = oneshot::Sender<Result<(), DiskError>>;

impl Disk {
    /// Opens or makes the database in `folder`, and starts its committer.
    pub fn open(folder: &Path) -> Result<Self, DiskError> {
        let unwritable =
            |error: &io::Error| DiskError::Unwritable { path: folder.into(), cause: error.to_string() };
        std::fs::create_dir_all(folder).map_err(|error| unwritable(&error))?;
        let db = sled::Config::new().path(folder.join("sled")).cache_capacity(CACHE_BYTES).open().map_err(
            |error| {
                let sled::Error::Io(error) = error else { return error.into() };
                if error.to_string().contains("could not acquire lock") {
                    DiskError::Locked { path: folder.into() }
                } else {
                    unwritable(&error)
                }
            },
        )?;
        // fdatasync works on the file, whichever descriptor it is called on.
        let file = File::open(folder.join("sled").join("db")).map_err(|error| unwritable(&error))?;
        let (writes, queue) = mpsc::channel(QUEUE);
        let committed = db.clone();
        thread::Builder::new()
            .name("committer".into())
            .spawn(move || commit(&committed, &file, queue))
            .map_err(|error| unwritable(&error))?;
        Ok(Self { db, writes })
    }

    /// One of the database's trees.
    pub fn tree(&self, name: &str) -> Result<sled::Tree, DiskError> {
        Ok(self.db.open_tree(name)?)
    }

    /// Resolves once everything that was applied to the trees before this call is durable.
    pub fn durable(&self) -> impl Future<Output = Result<(), DiskError>> + Send + use<> {
        let (done, waiting) = oneshot::channel();
        let queued = self.writes.try_send(done).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => DiskError::Full,
            mpsc::error::TrySendError::Closed(_) => DiskError::Closed,
        });
        async move {
            queued?;
            waiting.map(|result| result.unwrap_or(Err(DiskError::Closed))).await
        }
    }

    /// Makes everything durable; the last thing before the process ends.
    pub fn sync(&self) -> Result<(), DiskError> {
        self.db.flush()?;
        Ok(())
    }
}

fn commit(db: &sled::Db, file: &File, mut queue: mpsc::Receiver<Write>) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
        let result = db
            .flush()
            .map_err(DiskError::from)
            .and_then(|_| file.sync_data().map_err(|error| DiskError::Sled(error.to_string())));
        if let Err(error) = &result {
            tracing::error!(%error, "writes are not durable");
        }
        for done in batch.drain(..) {
            // A writer that no longer waits has been cancelled; its line is durable all the same.
            let _ = done.send(result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("occupied");
        std::fs::write(&file, "").unwrap();
        let error = Disk::open(&file.join("data")).unwrap_err();
        assert!(matches!(error, DiskError::Unwritable { .. }), "{error:?}");
    }

    #[test]
    fn a_folder_in_use_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Disk::open(folder.path()).unwrap();
        let error = Disk::open(folder.path()).unwrap_err();
        assert!(matches!(error, DiskError::Locked { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn what_is_durable_is_there_after_a_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.tree("t").unwrap().insert("k", "v").unwrap();
        disk.durable().await.unwrap();
        let file = std::fs::read(folder.path().join("sled/db")).unwrap();
        drop(disk);
        assert!(!file.is_empty());
    }
}
