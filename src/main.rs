//! The `june` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use june_edge::cli::{check_config, drill, history, keys, serve, talk};

/// June Edge, the edge gateway for voice wearables. Settings are environment variables, or in the file JUNE_CONFIG: see docs/SETTINGS.md.
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
    /// Checks the settings and prints every problem and every note.
    CheckConfig,
    /// Plays faults against the configured providers, and prints who took over and when.
    ///
    /// It makes real calls: two for each fault, which cost what the providers ask for. It has nothing to do with a
    /// gateway that runs, nor with its data. Exit code 0: every fault was survived; 1: one was not, or is not covered;
    /// 64: the settings are invalid. With the default deadlines, two providers of each role take about a minute.
    Drill(drill::Args),
    /// Looks after the stored history.
    History {
        #[command(subcommand)]
        command: history::Command,
    },
    /// Makes, lists and revokes API keys with a name and roles.
    Keys(keys::Args),
    /// Talks to a gateway as a wearable does.
    Talk(Box<talk::Args>),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve => serve::main(),
        Command::CheckConfig => check_config::main(),
        Command::Drill(args) => drill::main(args),
        Command::History { command } => history::main(command),
        Command::Keys(args) => keys::main(args),
        Command::Talk(args) => talk::main(*args),
    }
}
