//! The subcommands of `june`.

pub mod talk;
mod wav;
