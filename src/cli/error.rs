//! The error of a command.

use crate::audit::AuditKeyError;
use crate::core::config::ConfigError;
use crate::db::{BackupError, OpenError, RestoreError};
use crate::server::ServerError;
use crate::state::StartError;

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
