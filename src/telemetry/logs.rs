//! Logs, to standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `RUST_LOG`
    pub filter: String,
    /// `LOG_FORMAT=json`
    pub json: bool,
}

/// Starts logging; a second call in a process changes nothing.
pub fn start_logs(log: &LogConfig) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| format!("RUST_LOG: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    // Fails if there is a logger already: a second gateway in one process, as in tests, uses that of the first.
    let _ = if log.json {
        registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init()
    } else {
        let colours = std::io::stderr().is_terminal();
        registry
            .with(fmt::layer().with_target(false).with_ansi(colours).with_writer(std::io::stderr))
            .try_init()
    };
    Ok(())
}
