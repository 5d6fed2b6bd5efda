//! The embedded database.
//!
//! ```text
//!   callers ──▶ queue ──▶ thread "store": reads and writes, one after the other
//!                              └─▶ queue ──▶ thread "committer": a batch ─▶ flush ─▶ fdatasync ─▶ acknowledge
//! ```
//! sled's own `flush()` is no fsync on Linux (it calls `sync_file_range`), so a write is acknowledged as
//! durable after a flush **and** an fdatasync. The committer does that for all writers at once: a disk syncs
//! a hundred lines as fast as one. Reads do not wait for it, since it has a thread of its own.
//!
//! After an I/O error sled refuses every further write until it is opened again. So from the first error on
//! writes are refused here ([`StoreError::Unavailable`]), reads go on with what is in memory or can be read, and the
//! committer tries whether the disk takes data again. Once it does, it closes the database, opens it, writes
//! what was kept in memory meanwhile (session records), and lets writes in again.

mod acknowledged;
mod committer;
mod database;
mod deny_list;
mod history;
mod panics;
mod pending_sessions;
mod permissions;
mod secret;
mod session_records;
mod sessions;
mod unsynced_sessions;
pub(crate) mod verify;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc as std_mpsc},
    thread,
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use self::{
    committer::Commit,
    database::{Database, Progress, in_words},
    panics::caught,
};
pub(crate) use self::{
    deny_list::SledDenyList, history::SledHistory, secret::gateway_secret, sessions::SledSessions,
};
use crate::store::{StoreError, disk_health::DiskHealth};

/// Operations that may wait for the store's thread, and writes that may wait for the committer. At 5,000
/// lines a second this is more than a second's worth.
const MAX_QUEUED: usize = 8192;

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
    /// The files of the database cannot be read.
    #[error(
        "{path}: the database is damaged ({cause}). Restore a backup of this folder, or move it away to start \
         with an empty one; `june history verify` says what can still be read"
    )]
    Damaged {
        /// The database's folder.
        path: PathBuf,
        cause: String,
    },
    /// The system provides no threads.
    #[error("the store's threads cannot be started: {0}")]
    Threads(String),
}

impl DiskError {
    fn unwritable(folder: &Path, error: &io::Error) -> Self {
        Self::Unwritable { path: folder.into(), cause: in_words(error) }
    }

    fn damaged(folder: &Path, cause: impl fmt::Display) -> Self {
        Self::Damaged { path: folder.join("sled"), cause: cause.to_string() }
    }

    /// An operation failed when the database had just been opened.
    pub(crate) fn of_store(folder: &Path, error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { cause } => Self::Unwritable { path: folder.into(), cause },
            StoreError::Failed(cause) => Self::damaged(folder, cause),
            StoreError::Full | StoreError::Closed => Self::damaged(folder, error),
        }
    }
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::Unavailable { cause: in_words(&error) },
            sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. } => Self::Failed(error.to_string()),
        }
    }
}

/// An operation on the store's thread.
type Job = Box<dyn FnOnce() + Send>;

/// Called with the outcome of the sync after a write.
type Acknowledge = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Writes to a database that was opened again what was kept in memory meanwhile.
type Rewrite = Box<dyn Fn(&Database) -> Result<(), StoreError> + Send>;

/// One database in one folder. Cheap to clone.
#[derive(Clone)]
pub struct Disk {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    commits: std_mpsc::SyncSender<Commit>,
}

/// What the store's threads work on.
struct Shared {
    folder: PathBuf,
    /// None while the database is being opened again, or cannot be.
    database: RwLock<Option<Database>>,
    progress: Arc<Progress>,
    rewrites: Mutex<Vec<Rewrite>>,
}

