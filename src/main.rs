//! The `june` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use june_edge::{
    config::{Config, ConfigError},
    gateway::{Gateway, StartError},
    telemetry,
};
use tokio::signal::unix::{SignalKind, signal};

/// The settings make no sense (sysexits.h, EX_USAGE).
const BAD_CONFIGURATION: u8 = 64;
/// A port or folder cannot be had (sysexits.h, EX_CANTCREAT).
const CANNOT_CREATE: u8 = 73;

/// June Edge, the edge gateway for voice wearables. Settings come from the environment: see the README.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway until SIGINT or SIGTERM.
    Serve,
    /// Checks the settings and says what is wrong with them.
    CheckConfig,
    /// Talks to a gateway as a pair of glasses does.
    Talk(june_edge::cli::talk::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve => with_config(serve),
        Command::CheckConfig => with_config(|_| {
            say("the settings are good");
            ExitCode::SUCCESS
        }),
        Command::Talk(args) => june_edge::cli::talk::main(args),
    }
}

fn with_config(run: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::from_env() {
        Ok(config) => match telemetry::start_logs(&config.log) {
            Ok(()) => run(config),
            Err(problem) => refuse(&ConfigError(vec![problem])),
        },
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    for problem in &error.0 {
        say(problem);
    }
    ExitCode::from(BAD_CONFIGURATION)
}

fn serve(config: Config) -> ExitCode {
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    actix_web::rt::System::new().block_on(async {
        let gateway = match Gateway::start(config).await {
            Ok(gateway) => gateway,
            Err(error @ StartError::Jwks(_)) => {
                say(&error.to_string());
                return ExitCode::from(BAD_CONFIGURATION);
            }
            Err(error @ (StartError::Bind { .. } | StartError::Disk(_) | StartError::System(_))) => {
                say(&error.to_string());
                return ExitCode::from(CANNOT_CREATE);
            }
        };
        for part in gateway.parts().iter().filter(|part| !part.ready) {
            tracing::warn!("{}", part.message.as_deref().unwrap_or(part.part));
        }
        let signal = asked_to_stop().await;
        tracing::info!(signal, "stopping");
        gateway.stop().await;
        ExitCode::SUCCESS
    })
}

/// Waits for a signal that asks the process to end, and names it.
async fn asked_to_stop() -> &'static str {
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "signals cannot be heard");
                return "none";
            }
        };
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

/// A line for the person who called us.
#[expect(clippy::print_stderr, reason = "this is the program's own voice, not its log")]
fn say(line: &str) {
    eprintln!("june: {line}");
}
