//! `octopus backup`: backs up the SQLite database, also while a server uses it.

use super::error::CliError;
use super::output::print_result;
use crate::audit;
use crate::core::config::{Config, DatabaseUrl};
use crate::db::{self, DbOptions};
use clap::Args;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// The error of `backup` and `restore` on Postgres: they support SQLite only.
pub(super) const POSTGRES: &str = "DATABASE_URL names a Postgres database: use pg_dump and \
    pg_restore, or pg_basebackup and continuous archiving, as docs/BACKUP.md says";

/// Arguments of `octopus backup`.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Path of the backup file
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(config: &Config, args: &BackupArgs) -> Result<(), CliError> {
    let DatabaseUrl::Sqlite(database) = &config.database_url else {
        return Err(CliError::Other(POSTGRES.to_owned()));
    };
    let stop = CancellationToken::new();
    let copying = db::back_up(database, &args.file, args.force, &stop);
    tokio::pin!(copying);
    let bytes = tokio::select! {
        copied = &mut copying => copied?,
        _ = tokio::signal::ctrl_c() => {
            stop.cancel();
            copying.await?
        }
    };
    let (from, to) = (database.display(), args.file.display());
    print_result(format_args!("Backed up {from} to {to} ({bytes} bytes)."))?;
    match DbOptions::open_file(&args.file, false).await {
        Ok(copy) => {
            let head = audit::end(&copy.db).await;
            copy.db.close().await;
            let head = head.map_err(|error| CliError::Other(error.to_string()))?;
            print_result(format_args!(
                "The head of its audit chain, to be stored elsewhere: {head}"
            ))?;
        }
        Err(error) => {
            print_result(format_args!("Its audit chain could not be read: {error}"))?;
        }
    }
    let key = match &config.audit.key {
        Some(_) => "The audit key (AUDIT_KEY)".to_owned(),
        None => format!("The audit key ({}.audit-key)", database.display()),
    };
    print_result(format_args!(
        "{key} is not in the backup: store it separately. The audit chain cannot continue \
         without it."
    ))
}
