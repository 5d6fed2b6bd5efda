//! The only module that reads the clock. State machines take the time as an argument.
//!
//! [`now`] follows tokio's clock: a test that pauses time pauses the whole gateway.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use june_protocol::timestamp;

/// Monotonic time, for state machines and timers.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Wall-clock time, for token lifetimes, message timestamps and history.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the wall clock")]
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
