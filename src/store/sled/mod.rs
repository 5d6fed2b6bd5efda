//! The embedded database.
//!
//! ```text
//!   callers ──▶ queue ──▶ thread "store": reads and writes, one after the other
//!                              └─▶ queue ──▶ thread "committer": a batch ─▶ flush ─▶ fdatasync ─▶ acknowledge
//! ```
//! sled's own `flush()` is no fsync on Linux (it calls `sync_file_range`), so a write is acknowledged as
//! durable after a flush **and** an fdatasync. The committer does that for all writers at once: a disk syncs
//! a hundred lines as fast as one. Reads do not wait for it, since it has a thread of its own.

mod deny_list;
mod history;
mod pending_sessions;
mod secret;
mod sessions;

use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

pub(crate) use self::{
    deny_list::SledDenyList, history::SledHistory, secret::gateway_secret, sessions::SledSessions,
};
use crate::store::StoreError;

/// Operations that may wait for the store's thread, and writes that may wait for the committer. At 5,000
/// lines a second this is more than a second's worth.
const MAX_QUEUED: usize = 8192;

/// Writes that share one sync.
const MAX_BATCH: usize = 1024;

/// sled's page cache. The working set is the newest lines of the users who are connected.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Why the database could not be opened.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DiskError {
    /// The folder cannot be created or written.
    #[error("{path}: {cause}")]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        cause: String,
    },
    /// Another process has it open.
    #[error("{path}: another gateway uses this folder")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The database itself failed.
    #[error("database: {0}")]
    Database(String),
}

impl From<sled::Error> for DiskError {
    fn from(error: sled::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<StoreError> for DiskError {
    fn from(error: StoreError) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// An operation on the store's thread.
type Job = Box<dyn FnOnce() + Send>;

/// Called with the outcome of the sync after a write.
type Acknowledge = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// One database in one folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk {
    db: sled::Db,
    jobs: mpsc::Sender<Job>,
    syncs: mpsc::Sender<Acknowledge>,
}

impl Disk {
    /// Opens or creates the database in `folder`, and starts its threads.
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
        let (jobs, job_queue) = mpsc::channel(MAX_QUEUED);
        let (syncs, sync_queue) = mpsc::channel(MAX_QUEUED);
        let committed = db.clone();
        spawn("committer", move || commit(&committed, &file, sync_queue))?;
        spawn("store", move || work(job_queue))?;
        Ok(Self { db, jobs, syncs })
    }

    fn tree(&self, name: &str) -> Result<sled::Tree, DiskError> {
        Ok(self.db.open_tree(name)?)
    }

    /// Runs `work` on the store's thread, after everything that was queued before this call. If the queue
    /// is full, the future waits for a place in it.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // A caller that no longer waits was cancelled; its operation took place all the same.
            let _ = done.send(work());
        });
        let refused = self.jobs.try_send(job).err();
        let jobs = self.jobs.clone();
        async move {
            match refused {
                None => {}
                Some(TrySendError::Full(job)) => jobs.send(job).await.map_err(|_| StoreError::Closed)?,
                Some(TrySendError::Closed(_)) => return Err(StoreError::Closed),
            }
            result.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }

    /// Runs `work` like [`run`](Self::run), and resolves once what it wrote is durable. Fails if a queue is
    /// full: writers must not pile up in front of a disk that does not keep up.
    fn run_durable<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (done, result) = oneshot::channel();
        let syncs = self.syncs.clone();
        let job: Job = Box::new(move || match work() {
            Ok(value) => acknowledge_when_durable(&syncs, move |synced| {
                let _ = done.send(synced.map(|()| value));
            }),
            Err(error) => {
                let _ = done.send(Err(error));
            }
        });
        let queued = self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Full,
            TrySendError::Closed(_) => StoreError::Closed,
        });
        async move {
            queued?;
            result.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }

    /// Resolves once everything that was queued before is durable.
    pub(crate) async fn sync(&self) -> Result<(), StoreError> {
        self.run(|| Ok(())).await?;
        let (done, result) = oneshot::channel();
        let acknowledge: Acknowledge = Box::new(move |synced| {
            let _ = done.send(synced);
        });
        self.syncs.send(acknowledge).await.map_err(|_| StoreError::Closed)?;
        result.await.unwrap_or(Err(StoreError::Closed))
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), DiskError> {
    let spawned = thread::Builder::new().name(name.into()).spawn(run);
    spawned.map(drop).map_err(|error| DiskError::Database(error.to_string()))
}

