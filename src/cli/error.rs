//! The error of a command.

use crate::audit::AuditKeyError;
use crate::core::config::ConfigError;
use crate::db::{BackupError, OpenError, RestoreError};
use crate::server::ServerError;
use crate::state::StartError;
use std::io;

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
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// Standard output cannot be written, and the command has done its work.
    #[error("cannot write to standard output: {0}; the command did its work before that")]
    OutputAfter(io::Error),
    /// A new secret could not be shown. What it belongs to was not created.
    #[error("cannot write the new key to standard output: {0}; no key was created or changed")]
    SecretNotShown(io::Error),
    /// Any other error.
    #[error("{0}")]
    Other(String),
}

impl CliError {
    /// Returns whether a reader of standard output, such as `head`, ended early, and nothing is to
    /// be reported. A secret without a reader is an error.
    pub fn is_closed_pipe(&self) -> bool {
        match self {
            Self::Output(cause) | Self::OutputAfter(cause) => {
                cause.kind() == io::ErrorKind::BrokenPipe
            }
            _ => false,
        }
    }
}
