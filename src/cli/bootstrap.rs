//! `octopus bootstrap`: makes the first key, for whoever has the host.

use super::CliError;
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::features::api_keys::bootstrap;
use crate::state::AppState;

pub(super) async fn run(config: Config) -> Result<(), CliError> {
    let app = AppState::open_with_same_key(config, Clock::default()).await?;
    let created = bootstrap::by_host(&app).await;
    app.db.close().await;
    let created = created.map_err(|error| CliError::Other(error.to_string()))?;
    // The key alone on standard output, so that it can go straight into a file or a variable.
    eprintln!("Made the first API key. Store it now: it is never shown again.");
    println!("{}", created.key);
    Ok(())
}
