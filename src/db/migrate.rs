//! Migrates a database schema, forward only.
//!
//! Refuses, and does not change, a database of the FastAPI application, a database with tables of
//! another program, and a database of a newer Octopus that this version cannot use.

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

/// Selects the last migration that a version of Octopus must know to use the database.
const READABLE_FROM: &str = "SELECT readable_from FROM installation WHERE id = 1";

/// An update that changes no value.
const WRITE: &str = "UPDATE installation SET version = version WHERE id = 1";

/// What must happen to the schema before the database can be used.
enum Plan {
    Nothing,
    Create,
    Upgrade { from: i64 },
}

impl Plan {
    /// Returns whether the schema is older. Fails if the database is empty.
    fn upgrades(self) -> Result<bool, OpenError> {
        match self {
            Self::Create => Err(OpenError::Empty),
            Self::Nothing => Ok(false),
            Self::Upgrade { .. } => Ok(true),
        }
    }

    /// Returns the plan if `schema` allows it.
    fn allowed(self, schema: Schema) -> Result<Self, OpenError> {
        match (&self, schema) {
            (Self::Create, Schema::Keep) => Err(OpenError::Empty),
            (Self::Upgrade { .. }, Schema::Create | Schema::Keep) => Err(OpenError::NotMigrated),
            _ => Ok(self),
        }
    }
}

/// Migrates the SQLite file at `path`. Returns whether its schema was older. Uses a separate
/// connection: rebuilding a referenced table needs `foreign_keys=OFF`, which SQLite does not change
/// inside a transaction.
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
            // sqlx's migrator takes no lock on SQLite; this makes concurrent starts wait.
            let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
            // Another process may have migrated meanwhile; then there is nothing to copy.
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
        // Reports a read-only file now rather than at the first write.
        // BEGIN IMMEDIATE alone succeeds on such a file.
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(WRITE).execute(&mut *tx).await?;
        tx.rollback().await?;
        if let Err(error) = delete_statistics(&mut connection).await {
            tracing::warn!(event = "database.statistics_kept", %error, "cannot delete the statistics");
        }
    }
    connection.close().await?;
    Ok(was_older)
}

/// Deletes the statistics of `ANALYZE`. Without them, SQLite assumes that every table is large.
/// Statistics from when tables were small lead to full scans of tables that have grown since
/// (<https://www.sqlite.org/lang_analyze.html>).
async fn delete_statistics(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    const TABLE: &str = "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1'";
    const FILLED: &str = "SELECT 1 FROM sqlite_stat1 LIMIT 1";
    if sqlx::query(TABLE).fetch_optional(&mut *connection).await?.is_some()
        && sqlx::query(FILLED).fetch_optional(&mut *connection).await?.is_some()
    {
        sqlx::query("DELETE FROM sqlite_stat1").execute(connection).await?;
    }
    Ok(())
}

/// Migrates a Postgres database. Returns whether its schema was older. sqlx holds an advisory lock
/// during the migration.
pub(super) async fn postgres(pool: &PgPool, schema: Schema) -> Result<bool, OpenError> {
    let mut connection = pool.acquire().await?;
    let plan = postgres_plan(&mut connection).await?.allowed(schema)?;
    drop(connection);
    if !matches!(plan, Plan::Nothing) {
        POSTGRES.run(pool).await?;
    }
    Ok(matches!(plan, Plan::Upgrade { .. }))
}

/// Plans the migration of an SQLite file. Uses default connection options: switching to WAL would
/// change the file, which may belong to another program.
async fn sqlite_plan(path: &Path) -> Result<Plan, OpenError> {
    let options = SqliteConnectOptions::new().filename(path);
    match plan_of(&options.clone().read_only(true)).await {
        // An interrupted write must be rolled back first, as SQLite does on every normal open.
        Err(OpenError::Driver(error)) if needs_rollback(&error) => plan_of(&options).await,
        plan => plan,
    }
}

/// Returns whether an interrupted write must be rolled back on a read-only connection.
fn needs_rollback(error: &sqlx::Error) -> bool {
    const READONLY_ROLLBACK: &str = "776";
    let error = error.as_database_error();
    error.is_some_and(|error| error.code().as_deref() == Some(READONLY_ROLLBACK))
}

/// Returns whether the schema of the file that `options` name is older. Fails if the file is empty,
/// is newer, or belongs to another program.
pub(super) async fn is_older(options: &SqliteConnectOptions) -> Result<bool, OpenError> {
    plan_of(options).await?.upgrades()
}

/// Like [`is_older`], for the database at `path`, which may be in use.
pub(super) async fn is_older_file(path: &Path) -> Result<bool, OpenError> {
    sqlite_plan(path).await?.upgrades()
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

/// Accepts a schema with unknown migrations if `migrator` knows its `readable_from`: the version
/// before an upgrade can then keep running after it.
fn newer(migrator: &Migrator, readable_from: Option<i64>) -> Result<Plan, OpenError> {
    let known = migrator.iter().map(|m| m.version).max();
    // A schema without `readable_from` is not compatible.
    match readable_from {
        Some(number) if Some(number) <= known => {
            tracing::warn!(
                event = "database.schema_newer",
                "a newer Octopus upgraded the database; this version can still use it"
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
            () if has("api_keys") || has("conversations") => Err(OpenError::FastApiDatabase),
            () => Err(OpenError::ForeignTables(tables.join(", "))),
        };
    }
    let applied = connection.list_applied_migrations(&migrator.table_name).await?;
    let differs = |m: &&AppliedMigration| {
        migrator.iter().any(|known| known.version == m.version && known.checksum != m.checksum)
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

/// Copies the database to `FILE.before-migration-N`. Calls must not run concurrently. Uses a
/// separate connection, because `VACUUM` does not work inside a transaction.
async fn copy_beside(
    options: &SqliteConnectOptions,
    path: &Path,
    from: i64,
) -> Result<(), OpenError> {
    let copy = beside(path, &format!(".before-migration-{from}"));
    let mut connection = options.connect().await?;
    let written = Copy::write(&mut connection, &copy).await;
    connection.close().await?;
    // An existing copy is older: from a failed attempt, or from an upgrade that was undone.
    written?.name(true).await?;
    tracing::info!(event = "database.copied", copy = %copy.display(), "copied before migrating");
    Ok(())
}
