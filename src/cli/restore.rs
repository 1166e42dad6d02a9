//! `octopus restore`: puts a backup in the place of the SQLite database.

use super::backup::POSTGRES;
use super::{CliError, verify};
use crate::core::clock::Clock;
use crate::core::config::{Config, DatabaseUrl};
use crate::db::{self, Db, Lock};
use clap::Args;
use std::path::PathBuf;

/// What `restore` takes.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup; it is left as it is
    file: PathBuf,
    /// Restore it although it is not in order, or the audit key is not there
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
        let sentence = format!("{} belongs to the database itself", args.file.display());
        return Err(CliError::Other(sentence));
    }
    let (backup, is_older) = db::open_any_file(&args.file).await?;
    let restored = restore(config, args, &lock, &backup, is_older).await;
    backup.close().await;
    let db::Restored { bytes, kept } = restored?;
    println!("Restored {} from {} ({bytes} bytes).", database.display(), args.file.display());
    if is_older {
        println!("Its schema is that of an older Octopus: the next start brings it up to date.");
    }
    if let Some(kept) = kept {
        println!("The database as it was: {}. Remove it when all is well.", kept.display());
    }
    println!(
        "Keys, sessions and the like that were ended since the backup work again: end them anew."
    );
    Ok(())
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
        let sentence = "nothing was changed; --force restores it all the same";
        return Err(CliError::Other(format!("{}\n{sentence}", problems.join("\n"))));
    }
    for problem in problems {
        println!("Restored all the same: {problem}");
    }
    let time = Clock::default().now().format("%Y%m%dT%H%M%SZ").to_string();
    Ok(lock.restore(backup, &time).await?)
}
