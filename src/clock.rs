//! The only reader of the clock. Everything else is told what time it is.
//!
//! [`now`] follows tokio's clock, so that a test that pauses time pauses the whole gateway.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic time that machines and timers go by.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The calendar, for what leaves the gateway: token lifetimes, message timestamps, history.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the calendar")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since the Unix epoch, by [`wall`].
pub fn unix_ms() -> u64 {
    since_epoch().as_millis() as u64
}

/// Seconds since the Unix epoch, by [`wall`]: the unit of JWT claims (RFC 7519 §2, NumericDate).
pub fn unix_s() -> u64 {
    since_epoch().as_secs()
}

fn since_epoch() -> Duration {
    wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A calendar time as it stands in messages: RFC 3339, UTC, milliseconds.
pub fn timestamp(unix_ms: u64) -> String {
    let millis = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    chrono::DateTime::from_timestamp_millis(millis)
        .unwrap_or_default()
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
