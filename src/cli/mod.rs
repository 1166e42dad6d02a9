//! Command-line interface; one module per subcommand.

mod anchor;
mod backup;
mod banner;
mod bootstrap;
mod healthcheck;
mod import;
mod init;
mod keys;
mod migrate;
mod openapi;
mod restore;
mod serve;
mod verify;

use crate::audit::AuditKeyError;
use crate::core::config::{Config, ConfigError};
use crate::db::{BackupError, OpenError, RestoreError};
use crate::server::ServerError;
use crate::state::StartError;
use backup::BackupArgs;
use clap::{Parser, Subcommand};
use import::ImportArgs;
use init::InitArgs;
use keys::KeysArgs;
use migrate::MigrateArgs;
use restore::RestoreArgs;
use verify::VerifyArgs;

/// Self-hosted HTTP service for API keys, users and chat conversations
///
/// Environment variables and a file `.env` configure it; `.env.example` lists every setting.
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
    /// Write a commented configuration file, .env, with generated secrets
    Init(InitArgs),
    /// Migrate the database schema to the version of this binary
    Migrate(MigrateArgs),
    /// Create the first API key, directly in the database
    Bootstrap,
    /// List, create, deactivate and rotate API keys, directly in the database
    Keys(KeysArgs),
    /// Back up the SQLite database to a file; a server may be using it
    Backup(BackupArgs),
    /// Replace the SQLite database with a backup; stop the server first
    Restore(RestoreArgs),
    /// Import a database of the FastAPI app
    Import(ImportArgs),
    /// Check a database or a backup, and verify its audit chain
    Verify(VerifyArgs),
    /// Print the head of the audit chain as SEQ:HASH, an anchor to store on another host
    Anchor,
    /// Print the OpenAPI document
    Openapi,
    /// Check that the server on HOST and PORT is healthy
    Healthcheck,
}

/// The reason a command failed. `main` prints it to standard error.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is invalid.
    #[error(transparent)]
    Configuration(#[from] ConfigError),
    /// The database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The backup was not created.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Nothing was restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The server could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The key that verifies the audit log is missing or unreadable.
    #[error(transparent)]
    AuditKey(#[from] AuditKeyError),
    /// The server failed while running.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Any other error.
    #[error("{0}")]
    Other(String),
}

impl Cli {
    /// Runs the selected command; `serve` if there is none.
    pub async fn run(self) -> Result<(), CliError> {
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve::run(Config::from_environment()?).await,
            Command::Init(args) => init::run(&args),
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
