//! `octopus migrate`: brings the schema up to date, whatever `AUTO_MIGRATE` says.

use super::CliError;
use crate::core::config::Config;
use crate::db;

pub(super) async fn run(config: &Config) -> Result<(), CliError> {
    let database = db::open(&config.database_url, true).await?;
    database.close().await;
    println!("The database's schema is up to date.");
    Ok(())
}
