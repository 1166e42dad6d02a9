//! `octopus migrate`: brings the schema up to date, whatever `AUTO_MIGRATE` says.

use super::CliError;
use crate::audit::{Audit, AuditKeys};
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::db::{self, Lock, OpenError};
use crate::state::StartError;
use clap::Args;

/// What `migrate` takes.
#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// Take audit rows that are in no chain into it, as they stand, after you have looked at them
    #[arg(long)]
    adopt_trail: bool,
}

pub(super) async fn run(config: &Config, args: &MigrateArgs) -> Result<(), CliError> {
    AuditKeys::require(config)?;
    // Not under a server that is at work on the schema as it is.
    let _lock = match db::open_existing(&config.database_url).await {
        Ok(database) => {
            database.close().await;
            None
        }
        Err(OpenError::NotMigrated) => Lock::take(&config.database_url)?,
        // What is wrong is told below.
        Err(_) => None,
    };
    let (database, was_older) = db::open_and_tell(&config.database_url, true).await?;
    if was_older || args.adopt_trail {
        let audit = Audit::new(AuditKeys::load(config)?);
        let adopted = audit.adopt(&database, Clock::default().now()).await;
        adopted.map_err(StartError::Audit)?;
    }
    database.close().await;
    println!("The database's schema is up to date.");
    Ok(())
}
