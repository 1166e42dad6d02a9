//! Brings a database's schema up to date, forward only.
//!
//! A database of the Python original, one with strange tables, and one of a newer Octopus that says
//! it is not for this one are left exactly as they are.

use super::connect::{OpenError, Schema};
use super::copy::Copy;
use super::lock::beside;
use sqlx::migrate::{AppliedMigration, Migrate, Migrator};
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, SqliteConnection};
use std::path::Path;

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// The last migration a program must know to use the database.
const READABLE_FROM: &str = "SELECT readable_from FROM installation WHERE id = 1";

/// A write that changes nothing.
const WRITE: &str = "UPDATE installation SET version = version WHERE id = 1";

/// What has to happen before the database can be used.
enum Plan {
    Nothing,
    Create,
    Upgrade { from: i64 },
}

impl Plan {
    /// Whether it is for an older schema of ours; there must be one.
    fn of_ours(self) -> Result<bool, OpenError> {
        match self {
            Self::Create => Err(OpenError::Empty),
            Self::Nothing => Ok(false),
            Self::Upgrade { .. } => Ok(true),
        }
    }

    /// Itself, if it does no more than `schema` allows.
    fn allowed(self, schema: Schema) -> Result<Self, OpenError> {
        match (&self, schema) {
            (Self::Create, Schema::Keep) => Err(OpenError::Empty),
            (Self::Upgrade { .. }, Schema::Make | Schema::Keep) => Err(OpenError::NotMigrated),
            _ => Ok(self),
        }
    }
}

/// Migrates the file at `path`, on a connection of its own: rebuilding a table that others refer
/// to needs `foreign_keys=OFF`, which no transaction can switch. Tells whether it was older.
pub(super) async fn sqlite(
    path: &Path,
    options: &SqliteConnectOptions,
    schema: Schema,
) -> Result<bool, OpenError> {
    let plan = sqlite_plan(path).await?.allowed(schema)?;
    let was_older = matches!(plan, Plan::Upgrade { .. });
    let mut connection = options.clone().foreign_keys(false).connect().await?;
    match plan {
        Plan::Nothing => {}
        Plan::Create | Plan::Upgrade { .. } => {
            // The migrator takes no lock on SQLite; this makes simultaneous starters queue.
            let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
            // Another may have been faster: then there is nothing left to copy.
            if let Plan::Upgrade { from } = sqlite_plan(path).await? {
                copy_beside(options, path, from).await?;
            }
            SQLITE.run(&mut *tx).await?;
            let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut *tx).await?;
            if !broken.is_empty() {
                return Err(OpenError::BrokenReferences(broken.len()));
            }
            tx.commit().await?;
        }
    }
    if schema != Schema::Keep {
        // A file that cannot be written is told of now, not with the first write.
        // BEGIN IMMEDIATE alone is content with it.
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(WRITE).execute(&mut *tx).await?;
        tx.rollback().await?;
        if let Err(error) = forget_sizes(&mut connection).await {
            tracing::warn!(event = "database.sizes_kept", %error, "statistics could not be removed");
        }
    }
    connection.close().await?;
    Ok(was_older)
}

/// Removes what `ANALYZE` found. Without it SQLite takes every table for a large one. What was found
/// while tables were small has requests walk through those that have grown since
/// (<https://www.sqlite.org/lang_analyze.html>).
async fn forget_sizes(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    const TABLE: &str = "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1'";
    const FILLED: &str = "SELECT 1 FROM sqlite_stat1 LIMIT 1";
    if sqlx::query(TABLE).fetch_optional(&mut *connection).await?.is_some()
        && sqlx::query(FILLED).fetch_optional(&mut *connection).await?.is_some()
    {
        sqlx::query("DELETE FROM sqlite_stat1").execute(connection).await?;
    }
    Ok(())
}

/// Migrates a Postgres database; sqlx holds an advisory lock meanwhile. Tells whether it was older.
pub(super) async fn postgres(pool: &PgPool, schema: Schema) -> Result<bool, OpenError> {
    let mut connection = pool.acquire().await?;
    let plan = postgres_plan(&mut connection).await?.allowed(schema)?;
    drop(connection);
    if !matches!(plan, Plan::Nothing) {
        POSTGRES.run(pool).await?;
    }
    Ok(matches!(plan, Plan::Upgrade { .. }))
}

/// Looks without the options of a database of ours: switching to WAL would change the file, which
/// may be another's.
async fn sqlite_plan(path: &Path) -> Result<Plan, OpenError> {
    let options = SqliteConnectOptions::new().filename(path);
    match plan_of(&options.clone().read_only(true)).await {
        // A write that was cut off must be taken back first, which anybody would do who opens it.
        Err(OpenError::Driver(error)) if is_half_written(&error) => plan_of(&options).await,
        plan => plan,
    }
}

