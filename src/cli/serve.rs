//! `octopus serve`: runs the server until SIGTERM or SIGINT (Ctrl-C).

use super::banner::{self, Banner};
use super::error::CliError;
use crate::core::clock::Clock;
use crate::core::config::{Config, ConfigError};
use crate::core::telemetry::{self, LogError};
use crate::db::Lock;
use crate::features::api_keys::bootstrap::{self, FirstKey, MasterKey};
use crate::server::{self, ServerError};
use crate::state::AppState;
use secrecy::ExposeSecret;
use std::io::{ErrorKind, Write, stderr};
use std::net::SocketAddr;
use tokio::signal::unix::{SignalKind, signal};

pub(super) async fn run(config: Config) -> Result<(), CliError> {
    let _log = telemetry::log_to_stderr(&config).map_err(|error| match error {
        LogError::Filter(_) => CliError::from(ConfigError(vec![error.to_string()])),
        LogError::Thread(_) => CliError::Other(error.to_string()),
    })?;
    for network in config.public_proxy_networks() {
        tracing::warn!(
            event = "config.trusted_proxies_wide",
            %network,
            "TRUSTED_PROXIES includes public addresses ({network}): clients there can forge the \
             address that rate limits, address lists and the audit log use; list only your proxies"
        );
    }
    // Bind before opening the database, so that a second server on this port does not touch it.
    let listener =
        server::listen(config.listen).map_err(|error| cannot_listen(config.listen, &error))?;
    let address = listener.local_addr().map_err(ServerError::from)?;
    // Lock before opening the database: a schema must not be migrated while a server uses it.
    let lock = Lock::take(&config.database_url)?;
    if let Some(lock) = &lock {
        lock.clear_leftovers().map_err(|error| CliError::Other(error.to_string()))?;
    }
    let app = AppState::open(config, Clock::default()).await?;
    register_master_key(&app).await?;
    let first_key = bootstrap::prepare(&app)
        .await
        .map_err(|error| CliError::Other(format!("cannot check for API keys: {error}")))?;
    if banner::is_wanted(&app.config) {
        // If stderr fails, the server runs without its banner.
        let _ = write!(stderr(), "{}", Banner { address, config: &app.config, first_key });
    } else {
        let kind = app.db.kind();
        tracing::info!(event = "server.listening", %address, database = kind, "listening on http://{address}");
        log_bootstrap_token(first_key, address);
    }
    let served = server::run(listener, app, stop_signal()).await;
    drop(lock);
    Ok(served?)
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> CliError {
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => "another program uses this port; stop it, or set PORT",
        ErrorKind::AddrNotAvailable => "set HOST to an address of this machine",
        ErrorKind::PermissionDenied => "set PORT to 1024 or more",
        _ => "check HOST and PORT",
    };
    CliError::Other(format!("cannot listen on {address}: {error}: {remedy}"))
}

async fn register_master_key(app: &AppState) -> Result<(), CliError> {
    let failed = |error| CliError::Other(format!("cannot register MASTER_API_KEY: {error}"));
    match bootstrap::from_master_key(app).await.map_err(failed)? {
        MasterKey::Unset | MasterKey::Known => {}
        MasterKey::Registered => {
            tracing::info!(event = "master_key.registered", "registered MASTER_API_KEY");
        }
        MasterKey::Weak(weakness) => {
            let problem = format!("MASTER_API_KEY {}", weakness.remedy());
            return Err(ConfigError(vec![problem]).into());
        }
        MasterKey::Ignored => tracing::warn!(
            event = "master_key.ignored",
            "MASTER_API_KEY is ignored: other API keys exist and it is not an active one of them"
        ),
    }
    Ok(())
}

/// Logs the bootstrap token, which creates the first API key from a public address, and the command
/// that uses it. The token is a secret, and the log is the only place where the operator can read
/// it. It is invalid once an API key exists.
fn log_bootstrap_token(first_key: FirstKey<'_>, address: SocketAddr) {
    let FirstKey::GeneratedToken(token) = first_key else { return };
    tracing::warn!(
        event = "bootstrap.token",
        "no API key exists; to create the first one from a public address, send this token: curl \
         -X POST -H 'Octopus-Bootstrap-Token: {}' {}/bootstrap",
        token.expose_secret(),
        banner::local_url(address)
    );
}

/// Completes at the first SIGTERM or SIGINT.
async fn stop_signal() {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!(event = "server.no_signals", "cannot register signal handlers");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
