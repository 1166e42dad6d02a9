//! The error of an import.

use crate::core::error::Error;
use crate::db::OpenError;
use crate::state::StartError;
use std::io;
use std::path::{Path, PathBuf};

/// The reason an import failed; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be imported.
    #[error("cannot import {}: {why}", path.display())]
    Source {
        /// The path of the file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The file is the target database.
    #[error(
        "{} is the database that DATABASE_URL names: set DATABASE_URL to a new file, the target of \
         the import",
        .0.display()
    )]
    SameFile(PathBuf),
    /// The target database cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A database operation failed.
    #[error("nothing was imported: {0}")]
    Database(#[from] sqlx::Error),
    /// The report cannot be written.
    #[error("cannot write the report: {0}")]
    Report(#[from] io::Error),
    /// Any other error.
    #[error("nothing was imported: {0}")]
    Other(#[from] Error),
}

impl ImportError {
    pub(super) fn source(path: &Path, why: &str) -> Self {
        Self::Source { path: path.to_owned(), why: why.to_owned() }
    }
}

impl From<OpenError> for ImportError {
    fn from(error: OpenError) -> Self {
        StartError::from(error).into()
    }
}
