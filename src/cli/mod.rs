//! The command line, one file a subcommand.

mod anchor;
mod backup;
mod bootstrap;
mod healthcheck;
mod import;
mod keys;
mod migrate;
mod openapi;
mod restore;
mod serve;
mod verify;

use crate::audit::AuditKeyError;
use crate::core::config::{Config, Problems};
use crate::db::{BackupError, OpenError, RestoreError};
use crate::server::ServerError;
use crate::state::StartError;
use backup::BackupArgs;
use clap::{Parser, Subcommand};
use import::ImportArgs;
use keys::KeysArgs;
use migrate::MigrateArgs;
use restore::RestoreArgs;
use verify::VerifyArgs;

/// API keys a team can trust, users and conversations, in one binary.
///
/// Configured by environment variables and a file `.env`; `.env.example` lists them.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default)
    Serve,
    /// Bring the database's schema up to date
    Migrate(MigrateArgs),
    /// Make the first API key, directly in the database
    Bootstrap,
    /// List, make, switch off and rotate API keys, directly in the database
    Keys(KeysArgs),
    /// Copy an SQLite database, which may be in use, to a file
    Backup(BackupArgs),
    /// Put a backup in the place of the SQLite database, which no server may have open
    Restore(RestoreArgs),
    /// Take over a database of the Python original
    Import(ImportArgs),
    /// Check a database or a backup, and recompute its audit chain
    Verify(VerifyArgs),
    /// Print the end of the audit chain as SEQ:HASH, to be kept elsewhere
    Anchor,
    /// Print the OpenAPI document
    Openapi,
    /// Ask the server on HOST and PORT whether it is healthy
    Healthcheck,
}

/// Why a command failed. Printed to standard error.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Configuration(#[from] Problems),
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Nothing was restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The server could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no key to verify the audit trail with.
    #[error(transparent)]
    AuditKey(#[from] AuditKeyError),
    /// The server stopped.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl Cli {
    /// Does what the command line says.
    pub async fn run(self) -> Result<(), CliError> {
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve::run(Config::from_environment()?).await,
            Command::Migrate(args) => migrate::run(&Config::from_environment()?, &args).await,
            Command::Bootstrap => bootstrap::run(Config::from_environment()?).await,
            Command::Keys(args) => keys::run(Config::from_environment()?, &args).await,
            Command::Backup(args) => backup::run(&Config::from_environment()?, &args).await,
            Command::Restore(args) => restore::run(&Config::from_environment()?, &args).await,
            Command::Import(args) => import::run(Config::from_environment()?, args).await,
            Command::Verify(args) => verify::run(&Config::from_environment()?, &args).await,
            Command::Anchor => anchor::run(&Config::from_environment()?).await,
            Command::Openapi => openapi::run(),
            Command::Healthcheck => healthcheck::run(&Config::from_environment()?).await,
        }
    }
}
