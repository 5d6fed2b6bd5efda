//! Logs and metrics.

use std::net::{Ipv6Addr, SocketAddr};

use tracing_subscriber::EnvFilter;

use crate::{config::Reader, telemetry::LogConfig};

/// The gateway at `info`, libraries where an operator has to act. `genai` is off: it logs the error messages of
/// providers, which can quote a key.
const DEFAULT_LOG_FILTER: &str = "info,actix_server=warn,genai=off,livekit=error,livekit_signaling=error,libwebrtc=warn,str0m=error,ort=warn";

#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    pub log: LogConfig,
    /// Where metrics are served without a key (`METRICS_PORT`); none: at `/metrics` of the main port, with a key.
    pub metrics_bind: Option<SocketAddr>,
}

impl Reader<'_> {
    pub(super) fn telemetry(&mut self) -> TelemetryConfig {
        let filter = self.text("RUST_LOG").unwrap_or_else(|| DEFAULT_LOG_FILTER.into());
        if let Err(error) = EnvFilter::try_new(&filter) {
            self.problem("RUST_LOG", error);
        }
        let json = self.choice("LOG_FORMAT", &[("text", false), ("json", true)]).unwrap_or_default();
        let metrics_port = self.parsed("METRICS_PORT");
        TelemetryConfig {
            log: LogConfig { filter, json },
            metrics_bind: metrics_port.map(|port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)),
        }
    }
}
