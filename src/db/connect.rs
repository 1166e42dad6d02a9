//! Opens a database and prepares it for use.

use super::copy::CopyError;
use super::lock::beside;
use super::{ConnectionPool, Db, LastWrite, Writer, backfill, migrate, private_file};
use crate::core::config::DatabaseUrl;
use crate::core::transient_error::TransientError;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Read connections to SQLite.
const SQLITE_READERS: u32 = 4;
/// `PRAGMA cache_size` of SQLite's write connection: 16 MiB (negative values are in KiB). Writes to
/// many conversations change many pages of several indexes.
const WRITE_CACHE: &str = "-16384";
/// Maximum number of connections to Postgres.
const POSTGRES_CONNECTIONS: u32 = 16;
/// A Postgres connection that was idle for longer is pinged before it is used.
const PING_AFTER_IDLE: Duration = Duration::from_millis(100);
/// How long a request waits for a connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a write waits for the write lock of another process.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// `PRAGMA journal_size_limit`: the write-ahead log is truncated to 64 MiB after a checkpoint.
const JOURNAL_SIZE_LIMIT: &str = "67108864";

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
    /// The directory of an SQLite file does not exist.
    #[error("the directory {} does not exist; create it, or change DATABASE_URL", .0.display())]
    NoDirectory(PathBuf),
    /// The file exists and is not an SQLite database.
    #[error("{} is not an SQLite database; change DATABASE_URL", .0.display())]
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

/// How opening a database may change its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schema {
    /// Create it in an empty database, or upgrade an older one.
    Migrate,
    /// Create it in an empty database, and refuse an older one.
    Create,
    /// Change nothing; refuse an empty database and an older schema.
    Keep,
}

/// Opens the database at `url`. Creates the schema in an empty database; with `migrate`, also
/// upgrades an older schema.
pub async fn open(url: &DatabaseUrl, migrate: bool) -> Result<Db, OpenError> {
    open_reporting_upgrade(url, migrate).await.map(|(db, _)| db)
}

/// Like [`open`]; also returns whether an older schema was upgraded.
pub async fn open_reporting_upgrade(
    url: &DatabaseUrl,
    migrate: bool,
) -> Result<(Db, bool), OpenError> {
    let opened = open_with(url, if migrate { Schema::Migrate } else { Schema::Create }).await?;
    backfill::name_keys(&opened.0).await?;
    backfill::user_keys(&opened.0).await?;
    Ok(opened)
}

/// Opens the database at `url`. Fails unless it exists and its schema is up to date.
pub async fn open_existing(url: &DatabaseUrl) -> Result<Db, OpenError> {
    open_with(url, Schema::Keep).await.map(|(db, _)| db)
}

/// Opens an SQLite file that no server uses, such as a backup, read-only. Fails with
/// [`OpenError::OlderFile`] if its schema is older.
pub async fn open_file(path: &Path) -> Result<Db, OpenError> {
    let (db, is_older) = open_any_file(path).await?;
    if is_older {
        db.close().await;
        return Err(OpenError::OlderFile(path.to_owned()));
    }
    Ok(db)
}

/// Like [`open_file`], but accepts an older schema. Returns whether the schema is older.
pub async fn open_any_file(path: &Path) -> Result<(Db, bool), OpenError> {
    let failed = |cause| OpenError::File { path: path.to_owned(), cause };
    // SQLite parses a name that begins with "file:" as a URI; an absolute path does not.
    let path = std::path::absolute(path).map_err(failed)?;
    std::fs::metadata(&path).map_err(failed)?;
    // If a log is beside the file, SQLite must read it, which requires locks and a shared-memory
    // index. Otherwise `immutable` creates no files, and the folder need not be writable.
    let is_alone = ["-wal", "-journal"].iter().all(|ending| !beside(&path, ending).exists());
    let options = SqliteConnectOptions::new().filename(&path).read_only(true).immutable(is_alone);
    let is_older = migrate::is_older(&options).await?;
    let pool = SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT);
    let read = pool.clone().max_connections(SQLITE_READERS).connect_with(options.clone()).await?;
    let read = ConnectionPool::new(read);
    let write =
        Writer::new(ConnectionPool::new(pool.max_connections(1).connect_lazy_with(options)));
    let last_write = LastWrite::default();
    Ok((Db::Sqlite { read, write, path: Arc::new(path), last_write }, is_older))
}

