//! `octopus anchor`: prints the head of the audit chain, an anchor to store on another host.

use super::CliError;
use crate::audit;
use crate::core::config::Config;
use crate::db;

pub(super) async fn run(config: &Config) -> Result<(), CliError> {
    let database = db::open_existing(&config.database_url).await?;
    let head = audit::end(&database).await;
    database.close().await;
    let head =
        head.map_err(|error| CliError::Other(format!("cannot read the audit log: {error}")))?;
    println!("{head}");
    Ok(())
}
