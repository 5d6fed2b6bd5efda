//! `june check-config`: checks the settings without starting a gateway.

use std::process::ExitCode;

use crate::{
    cli::{EX_USAGE, print_line},
    config::{Config, ConfigError},
};

/// Prints every problem and every note.
pub fn main() -> ExitCode {
    let (problems, notes, file) = match Config::from_env() {
        Ok(config) => (Vec::new(), config.notes, config.file),
        Err(ConfigError { problems, notes }) => (problems, notes, None),
    };
    for problem in &problems {
        print_line(problem);
    }
    for note in notes {
        print_line(format_args!("note: {note}"));
    }
    if !problems.is_empty() {
        return ExitCode::from(EX_USAGE);
    }
    if let Some(file) = file {
        print_line(format_args!("settings are read from the environment and from {}", file.display()));
    }
    print_line("the settings are valid");
    ExitCode::SUCCESS
}
