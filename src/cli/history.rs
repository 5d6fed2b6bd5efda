//! `june history`: looks after the stored history.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;

use crate::{
    cli::{EX_CANTCREAT, EX_DATAERR, print_line},
    config::data_dir_from_env,
    store::sled::verify::verify,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reads every record of a stopped gateway's database, and reports what is unreadable or lost.
    ///
    /// Works on a copy, in the same folder. Exit code 0: everything is there; 65: something is damaged or missing;
    /// 73: the folder cannot be read, or a gateway uses it.
    Verify {
        /// The gateway's data; by default the setting DATA_DIR
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
}

pub fn main(command: Command) -> ExitCode {
    let Command::Verify { data_dir } = command;
    let data_dir = data_dir.unwrap_or_else(data_dir_from_env);
    match verify(&data_dir) {
        Ok(findings) => {
            print(&findings.to_string());
            if findings.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(EX_DATAERR) }
        }
        Err(error) => {
            print_line(error);
            ExitCode::from(EX_CANTCREAT)
        }
    }
}

#[expect(clippy::print_stdout, reason = "what the command was asked for")]
fn print(text: &str) {
    print!("{text}");
}
