//! The only reader of the clock. Everything else is told what time it is.

use std::time::{Instant, SystemTime};

/// The monotonic time that machines and timers go by. Follows tokio's clock, so that a test that pauses
/// time pauses everything.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Microseconds since the Unix epoch: the unit of timestamps in statistics.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the calendar")]
pub(crate) fn unix_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
