//! `octopus anchor`: prints the end of the audit chain, to be kept elsewhere.

use super::CliError;
use crate::audit;
use crate::core::config::Config;
use crate::db;

pub(super) async fn run(config: &Config) -> Result<(), CliError> {
    let database = db::open_existing(&config.database_url).await?;
    let end = audit::end(&database).await;
    database.close().await;
    let end =
        end.map_err(|error| CliError::Other(format!("cannot read the audit log: {error}")))?;
    println!("{end}");
    Ok(())
}