impl Shared {
    /// Runs `work` on the database; a panic in it is an error.
    fn read<T>(&self, work: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(|| self.closed())?;
        let result = caught(|| work(database)).unwrap_or_else(|panic| {
            tracing::error!(panic, "a store operation panicked");
            Err(StoreError::Failed(panic))
        });
        if let Err(StoreError::Unavailable { .. }) = &result {
            // Whether sled takes no more writes shows at the next flush.
            database.written();
        }
        result
    }

    /// Runs `work`, which writes, unless the disk takes no writes. Gives the database's epoch with the result.
    fn write<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<(u64, T), StoreError> {
        self.read(|database| {
            if let Some(refusal) = self.progress.refusal() {
                return Err(refusal);
            }
            let result = work(database);
            database.written();
            if let Err(StoreError::Unavailable { cause }) = &result {
                self.progress.health.failed(cause);
            }
            result.map(|value| (database.epoch, value))
        })
    }

    /// Why there is no database.
    fn closed(&self) -> StoreError {
        self.progress.refusal().unwrap_or(StoreError::Closed)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("folder", &self.shared.folder).finish_non_exhaustive()
    }
}

impl Disk {
    /// Opens or creates the database in `folder`, and starts its threads.
    pub fn open(folder: &Path) -> Result<Self, DiskError> {
        permissions::create_folder(folder).map_err(|error| DiskError::unwritable(folder, &error))?;
        permissions::mend(folder);
        let progress = Arc::<Progress>::default();
        let database = Database::open(folder, progress.clone())?;
        progress.health.opened();
        let shared = Arc::new(Shared {
            folder: folder.into(),
            database: RwLock::new(Some(database)),
            progress,
            rewrites: Mutex::default(),
        });
        let (jobs, job_queue) = mpsc::channel(MAX_QUEUED);
        let (commits, commit_queue) = std_mpsc::sync_channel(MAX_QUEUED);
        let committed = shared.clone();
        spawn("committer", move || committer::run(&committed, &commit_queue))?;
        spawn("store", move || work(job_queue))?;
        Ok(Self { shared, jobs, commits })
    }

