//! `octopus bootstrap`: creates the first API key; access to the host is the authorization.

use super::error::CliError;
use super::output::{hint, not_committed, print_secret};
use crate::core::clock::Clock;
use crate::core::config::Config;
use crate::features::api_keys::bootstrap;
use crate::state::AppState;

pub(super) async fn run(config: Config) -> Result<(), CliError> {
    let app = AppState::open_with_same_key(config, Clock::default()).await?;
    let created = create(&app).await;
    app.db.close().await;
    created
}

/// Commits the key only after its secret was written: a first key that was never shown would
/// prevent another one.
async fn create(app: &AppState) -> Result<(), CliError> {
    let key = bootstrap::prepare_from_command_line(app).await;
    let key = key.map_err(|error| CliError::Other(error.to_string()))?;
    // Standard output carries only the key, so that a script can capture it.
    print_secret(key.created().key.expose().to_owned()).await?;
    key.commit(app).await.map_err(|error| not_committed(&error))?;
    hint("Created the first API key. Store it now: it is never shown again.");
    Ok(())
}
