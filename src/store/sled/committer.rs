//! The committer's thread: makes writes durable in batches, and opens the database again after a failure.

use std::{
    iter,
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    clock,
    store::{
        StoreError,
        sled::{
            Acknowledge, DiskError, Shared,
            database::{Database, in_words, probe},
            panics::caught,
        },
    },
};

/// Writes that share one sync.
const MAX_BATCH: usize = 1024;

/// How often what nobody waits for is made durable, and the disk is looked at.
const TICK: Duration = Duration::from_millis(500);

/// The wait before the first attempt to open the database again; it doubles up to the longest one. From the
/// moment that the disk takes data, writes succeed within the longest wait and the time to open.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// How long sled's own threads may take to let go of the database's files, in steps.
const RELEASE_STEPS: u32 = 200;
const RELEASE_STEP: Duration = Duration::from_millis(10);

/// A write that somebody waits for.
pub(super) struct Commit {
    /// The database that it was written to.
    pub epoch: u64,
    /// How many acknowledged writes it counts as.
    pub writes: u64,
    pub acknowledge: Acknowledge,
}

/// Runs until every [`Disk`](super::Disk) is gone.
pub(super) fn run(shared: &Shared, queue: &Receiver<Commit>) {
    let mut batch = Vec::new();
    let mut next_tick = clock::now();
    let mut recovery = Recovery::default();
    loop {
        let wait = recovery.next_attempt(next_tick).saturating_duration_since(clock::now());
        match queue.recv_timeout(wait) {
            Ok(first) => {
                batch.extend(iter::once(first).chain(queue.try_iter().take(MAX_BATCH - 1)));
                commit(shared, &mut batch);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = clock::now();
        if now >= next_tick {
            next_tick = now + TICK;
            tick(shared);
        }
        recovery.advance(shared, now);
    }
}

fn commit(shared: &Shared, batch: &mut Vec<Commit>) {
    let epoch = shared.database.read().as_ref().map(|database| database.epoch);
    // What was written to a database that had to be opened again since may be lost.
    let is_current = |commit: &Commit| Some(commit.epoch) == epoch;
    let writes = batch.iter().filter(|commit| is_current(commit)).map(|commit| commit.writes).sum();
    let result = sync(shared, |database| database.commit(writes));
    for commit in batch.drain(..) {
        let lost = || Err(StoreError::Unavailable { cause: "the database had to be opened again".into() });
        let outcome = if is_current(&commit) || result.is_err() { result.clone() } else { lost() };
        (commit.acknowledge)(outcome);
    }
}

/// What has to happen though nobody waits for it.
fn tick(shared: &Shared) {
    if shared.progress.is_dirty() && shared.progress.refusal().is_none() {
        // The failure is recorded, and logged there.
        let _ = sync(shared, |database| {
            database.commit(0)?;
            database.sync_counts()
        });
    }
    if let Ok(disk) = rustix::fs::statvfs(&shared.folder) {
        shared.progress.health.has_free(disk.f_bavail.saturating_mul(disk.f_frsize));
    }
}

fn sync(shared: &Shared, work: impl FnOnce(&Database) -> Result<(), StoreError>) -> Result<(), StoreError> {
    if let Some(refusal) = shared.progress.refusal() {
        return Err(refusal);
    }
    let synced = shared.read(work);
    if let Err(error) = &synced {
        // Whatever the error is, nothing is durable until a flush succeeds.
        shared.progress.health.failed(&cause(error));
    }
    synced
}

fn cause(error: &StoreError) -> String {
    match error {
        StoreError::Unavailable { cause } | StoreError::Failed(cause) => cause.clone(),
        StoreError::Full | StoreError::Closed => error.to_string(),
    }
}

/// When the database is opened again.
#[derive(Default)]
struct Recovery {
    /// The next attempt, and the wait after it.
    next: Option<(Instant, Duration)>,
}

impl Recovery {
    /// The next attempt, or `at` if that is earlier.
    fn next_attempt(&self, at: Instant) -> Instant {
        self.next.map_or(at, |(next, _)| next.min(at))
    }

    fn advance(&mut self, shared: &Shared, now: Instant) {
        if shared.progress.refusal().is_none() {
            self.next = None;
            return;
        }
        let (at, backoff) = *self.next.get_or_insert((now + FIRST_BACKOFF, FIRST_BACKOFF));
        if now < at {
            return;
        }
        match caught(|| reopen(shared)).flatten() {
            Ok(()) => {
                shared.progress.health.opened();
                self.next = None;
            }
            Err(cause) => {
                shared.progress.health.failed(&cause);
                self.next = Some((clock::now() + backoff, (backoff * 2).min(MAX_BACKOFF)));
            }
        }
    }
}

/// Closes the database and opens it, if the disk takes data. The old one is kept for reads until then.
fn reopen(shared: &Shared) -> Result<(), String> {
    probe(&shared.folder).map_err(|error| in_words(&error))?;
    let mut slot = shared.database.write();
    drop(slot.take());
    let database = open(shared).map_err(|error| error.to_string())?;
    let rewritten = shared.rewrites.lock().iter().try_for_each(|rewrite| rewrite(&database));
    let durable = rewritten.and_then(|()| database.commit(0));
    *slot = Some(database);
    durable.map_err(|error| cause(&error))
}

fn open(shared: &Shared) -> Result<Database, DiskError> {
    let mut steps = 0;
    loop {
        match Database::open(&shared.folder, shared.progress.clone()) {
            Err(DiskError::Locked { .. }) if steps < RELEASE_STEPS => {
                thread::sleep(RELEASE_STEP);
                steps += 1;
            }
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sled::Disk;

    #[test]
    fn a_write_to_a_database_that_was_opened_again_since_is_not_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let (epoch, ()) = disk.shared.write(|_| Ok(())).unwrap();
        let acknowledged = |epoch| {
            let (done, outcome) = std::sync::mpsc::channel();
            let acknowledge: Acknowledge = Box::new(move |synced| done.send(synced).unwrap());
            commit(&disk.shared, &mut vec![Commit { epoch, writes: 1, acknowledge }]);
            outcome.recv().unwrap()
        };
        assert_eq!(acknowledged(epoch), Ok(()));

        reopen(&disk.shared).unwrap();

        assert!(matches!(acknowledged(epoch), Err(StoreError::Unavailable { .. })));
        let (epoch, ()) = disk.shared.write(|_| Ok(())).unwrap();
        assert_eq!(acknowledged(epoch), Ok(()));
    }
}