fn work(mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        // The caller of a job that panics gets an error; the jobs behind it still run.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a store operation panicked");
        }
    }
}

fn acknowledge_when_durable(
    syncs: &mpsc::Sender<Acknowledge>,
    acknowledge: impl FnOnce(Result<(), StoreError>) + Send + 'static,
) {
    match syncs.try_send(Box::new(acknowledge)) {
        Ok(()) => {}
        Err(TrySendError::Full(acknowledge)) => acknowledge(Err(StoreError::Full)),
        Err(TrySendError::Closed(acknowledge)) => acknowledge(Err(StoreError::Closed)),
    }
}

fn commit(db: &sled::Db, file: &File, mut queue: mpsc::Receiver<Acknowledge>) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while queue.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
        let result = db
            .flush()
            .map_err(StoreError::from)
            .and_then(|_| file.sync_data().map_err(|error| StoreError::Failed(error.to_string())));
        if let Err(error) = &result {
            tracing::error!(%error, "writes are not durable");
        }
        for acknowledge in batch.drain(..) {
            acknowledge(result.clone());
        }
    }
}

/// Moves a value that cannot be parsed to a tree of its own, where an operator can look at it.
fn set_aside(from: &sled::Tree, aside: &sled::Tree, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    aside.insert(key, value)?;
    from.remove(key)?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Opens a database whose threads of an earlier [`Disk`] may not have released it yet.
    pub(crate) fn reopen(folder: &Path) -> Disk {
        loop {
            match Disk::open(folder) {
                Err(DiskError::Locked { .. }) => thread::yield_now(),
                disk => return disk.unwrap(),
            }
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("occupied");
        std::fs::write(&file, "").unwrap();
        let error = Disk::open(&file.join("data")).unwrap_err();
        assert!(matches!(error, DiskError::Unwritable { .. }), "{error:?}");
    }

    #[test]
    fn a_folder_in_use_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Disk::open(folder.path()).unwrap();
        let error = Disk::open(folder.path()).unwrap_err();
        assert!(matches!(error, DiskError::Locked { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_durable_write_is_there_after_a_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let tree = disk.tree("t").unwrap();
        disk.run_durable(move || Ok(tree.insert("k", "v")?)).await.unwrap();
        drop(disk);
        assert_eq!(reopen(folder.path()).tree("t").unwrap().get("k").unwrap().unwrap(), "v");
    }

    #[tokio::test]
    async fn operations_run_in_the_order_of_the_calls_whether_or_not_somebody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let tree = disk.tree("t").unwrap();
        for n in 0..100_u8 {
            let tree = tree.clone();
            drop(disk.run(move || Ok(tree.insert("k", &[n])?)));
        }
        let last = disk.run(move || Ok(tree.get("k")?)).await.unwrap();
        assert_eq!(last.unwrap(), [99]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_durable_writes_and_makes_other_operations_wait() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let (started, has_started) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let first = disk.run(move || {
            let _ = started.send(());
            let _ = released.recv();
            Ok(())
        });
        has_started.recv().unwrap();
        while disk.jobs.try_send(Box::new(|| ())).is_ok() {}

        assert_eq!(disk.run_durable(|| Ok(())).await, Err(StoreError::Full));
        let waiting = disk.run(|| Ok(7));

        release.send(()).unwrap();
        first.await.unwrap();
        assert_eq!(waiting.await, Ok(7));
    }

    #[tokio::test]
    async fn an_operation_that_panics_fails_and_the_next_one_runs() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let failed = disk.run(|| -> Result<(), StoreError> { panic!("as a database may") }).await;
        assert_eq!(failed, Err(StoreError::Closed));
        assert_eq!(disk.run(|| Ok(7)).await, Ok(7));
    }
}