/// Whether there is something to take back, and it was opened only to read.
fn is_half_written(error: &sqlx::Error) -> bool {
    const READONLY_ROLLBACK: &str = "776";
    let error = error.as_database_error();
    error.is_some_and(|error| error.code().as_deref() == Some(READONLY_ROLLBACK))
}

/// Whether the schema of the file that `options` open is older than ours. Fails where it is none of
/// ours, a newer one, or none at all.
pub(super) async fn is_older(options: &SqliteConnectOptions) -> Result<bool, OpenError> {
    plan_of(options).await?.of_ours()
}

/// The same of the database at `path`, which may be in use.
pub(super) async fn is_older_file(path: &Path) -> Result<bool, OpenError> {
    sqlite_plan(path).await?.of_ours()
}

async fn plan_of(options: &SqliteConnectOptions) -> Result<Plan, OpenError> {
    const TABLES: &str =
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let mut connection = options.connect().await?;
    let tables = sqlx::query_scalar(TABLES).fetch_all(&mut connection).await?;
    let plan = match plan(&SQLITE, &mut connection, &tables).await {
        Err(OpenError::Newer) => {
            newer(&SQLITE, sqlx::query_scalar(READABLE_FROM).fetch_one(&mut connection).await.ok())
        }
        plan => plan,
    };
    connection.close().await?;
    plan
}

async fn postgres_plan(connection: &mut PgConnection) -> Result<Plan, OpenError> {
    const TABLES: &str = "SELECT table_name::text FROM information_schema.tables \
                          WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'";
    let tables = sqlx::query_scalar(TABLES).fetch_all(&mut *connection).await?;
    match plan(&POSTGRES, connection, &tables).await {
        Err(OpenError::Newer) => {
            newer(&POSTGRES, sqlx::query_scalar(READABLE_FROM).fetch_one(connection).await.ok())
        }
        plan => plan,
    }
}

/// A schema with migrations that `migrator` does not know is used as it is if it says that who knows
/// the last one of `migrator` may: so the version before an upgrade can go on after it.
fn newer(migrator: &Migrator, readable_from: Option<i64>) -> Result<Plan, OpenError> {
    let known = migrator.iter().map(|m| m.version).max();
    // One that does not say is not for us.
    match readable_from {
        Some(number) if Some(number) <= known => {
            tracing::warn!(
                event = "database.newer",
                "the database was upgraded by a newer Octopus, and this one may go on with it"
            );
            Ok(Plan::Nothing)
        }
        _ => Err(OpenError::Newer),
    }
}

async fn plan<C: Migrate>(
    migrator: &Migrator,
    connection: &mut C,
    tables: &[String],
) -> Result<Plan, OpenError> {
    let has = |name: &str| tables.iter().any(|table| table == name);
    if !has(&migrator.table_name) {
        return match () {
            () if tables.is_empty() => Ok(Plan::Create),
            () if has("api_keys") || has("conversations") => Err(OpenError::PythonOriginal),
            () => Err(OpenError::Strange(tables.join(", "))),
        };
    }
    let applied = connection.list_applied_migrations(&migrator.table_name).await?;
    let differs = |m: &&AppliedMigration| {
        migrator.iter().any(|ours| ours.version == m.version && ours.checksum != m.checksum)
    };
    if let Some(other) = applied.iter().find(differs) {
        return Err(OpenError::OtherMigration(other.version));
    }
    if applied.iter().any(|m| !migrator.version_exists(m.version)) {
        let lacks = |number: i64| applied.iter().all(|m| m.version != number);
        let missing = migrator.iter().map(|m| m.version).find(|number| lacks(*number));
        return Err(missing.map_or(OpenError::Newer, OpenError::OtherMigration));
    }
    let latest = applied.iter().map(|m| m.version).max();
    let pending = migrator.iter().any(|m| Some(m.version) > latest);
    Ok(match latest {
        None => Plan::Create,
        Some(from) if pending => Plan::Upgrade { from },
        Some(_) => Plan::Nothing,
    })
}

/// Puts a copy of the database beside it, as `FILE.before-migration-N`. To be called by one at a
/// time; on a connection of its own, as no transaction can copy.
async fn copy_beside(
    options: &SqliteConnectOptions,
    path: &Path,
    from: i64,
) -> Result<(), OpenError> {
    let copy = beside(path, &format!(".before-migration-{from}"));
    let mut connection = options.connect().await?;
    let written = Copy::write(&mut connection, &copy).await;
    connection.close().await?;
    // One of that name is older: an attempt that failed made it, or an upgrade that was taken back.
    written?.name(true).await?;
    tracing::info!(event = "database.copied", copy = %copy.display(), "copied before migrating");
    Ok(())
}
