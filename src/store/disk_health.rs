//! The state of the disk under the store, for `/readyz`, `/health` and the metrics.
//!
//! Written by the store's threads, read by everybody else. Nothing here touches the disk.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{clock, telemetry};

/// How long an error that is over is still reported, in milliseconds.
const REPORTED_MS: u64 = 3_600_000;

/// A sync that takes longer means that the disk does not answer.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct DiskHealth {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failure: Option<Failure>,
    /// The last error, past or not, and when it was, in milliseconds since the Unix epoch.
    last_error: Option<(String, u64)>,
    /// When the last sync ended, in milliseconds since the Unix epoch.
    last_fsync_ms: Option<u64>,
    /// When the sync began that has not ended.
    syncing_since: Option<Instant>,
    free_bytes: Option<u64>,
    /// Acknowledged writes that were missing when the database was opened.
    lost_writes: u64,
}

/// Why the disk takes no writes now.
#[derive(Clone, Debug)]
struct Failure {
    cause: String,
    since_ms: u64,
}

/// What there is to say about the disk at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskReport {
    /// Why writes fail; none if they do not.
    pub failure: Option<String>,
    /// What an operator should do something about though writes succeed.
    pub warning: Option<String>,
}

impl DiskHealth {
    /// A write or a sync failed: writes are refused until the database was opened again.
    pub(crate) fn failed(&self, cause: &str) {
        metrics::counter!(telemetry::STORE_ERRORS).increment(1);
        metrics::gauge!(telemetry::STORE_READY).set(0.0);
        let now = clock::unix_ms();
        let mut state = self.state.lock();
        state.last_error = Some((cause.to_owned(), now));
        match &mut state.failure {
            Some(failure) => failure.cause = cause.to_owned(),
            None => {
                tracing::error!(cause, "the store takes no writes until it can open its database again");
                state.failure = Some(Failure { cause: cause.to_owned(), since_ms: now });
            }
        }
    }

    /// The database is open and takes writes.
    pub(crate) fn opened(&self) {
        metrics::gauge!(telemetry::STORE_READY).set(1.0);
        if let Some(failure) = self.state.lock().failure.take() {
            metrics::counter!(telemetry::STORE_REOPENS).increment(1);
            let after_ms = clock::unix_ms().saturating_sub(failure.since_ms);
            tracing::warn!(after_ms, "the store takes writes again");
        }
    }

    pub(crate) fn sync_began(&self) {
        self.state.lock().syncing_since = Some(clock::now());
    }

    pub(crate) fn sync_ended(&self, is_synced: bool) {
        let now = clock::unix_ms();
        let mut state = self.state.lock();
        state.syncing_since = None;
        if is_synced {
            state.last_fsync_ms = Some(now);
            metrics::gauge!(telemetry::STORE_LAST_FSYNC).set(now as f64 / 1000.0);
        }
    }

    pub(crate) fn has_free(&self, bytes: u64) {
        metrics::gauge!(telemetry::STORE_FREE_BYTES).set(bytes as f64);
        self.state.lock().free_bytes = Some(bytes);
    }

    /// So many acknowledged writes are not in the database that was opened.
    pub(crate) fn lost(&self, writes: u64) {
        metrics::counter!(telemetry::STORE_LOST_WRITES).increment(writes);
        self.state.lock().lost_writes += writes;
    }

    /// Why writes are refused; none if they are taken.
    pub(crate) fn failure(&self) -> Option<String> {
        let state = self.state.lock();
        match &state.failure {
            Some(failure) => Some(failure.cause.clone()),
            None => state.stuck(),
        }
    }

    /// `warn_below`: the free space under which an operator is warned, in bytes.
    pub(crate) fn report(&self, warn_below: u64) -> DiskReport {
        let state = self.state.lock();
        let failure = match &state.failure {
            Some(failure) => Some(format!("{} (since {})", failure.cause, at(failure.since_ms))),
            None => state.stuck(),
        };
        let mut warnings = Vec::new();
        if let Some(free) = state.free_bytes.filter(|free| *free < warn_below) {
            let (free, wanted) = (free >> 20, warn_below >> 20);
            warnings.push(format!("{free} MB are free in DATA_DIR, less than DISK_FREE_WARN_MB ({wanted})"));
        }
        if state.lost_writes > 0 {
            warnings.push(format!(
                "up to {} acknowledged writes were missing when the database was opened: see june history verify",
                state.lost_writes
            ));
        }
        if failure.is_none()
            && let Some((cause, at_ms)) = &state.last_error
            && clock::unix_ms().saturating_sub(*at_ms) < REPORTED_MS
        {
            let fsync = state.last_fsync_ms.map_or_else(|| "never".into(), at);
            warnings.push(format!("the last error was at {}: {cause} (last fsync: {fsync})", at(*at_ms)));
        }
        DiskReport { failure, warning: (!warnings.is_empty()).then(|| warnings.join("; ")) }
    }
}

impl State {
    fn stuck(&self) -> Option<String> {
        let waited = clock::now().saturating_duration_since(self.syncing_since?);
        (waited > SYNC_TIMEOUT).then(|| format!("the disk has not answered for {} s", waited.as_secs()))
    }
}

fn at(unix_ms: u64) -> String {
    clock::timestamp(unix_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_disk_is_reported_with_its_cause_until_the_database_is_open_again() {
        let health = DiskHealth::default();
        assert_eq!(health.report(0), DiskReport::default());

        health.failed("the disk is full");
        assert_eq!(health.failure().as_deref(), Some("the disk is full"));
        assert!(health.report(0).failure.unwrap().starts_with("the disk is full (since "));

        health.opened();
        let report = health.report(0);
        assert_eq!(report.failure, None);
        assert!(report.warning.unwrap().contains("the disk is full"), "the last error stays known");
    }

    #[test]
    fn little_free_space_and_lost_writes_are_warnings() {
        let health = DiskHealth::default();
        health.has_free(99 << 20);
        assert_eq!(health.report(99 << 20), DiskReport::default());

        health.lost(3);
        let warning = health.report(100 << 20).warning.unwrap();
        assert!(warning.contains("99 MB are free") && warning.contains("up to 3 acknowledged"), "{warning}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_that_does_not_end_is_a_failure() {
        let health = DiskHealth::default();
        health.sync_began();
        tokio::time::advance(SYNC_TIMEOUT).await;
        assert_eq!(health.failure(), None);

        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(health.failure().as_deref(), Some("the disk has not answered for 12 s"));

        health.sync_ended(true);
        assert_eq!(health.failure(), None);
    }
}
