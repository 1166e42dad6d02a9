//! `octopus bootstrap`: makes the first key, for whoever has the host.

use super::CliError;
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::db;
use crate::features::api_keys::bootstrap;

pub(super) async fn run(config: &Config) -> Result<(), CliError> {
    let database = db::open(&config.database_url, config.auto_migrate).await?;
    let created = bootstrap::by_host(&database, Clock::default().now()).await;
    database.close().await;
    let created = created.map_err(|error| CliError::Other(error.to_string()))?;
    // The key alone on standard output, so that it can go straight into a file or a variable.
    eprintln!("Made the first API key. Store it now: it is never shown again.");
    println!("{}", created.key);
    Ok(())
}
