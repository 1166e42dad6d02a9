//! `octopus anchor`: prints the head of the audit chain, an anchor to store on another host.

use super::error::CliError;
use super::output::print;
use crate::audit;
use crate::core::config::Config;
use crate::db::DbOptions;

pub(super) async fn run(config: &Config) -> Result<(), CliError> {
    let database = DbOptions::new().open(&config.database_url).await?.db;
    let head = audit::end(&database).await;
    database.close().await;
    let head =
        head.map_err(|error| CliError::Other(format!("cannot read the audit log: {error}")))?;
    print(head)
}
