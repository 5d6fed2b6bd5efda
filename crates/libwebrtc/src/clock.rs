//! The only module that reads the clock. All others get the time as an argument.

use std::time::{Instant, SystemTime};

/// Current monotonic time. Uses tokio's clock, so that tests can pause time.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Current time in microseconds since the Unix epoch, for the timestamps of statistics.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the system time")]
pub(crate) fn unix_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
