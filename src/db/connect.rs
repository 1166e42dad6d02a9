//! Opens a database and makes it ready.

use super::copy::CopyError;
use super::lock::beside;
use super::{Db, LastWrite, Lender, Writer, backfill, migrate, private_file};
use crate::core::config::DatabaseUrl;
use crate::core::trouble::Trouble;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Connections that read at the same time on SQLite.
const SQLITE_READERS: u32 = 4;
/// Memory for pages that SQLite's writer comes back to, in KiB below zero: writes to many conversations
/// go to many places of several indexes.
const WRITE_CACHE: &str = "-16384";
/// Connections to Postgres.
const POSTGRES_CONNECTIONS: u32 = 16;
/// How long a connection to Postgres that worked is taken to work still.
const JUST_NOW: Duration = Duration::from_millis(100);
/// How long a request waits for a free connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a write waits for another process that writes.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The write-ahead log is cut back to this after a checkpoint.
const JOURNAL_SIZE_LIMIT: &str = "67108864";

/// Why a database could not be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be made or read.
    #[error("cannot open the database file {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// The FastAPI application wrote it.
    #[error(
        "this database belongs to the Python original of Octopus, and was left as it is; set \
         DATABASE_URL to a new file for this Octopus, and run `octopus import` to take over what is \
         in this one"
    )]
    PythonOriginal,
    /// Something else wrote it.
    #[error(
        "this database has tables that Octopus did not make ({0}), and was left as it is; set \
         DATABASE_URL to a database of its own"
    )]
    Strange(String),
    /// A later version wrote it.
    #[error(
        "this database was written by a newer Octopus, and was left as it is; start that version \
         or a later one, or restore a backup made before the upgrade"
    )]
    Newer,
    /// A migration of that number has another text.
    #[error(
        "migration {0} of this database is not the one of this Octopus, and the database was left \
         as it is; set DATABASE_URL to a database that Octopus made"
    )]
    OtherMigration(i64),
    /// There is nothing in it, and nothing was to be put there.
    #[error("this database is empty; look whether DATABASE_URL names the right one")]
    Empty,
    /// Another server has the SQLite file, or `octopus restore` is replacing it.
    #[error(
        "another server has this database open, or it is being restored: the lock {} is taken; \
         stop the other one first, as an SQLite file is for one server",
        .0.display()
    )]
    InUse(PathBuf),
    /// `AUTO_MIGRATE=false`, and migrations wait.
    #[error(
        "this database has the schema of an older Octopus and AUTO_MIGRATE is false; make a \
         backup, then run `octopus migrate`"
    )]
    NotMigrated,
    /// A file, such as a backup, has an older schema.
    #[error(
        "{} has the schema of an older Octopus: only that version can verify it; `octopus restore` \
         takes it, and the next start brings it up to date",
        .0.display()
    )]
    OlderFile(PathBuf),
    /// A migration left rows that refer to nothing; it was rolled back.
    #[error("after the migration {0} rows refer to rows that do not exist; nothing was changed")]
    BrokenReferences(usize),
    /// A migration failed; it was rolled back.
    #[error("a migration failed and was rolled back: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// No copy could be made before the migration; nothing was changed.
    #[error("cannot copy the database before the migration: {0}")]
    Copy(#[from] CopyError),
    /// The driver failed.
    #[error("cannot open the database: {0}")]
    Driver(#[from] sqlx::Error),
}

/// What may be done to the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schema {
    /// It is brought up to date.
    Migrate,
    /// It is made where there is nothing yet, and no older one is touched.
    Make,
    /// Nothing.
    Keep,
}

/// Opens the database at `url`. With `migrate`, or where there is nothing yet, brings its schema
/// up to date.
pub async fn open(url: &DatabaseUrl, migrate: bool) -> Result<Db, OpenError> {
    open_and_tell(url, migrate).await.map(|(db, _)| db)
}

/// The same, and whether an older schema was brought up to date just now.
pub async fn open_and_tell(url: &DatabaseUrl, migrate: bool) -> Result<(Db, bool), OpenError> {
    let opened = open_with(url, if migrate { Schema::Migrate } else { Schema::Make }).await?;
    backfill::name_keys(&opened.0).await?;
    backfill::user_keys(&opened.0).await?;
    Ok(opened)
}

/// Opens the database at `url`, which must be there with its schema up to date.
pub async fn open_existing(url: &DatabaseUrl) -> Result<Db, OpenError> {
    open_with(url, Schema::Keep).await.map(|(db, _)| db)
}

/// Opens an SQLite file that is no server's, such as a backup, and leaves it as it is.
pub async fn open_file(path: &Path) -> Result<Db, OpenError> {
    let (db, is_older) = open_any_file(path).await?;
    if is_older {
        db.close().await;
        return Err(OpenError::OlderFile(path.to_owned()));
    }
    Ok(db)
}

/// The same with the file of an older Octopus, too; whether it is one.
pub async fn open_any_file(path: &Path) -> Result<(Db, bool), OpenError> {
    let failed = |cause| OpenError::File { path: path.to_owned(), cause };
    // SQLite takes what begins with "file:" for something else.
    let path = std::path::absolute(path).map_err(failed)?;
    std::fs::metadata(&path).map_err(failed)?;
    // Who finds a log beside it must read it, too, which takes locks and an index of it. Otherwise
    // nothing at all is made beside the file, and the folder need not be writable.
    let is_alone = ["-wal", "-journal"].iter().all(|ending| !beside(&path, ending).exists());
    let options = SqliteConnectOptions::new().filename(&path).read_only(true).immutable(is_alone);
    let is_older = migrate::is_older(&options).await?;
    let pool = SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT);
    let read = pool.clone().max_connections(SQLITE_READERS).connect_with(options.clone()).await?;
    let read = Lender::new(read);
    let write = Writer::new(Lender::new(pool.max_connections(1).connect_lazy_with(options)));
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
    open_and_prepare(path, schema).await.map_err(|error| explained(path, error))
}

/// SQLite says that it cannot open a file, and not why: mostly it is that nothing may be put beside.
fn explained(path: &Path, error: OpenError) -> OpenError {
    let OpenError::Driver(cause) = &error else { return error };
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    match tempfile::tempfile_in(folder.unwrap_or(Path::new("."))) {
        Err(cause_of_both) if Trouble::of(cause).is_some() => {
            OpenError::File { path: path.to_owned(), cause: cause_of_both }
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
        private_file::tighten_database(path);
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT)
        // What is deleted or written over is gone from the file.
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
    let write = Writer::new(Lender::new(write));
    let read = pool(SQLITE_READERS).connect_with(options.read_only(true)).await?;
    let read = Lender::new(read);
    let (path, last_write) = (Arc::new(path.to_owned()), LastWrite::default());
    Ok((Db::Sqlite { read, write, path, last_write }, was_older))
}

async fn open_postgres(url: &str, schema: Schema) -> Result<(Db, bool), OpenError> {
    let options: PgConnectOptions = url.parse()?;
    // The pool would try until its patience ends, and then not tell why.
    options.connect().await?.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, was| {
            // One that came back just now was asked then.
            Box::pin(async move { Ok(was.idle_for <= JUST_NOW || connection.ping().await.is_ok()) })
        })
        .connect_with(options.application_name("octopus").statement_cache_capacity(512))
        .await?;
    let was_older = migrate::postgres(&pool, schema).await?;
    Ok((Db::Postgres { pool, last_write: LastWrite::default() }, was_older))
}

/// Makes the file, for its owner alone; SQLite gives its log and index files the same mode.
fn create_private(path: &Path) -> io::Result<()> {
    match private_file::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}
