//! `june serve`: runs a gateway until the process is told to stop.

use std::{fmt::Display, process::ExitCode};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{EX_CANTCREAT, EX_USAGE, hardening, print_line},
    config::Config,
    gateway::{Gateway, StartError},
    telemetry,
};

/// Reads the settings from the environment and serves.
pub fn main() -> ExitCode {
    let problems = hardening::harden();
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => return fail(EX_USAGE, error.problems),
    };
    if let Err(problem) = telemetry::start_logs(&config.telemetry.log) {
        return fail(EX_USAGE, [problem]);
    }
    for problem in problems {
        tracing::warn!("{problem}");
    }
    actix_web::rt::System::new().block_on(async {
        let gateway = match Gateway::start(config).await {
            Ok(gateway) => gateway,
            Err(error @ StartError::Jwks(_)) => return fail(EX_USAGE, [error]),
            Err(error @ (StartError::Bind { .. } | StartError::Disk(_) | StartError::System(_))) => {
                return fail(EX_CANTCREAT, [error]);
            }
        };
        let signal = stop_signal().await;
        tracing::info!(signal, "stopping");
        gateway.stop().await;
        ExitCode::SUCCESS
    })
}

fn fail(code: u8, problems: impl IntoIterator<Item: Display>) -> ExitCode {
    for problem in problems {
        print_line(problem);
    }
    ExitCode::from(code)
}

/// Waits for a signal that asks the process to end; returns its name.
async fn stop_signal() -> &'static str {
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "cannot listen for signals");
                return "none";
            }
        };
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}
