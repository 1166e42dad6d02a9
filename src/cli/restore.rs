//! `octopus restore`: replaces the SQLite database with a backup.

use super::backup::POSTGRES;
use super::error::CliError;
use super::output::{print, print_result};
use super::verify;
use crate::core::clock::Clock;
use crate::core::config::{Config, DatabaseUrl};
use crate::db::{self, Db, DbOptions, Lock, Opened};
use clap::Args;
use std::path::PathBuf;

/// Arguments of `octopus restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Path of the backup; it is only read
    file: PathBuf,
    /// Restore a backup that fails its checks or whose audit key is missing
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(config: &Config, args: &RestoreArgs) -> Result<(), CliError> {
    let DatabaseUrl::Sqlite(database) = &config.database_url else {
        return Err(CliError::Other(POSTGRES.to_owned()));
    };
    let lock = Lock::of_file(database)?;
    lock.clear_leftovers().map_err(|error| CliError::Other(error.to_string()))?;
    if db::belongs_to(lock.database(), &args.file) {
        let message = format!("{} belongs to the database itself", args.file.display());
        return Err(CliError::Other(message));
    }
    let Opened { db: backup, was_older: is_older } = DbOptions::open_file(&args.file, true).await?;
    let restored = restore(config, args, &lock, &backup, is_older).await;
    backup.close().await;
    let db::Restored { bytes, kept } = restored?;
    let (to, from) = (database.display(), args.file.display());
    print_result(format_args!("Restored {to} from {from} ({bytes} bytes)."))?;
    if is_older {
        print_result("Its schema is from an older Octopus: the next start migrates it.")?;
    }
    if let Some(kept) = kept {
        print_result(format_args!(
            "The previous database is {}. Remove it when you no longer need it.",
            kept.display()
        ))?;
    }
    print_result(
        "API keys, sessions and tokens revoked since the backup work again: revoke them again.",
    )
}

async fn restore(
    config: &Config,
    args: &RestoreArgs,
    lock: &Lock,
    backup: &Db,
    is_older: bool,
) -> Result<db::Restored, CliError> {
    let problems = verify::problems(config, backup, is_older).await?;
    if !problems.is_empty() && !args.force {
        let hint = "nothing was changed; use --force to restore it anyway";
        return Err(CliError::Other(format!("{}\n{hint}", problems.join("\n"))));
    }
    for problem in problems {
        print(format_args!("Restored anyway: {problem}"))?;
    }
    let time = Clock::default().now().format("%Y%m%dT%H%M%SZ").to_string();
    Ok(lock.restore(backup, &time).await?)
}
