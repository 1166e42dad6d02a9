//! The error of opening a database.

use super::file_fault::{self, FileFault, Use};
use super::sqlite::copy::CopyError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a database could not be opened. The text says how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be created or read.
    #[error("cannot open the database file {}: {cause}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        cause: io::Error,
    },
    /// SQLite cannot open the file for a reason that its state does not explain.
    #[error("cannot open the database file {}: {cause}", path.display())]
    Sqlite {
        /// Path of the file.
        path: PathBuf,
        /// Error of SQLite.
        cause: sqlx::Error,
    },
    /// The directory of an SQLite file does not exist.
    #[error("the directory {} does not exist; create it, or change DATABASE_URL", .0.display())]
    NoDirectory(PathBuf),
    /// The file exists and is not an SQLite database.
    #[error("{} is not an SQLite database; name another file", .0.display())]
    NotADatabase(PathBuf),
    /// Postgres accepts no connection.
    #[error(
        "cannot connect to Postgres at {address}: {cause}; check DATABASE_URL, and that Postgres \
         runs and accepts connections from this machine"
    )]
    Unreachable {
        /// Host and port.
        address: String,
        /// Error of the operating system.
        cause: io::Error,
    },
    /// The FastAPI application created the database.
    #[error(
        "this is a database of the FastAPI app and was not changed; set \
         DATABASE_URL to a new file, then run `octopus import` to import its data"
    )]
    FastApiDatabase,
    /// Another program created the database.
    #[error(
        "this database has tables that Octopus did not create ({0}) and was not changed; set \
         DATABASE_URL to a database that only Octopus uses"
    )]
    ForeignTables(String),
    /// A later version upgraded the database, and this version cannot use it.
    #[error(
        "this database was written by a newer Octopus and was not changed; start that version \
         or a later one, or restore a backup made before the upgrade"
    )]
    Newer,
    /// The applied migration with this number differs from the one of this version, or is missing.
    #[error(
        "migration {0} of this database is not the one of this Octopus, and the database was not \
         changed; set DATABASE_URL to a database that Octopus created"
    )]
    OtherMigration(i64),
    /// The database is empty, and the caller does not allow creating the schema.
    #[error("this database is empty; check that DATABASE_URL names the right one")]
    Empty,
    /// Another server uses the SQLite file, or `octopus restore` is replacing it.
    #[error(
        "another server has this database open, or it is being restored (lock file {}); stop the \
         other process first: only one server can use an SQLite file",
        .0.display()
    )]
    InUse(PathBuf),
    /// `AUTO_MIGRATE=false`, and migrations are pending.
    #[error(
        "this database has the schema of an older Octopus and AUTO_MIGRATE is false; make a \
         backup, then run `octopus migrate`"
    )]
    NotMigrated,
    /// A file, such as a backup, has an older schema.
    #[error(
        "{} has the schema of an older Octopus, and only that version can verify it; \
         `octopus restore` accepts it, and the next start migrates it",
        .0.display()
    )]
    OlderFile(PathBuf),
    /// A migration would leave rows that refer to missing rows. It was rolled back.
    #[error("the migration would leave {0} rows that refer to missing rows; it was rolled back")]
    BrokenReferences(usize),
    /// A migration failed and was rolled back.
    #[error("a migration failed and was rolled back: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The database could not be copied before the migration. Nothing was changed.
    #[error("cannot copy the database before the migration: {0}")]
    Copy(#[from] CopyError),
    /// The driver failed.
    #[error("cannot open the database: {0}")]
    Driver(#[from] sqlx::Error),
}

impl OpenError {
    /// The error of the operating system at `path`, with its cause and remedy.
    pub(super) fn file(path: &Path, cause: &io::Error) -> Self {
        file_fault::explained(path, cause).into()
    }

    /// Adds the path, the cause and the remedy to an error of SQLite that opened `path`.
    pub(super) fn explained(self, path: &Path, usage: Use) -> Self {
        // SQLITE_NOTADB
        const NOT_A_DATABASE: i32 = 26;
        let Self::Driver(cause) = self else { return self };
        if file_fault::primary_code(&cause) == Some(NOT_A_DATABASE) {
            return Self::NotADatabase(path.to_owned());
        }
        match file_fault::of_sqlite(path, usage, &cause) {
            Some(fault) => fault.into(),
            None => Self::Sqlite { path: path.to_owned(), cause },
        }
    }
}

impl From<FileFault> for OpenError {
    fn from(FileFault { path, cause }: FileFault) -> Self {
        Self::File { path, cause }
    }
}
