//! `octopus bootstrap`: creates the first API key; access to the host is the authorization.

use super::error::CliError;
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::features::api_keys::bootstrap;
use crate::state::AppState;

pub(super) async fn run(config: Config) -> Result<(), CliError> {
    let app = AppState::open_with_same_key(config, Clock::default()).await?;
    let created = bootstrap::from_command_line(&app).await;
    app.db.close().await;
    let created = created.map_err(|error| CliError::Other(error.to_string()))?;
    // Standard output carries only the key, so that a script can capture it.
    eprintln!("Created the first API key. Store it now: it is never shown again.");
    println!("{}", created.key.expose());
    Ok(())
}
