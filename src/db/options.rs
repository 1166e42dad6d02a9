//! Opens a database and prepares it for use.

use super::backfill;
use super::error::OpenError;
use super::handle::Db;
use super::migrate::Changes;
use super::{postgres, sqlite};
use crate::core::config::DatabaseUrl;
use secrecy::ExposeSecret;
use std::path::Path;

/// Which changes of the schema opening a database may make. By default, it changes no schema, and
/// accepts the current one or a newer one that this version can use.
#[derive(Clone, Copy, Debug, Default)]
pub struct DbOptions {
    changes: Changes,
}

/// A database that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The database.
    pub db: Db,
    /// Whether its schema was older. It was upgraded, unless the database is a file opened with
    /// [`DbOptions::open_file`].
    pub was_older: bool,
}

impl DbOptions {
    /// Creates and migrates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to create a missing SQLite file, and the schema in an empty database. Without it,
    /// they are refused.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.changes.create = create;
        self
    }

    /// Whether to upgrade an older schema. Without it, an older schema is refused.
    #[must_use]
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.changes.migrate = migrate;
        self
    }

    /// Opens the database at `url`.
    pub async fn open(self, url: &DatabaseUrl) -> Result<Opened, OpenError> {
        let (db, was_older) = match url {
            DatabaseUrl::Sqlite(path) => sqlite::connect::open(path, self.changes).await?,
            DatabaseUrl::Postgres(url) => {
                postgres::connect::open(url.expose_secret(), self.changes).await?
            }
        };
        if self.changes.any() {
            backfill::name_keys(&db).await?;
            backfill::user_keys(&db).await?;
        }
        Ok(Opened { db, was_older })
    }

    /// Opens an SQLite file that no server uses, such as a backup, read-only: it is neither created
    /// nor migrated. Fails with [`OpenError::OlderFile`] if its schema is older, unless
    /// `accept_older` is set.
    pub async fn open_file(path: &Path, accept_older: bool) -> Result<Opened, OpenError> {
        let (db, was_older) = sqlite::connect::open_read_only(path).await?;
        if was_older && !accept_older {
            db.close().await;
            return Err(OpenError::OlderFile(path.to_owned()));
        }
        Ok(Opened { db, was_older })
    }
}