    pub(crate) fn health(&self) -> Arc<DiskHealth> {
        self.shared.progress.health.clone()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Runs `work` on this thread: for use at startup.
    fn now<T>(&self, work: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, DiskError> {
        self.shared.read(work).map_err(|error| DiskError::of_store(&self.shared.folder, error))
    }

    /// Called with each database that is opened after the first one, before it takes writes.
    fn on_reopen(&self, rewrite: impl Fn(&Database) -> Result<(), StoreError> + Send + 'static) {
        self.shared.rewrites.lock().push(Box::new(rewrite));
    }

    /// Runs `work` on the store's thread, after everything that was queued before this call. If the queue
    /// is full, the future waits for a place in it. Also runs while the disk takes no writes.
    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        self.run(move |shared| shared.read(work))
    }

    /// Runs `work`, which writes, like [`read`](Self::read). Refused while the disk takes no writes.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        self.run(move |shared| shared.write(work).map(|(_, value)| value))
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (done, result) = oneshot::channel();
        let shared = self.shared.clone();
        let job: Job = Box::new(move || {
            // A caller that no longer waits was cancelled; its operation took place all the same.
            let _ = done.send(work(&shared));
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

    /// Runs `work` like [`write`](Self::write), and resolves once what it wrote is durable. Fails if a queue is
    /// full: writers must not pile up in front of a disk that does not keep up.
    fn write_durable<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (done, result) = oneshot::channel();
        let (shared, commits) = (self.shared.clone(), self.commits.clone());
        let job: Job = Box::new(move || match shared.write(work) {
            Ok((epoch, value)) => {
                let acknowledge: Acknowledge = Box::new(move |synced| {
                    let _ = done.send(synced.map(|()| value));
                });
                commit(&commits, Commit { epoch, writes: 1, acknowledge });
            }
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
        let (done, result) = oneshot::channel();
        let commits = self.commits.clone();
        self.run(move |shared| {
            let (epoch, ()) = shared.write(|_| Ok(()))?;
            let acknowledge: Acknowledge = Box::new(move |synced| {
                let _ = done.send(synced);
            });
            // May wait, so not while the database is locked: the committer may want to open it again.
            commits.send(Commit { epoch, writes: 0, acknowledge }).map_err(|_| StoreError::Closed)
        })
        .await?;
        result.await.unwrap_or(Err(StoreError::Closed))
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), DiskError> {
    let spawned = thread::Builder::new().name(name.into()).spawn(run);
    spawned.map(drop).map_err(|error| DiskError::Threads(error.to_string()))
}

fn work(mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        job();
    }
}

fn commit(commits: &std_mpsc::SyncSender<Commit>, commit: Commit) {
    use std_mpsc::TrySendError::{Disconnected, Full};
    match commits.try_send(commit) {
        Ok(()) => {}
        Err(Full(commit)) => (commit.acknowledge)(Err(StoreError::Full)),
        Err(Disconnected(commit)) => (commit.acknowledge)(Err(StoreError::Closed)),
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
        disk.write_durable(|database| Ok(database.tree("t")?.insert("k", "v")?)).await.unwrap();
        drop(disk);
        let read = reopen(folder.path()).now(|database| Ok(database.tree("t")?.get("k")?));
        assert_eq!(read.unwrap().unwrap(), "v");
    }

    #[test]
    fn a_snapshot_that_was_not_completed_does_not_keep_the_database_from_opening() {
        let folder = tempfile::tempdir().unwrap();
        drop(Disk::open(folder.path()).unwrap());
        drop(reopen(folder.path()));
        std::fs::write(folder.path().join("sled/snap.FFFFFFFFFFFFFFFF.generating"), "half").unwrap();

        reopen(folder.path());
    }

    #[tokio::test]
    async fn while_the_disk_fails_writes_are_refused_and_reads_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.write_durable(|database| Ok(database.tree("t")?.insert("k", "v")?)).await.unwrap();
        // A folder in the place of the file that the committer tries to write.
        let in_the_way = folder.path().join(".probe");
        std::fs::create_dir(&in_the_way).unwrap();
        disk.health().failed("the disk is full");

        for refused in [disk.write(|_| Ok(())).await, disk.write_durable(|_| Ok(())).await, disk.sync().await]
        {
            assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        }

        let read = disk.read(|database| Ok(database.tree("t")?.get("k")?)).await;
        assert_eq!(read.unwrap().unwrap(), "v");
        std::fs::remove_dir(in_the_way).unwrap();
        while disk.health().failure().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(disk.write_durable(|_| Ok(())).await, Ok(()));
    }

    #[tokio::test]
    async fn operations_run_in_the_order_of_the_calls_whether_or_not_somebody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        for n in 0..100_u8 {
            drop(disk.write(move |database| Ok(database.tree("t")?.insert("k", &[n])?)));
        }
        let last = disk.read(|database| Ok(database.tree("t")?.get("k")?)).await.unwrap();
        assert_eq!(last.unwrap(), [99]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_durable_writes_and_makes_other_operations_wait() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let (started, has_started) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let first = disk.read(move |_| {
            let _ = started.send(());
            let _ = released.recv();
            Ok(())
        });
        has_started.recv().unwrap();
        while disk.jobs.try_send(Box::new(|| ())).is_ok() {}

        assert_eq!(disk.write_durable(|_| Ok(())).await, Err(StoreError::Full));
        let waiting = disk.read(|_| Ok(7));

        release.send(()).unwrap();
        first.await.unwrap();
        assert_eq!(waiting.await, Ok(7));
    }

    #[tokio::test]
    async fn an_operation_that_panics_fails_and_the_next_one_runs() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let failed = disk.read(|_| -> Result<(), StoreError> { panic!("as a database may") }).await;
        assert_eq!(failed, Err(StoreError::Failed("as a database may".into())));
        assert_eq!(disk.read(|_| Ok(7)).await, Ok(7));
    }
}
