//! `june keys`: API keys with a name and roles, in the file of `API_KEYS_FILE`.

use std::{fmt::Display, process::ExitCode};

use clap::{Args as ClapArgs, Subcommand};

use crate::{
    auth::keys::{ApiKey, KeyFile, KeyFileError, Role},
    cli::{EX_CANTCREAT, EX_USAGE, print_line},
    config::keys_file_from_env,
    ids::UserId,
};

#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a key and prints it, once. A name may have two keys, so that one can replace the other.
    Add {
        /// Whose key it is: letters, digits, `-`, `_` and `.`
        #[arg(long)]
        name: String,
        /// What it is for; may be given several times.
        #[arg(long, required = true, value_enum)]
        role: Vec<Role>,
        /// The one user whom it acts for; all if it is left out.
        #[arg(long)]
        user: Option<UserId>,
    },
    /// Lists the keys, without the keys themselves.
    List,
    /// Revokes the keys of a name, or the one key of an id. A running gateway notices within a second.
    Revoke { name_or_id: String },
}

/// Needs none of the other settings.
pub fn main(args: Args) -> ExitCode {
    let file = keys_file_from_env();
    match run(args.command, &file) {
        Ok(lines) => {
            lines.iter().for_each(print_result);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = match error {
                KeyFileError::Io { .. } => EX_CANTCREAT,
                KeyFileError::Malformed { .. } | KeyFileError::Refused(_) => EX_USAGE,
            };
            print_line(error);
            ExitCode::from(code)
        }
    }
}

fn run(command: Command, file: &KeyFile) -> Result<Vec<String>, KeyFileError> {
    match command {
        Command::Add { name, role, user } => {
            let (key, secret) = file.add(&name, role.into_iter().collect(), user)?;
            print_line(format_args!("{} in {}", described(&key), file.path().display()));
            print_line("this is the key; it is not stored and not shown again:");
            Ok(vec![secret.expose().to_owned()])
        }
        Command::List => {
            let keys = file.read()?.unwrap_or_default();
            Ok(keys.iter().map(|entry| format!("{} {}", entry.created_at, described(&entry.key))).collect())
        }
        Command::Revoke { name_or_id } => {
            let revoked = file.revoke(&name_or_id)?;
            Ok(revoked.iter().map(|key| format!("revoked {}", described(key))).collect())
        }
    }
}

fn described(key: &ApiKey) -> String {
    let roles: Vec<String> = key.roles.iter().map(ToString::to_string).collect();
    let user = key.user.as_ref().map(|user| format!(" for {user}")).unwrap_or_default();
    format!("{} {} ({}){user}", key.id, key.name, roles.join(", "))
}

/// Prints to standard output, for programs.
#[expect(clippy::print_stdout, reason = "output of the command, not its log")]
fn print_result(line: impl Display) {
    println!("{line}");
}
