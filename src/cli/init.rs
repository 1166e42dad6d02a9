//! `octopus init`: writes the configuration file `.env`.

use super::error::CliError;
use super::output::{print, print_result};
use crate::core::config::DatabaseUrl;
use crate::core::config::reference::{Setting, env_file};
use clap::Args;
use rand::RngExt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const FILE: &str = ".env";
/// The audit key of the default SQLite database.
const AUDIT_KEY_FILE: &str = "chat_conversations.db.audit-key";

/// Arguments of `octopus init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Store the data in this Postgres database (default: an SQLite file)
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Who can register users
    #[arg(long, value_name = "WHO", default_value = "open", value_parser = ["open", "key", "closed"])]
    registration: String,
}

pub(super) fn run(args: &InitArgs) -> Result<(), CliError> {
    if let Some(url) = &args.postgres {
        match url.parse() {
            Ok(DatabaseUrl::Postgres(_)) => {}
            Ok(_) => {
                return Err(CliError::Other(
                    "--postgres must be a URL such as postgres://user:password@host/database"
                        .into(),
                ));
            }
            Err(error) => return Err(CliError::Other(format!("--postgres {error}"))),
        }
    }
    let token = random_hex();
    // An existing database has signed its audit log with the key in this file.
    let has_audit_key = args.postgres.is_none() && Path::new(AUDIT_KEY_FILE).exists();
    let value = |setting: &Setting| match setting.name {
        "DATABASE_URL" => args.postgres.as_deref().map(quoted),
        "REGISTRATION" => Some(args.registration.clone()),
        "AUDIT_KEY" if !has_audit_key => Some(random_hex()),
        "BOOTSTRAP_TOKEN" => Some(token.clone()),
        _ => None,
    };
    let mut options = OpenOptions::new();
    // The file contains secrets, so only the owner can read it.
    let mut file = match options.write(true).create_new(true).mode(0o600).open(FILE) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return print(format_args!("{FILE} already exists; nothing was changed"));
        }
        created => created.map_err(|error| failed(&error))?,
    };
    let written = file.write_all(env_file(value).as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Otherwise the next run would keep the incomplete file.
        let _ = std::fs::remove_file(FILE);
        return Err(failed(&error));
    }
    // The file contains the token too, so it is not lost if this fails.
    print_result(format_args!(
        "Wrote {FILE}. Start the server with `octopus`; then create the first API key:\n  \
         curl -X POST -H 'Octopus-Bootstrap-Token: {token}' http://localhost:8000/bootstrap"
    ))
}

fn failed(error: &std::io::Error) -> CliError {
    CliError::Other(format!("cannot write {FILE}: {error}"))
}

/// 32 random bytes in hexadecimal.
fn random_hex() -> String {
    hex::encode(rand::rng().random::<[u8; 32]>())
}

/// Puts `value` in single quotes for dotenvy, which interprets no other character in them. A URL
/// can contain a single quote as `%27`.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "%27"))
}
