//! The arguments of `octopus`, and which module runs which subcommand.

use super::backup::{self, BackupArgs};
use super::error::CliError;
use super::import::{self, ImportArgs};
use super::init::{self, InitArgs};
use super::keys::{self, KeysArgs};
use super::migrate::{self, MigrateArgs};
use super::restore::{self, RestoreArgs};
use super::verify::{self, VerifyArgs};
use super::{anchor, bootstrap, healthcheck, openapi, serve};
use crate::core::config::Config;
use clap::{Parser, Subcommand};

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
