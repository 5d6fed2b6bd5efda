//! The subcommands of `june`.

pub mod check_config;
pub mod drill;
mod hardening;
pub mod history;
pub mod keys;
pub mod serve;
pub mod talk;
mod wav;

use std::fmt::Display;

/// Invalid settings (sysexits.h, EX_USAGE).
const EX_USAGE: u8 = 64;
/// What is stored is damaged (sysexits.h, EX_DATAERR).
const EX_DATAERR: u8 = 65;
/// A port or a folder is not available (sysexits.h, EX_CANTCREAT).
const EX_CANTCREAT: u8 = 73;

/// Prints a line for the person who runs the command.
#[expect(clippy::print_stderr, reason = "output of the command, not its log")]
fn print_line(line: impl Display) {
    eprintln!("june: {line}");
}
