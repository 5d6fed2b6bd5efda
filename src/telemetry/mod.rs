//! Logs and metrics.

mod logs;
pub(crate) mod memory;
mod metrics;

pub use self::logs::{LogConfig, start_logs};
pub(crate) use self::metrics::*;
