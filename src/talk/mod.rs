//! Talks to a gateway as a pair of glasses does.

use std::process::ExitCode;

/// What is said to which gateway.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Talks, and prints what happens.
pub fn main(_: Args) -> ExitCode {
    ExitCode::SUCCESS
}
