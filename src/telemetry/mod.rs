//! Logs and metrics.

mod logs;
mod metrics;

pub use self::logs::{LogConfig, start_logs};
pub(crate) use self::metrics::*;
