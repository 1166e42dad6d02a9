//! `octopus migrate`: migrates the schema, regardless of `AUTO_MIGRATE`.

use super::error::CliError;
use super::output::print_result;
use crate::audit::{Audit, AuditKeys};
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::db::{DbOptions, Lock, OpenError, Opened};
use crate::state::StartError;
use clap::Args;

/// Arguments of `octopus migrate`.
#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// Add audit entries without a hash to the chain, unchanged; review them first
    #[arg(long, alias = "adopt-trail")]
    adopt_entries: bool,
}

pub(super) async fn run(config: &Config, args: &MigrateArgs) -> Result<(), CliError> {
    AuditKeys::require(config)?;
    // Lock before migrating: a running server may be using the older schema.
    let _lock = match DbOptions::new().open(&config.database_url).await {
        Ok(opened) => {
            opened.db.close().await;
            None
        }
        Err(OpenError::NotMigrated) => Lock::take(&config.database_url)?,
        // Opening it below returns the error.
        Err(_) => None,
    };
    let options = DbOptions::new().create(true).migrate(true);
    let Opened { db: database, was_older } = options.open(&config.database_url).await?;
    if was_older || args.adopt_entries {
        let audit = Audit::new(AuditKeys::load(config)?);
        let adopted = audit.adopt(&database, Clock::default().now()).await;
        adopted.map_err(StartError::Audit)?;
    }
    database.close().await;
    print_result("The database schema is up to date.")
}