async fn open_with(url: &DatabaseUrl, schema: Schema) -> Result<(Db, bool), OpenError> {
    match url {
        DatabaseUrl::Sqlite(path) => open_sqlite(path, schema).await,
        DatabaseUrl::Postgres(url) => open_postgres(url.expose_secret(), schema).await,
    }
}

async fn open_sqlite(path: &Path, schema: Schema) -> Result<(Db, bool), OpenError> {
    open_and_prepare(path, schema).await.map_err(|error| with_io_cause(path, error))
}

/// Adds the operating system's reason. SQLite reports only that it cannot open a file; usually no
/// file can be created beside it.
fn with_io_cause(path: &Path, error: OpenError) -> OpenError {
    let OpenError::Driver(cause) = &error else { return error };
    // SQLITE_NOTADB
    if cause.as_database_error().is_some_and(|error| error.code().as_deref() == Some("26")) {
        return OpenError::NotADatabase(path.to_owned());
    }
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    match tempfile::tempfile_in(folder.unwrap_or(Path::new("."))) {
        Err(io_cause) if TransientError::of(cause).is_some() => {
            OpenError::File { path: path.to_owned(), cause: io_cause }
        }
        _ => error,
    }
}

async fn open_and_prepare(path: &Path, schema: Schema) -> Result<(Db, bool), OpenError> {
    let failed = |cause| OpenError::File { path: path.to_owned(), cause };
    private_file::refuse_links_beside(path).map_err(failed)?;
    if schema == Schema::Keep {
        std::fs::metadata(path).map_err(failed)?;
    } else {
        create_private(path).map_err(failed)?;
        private_file::restrict_permissions(path);
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT)
        // Overwrites deleted content with zeros.
        .pragma("secure_delete", "ON")
        .statement_cache_capacity(512)
        .busy_timeout(ACQUIRE_TIMEOUT);
    let was_older = migrate::sqlite(path, &options, schema).await?;
    let pool = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
    };
    let writing = options.clone().busy_timeout(LOCK_TIMEOUT).pragma("cache_size", WRITE_CACHE);
    let write = pool(1).connect_with(writing).await?;
    let write = Writer::new(ConnectionPool::new(write));
    let read = pool(SQLITE_READERS).connect_with(options.read_only(true)).await?;
    let read = ConnectionPool::new(read);
    let (path, last_write) = (Arc::new(path.to_owned()), LastWrite::default());
    Ok((Db::Sqlite { read, write, path, last_write }, was_older))
}

async fn open_postgres(url: &str, schema: Schema) -> Result<(Db, bool), OpenError> {
    let options: PgConnectOptions = url.parse()?;
    // Not through the pool, which retries until its timeout and does not report the reason.
    let connection = options.connect().await.map_err(|error| match error {
        sqlx::Error::Io(cause) => {
            let address = format!("{}:{}", options.get_host(), options.get_port());
            OpenError::Unreachable { address, cause }
        }
        other => other.into(),
    })?;
    connection.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, was| {
            // A connection that was used a moment ago is assumed to work.
            Box::pin(async move {
                Ok(was.idle_for <= PING_AFTER_IDLE || connection.ping().await.is_ok())
            })
        })
        .connect_with(options.application_name("octopus").statement_cache_capacity(512))
        .await?;
    let was_older = migrate::postgres(&pool, schema).await?;
    Ok((Db::Postgres { pool, last_write: LastWrite::default() }, was_older))
}

/// Creates the file with mode 600. SQLite gives its log and index files the same mode.
fn create_private(path: &Path) -> io::Result<()> {
    match private_file::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}
