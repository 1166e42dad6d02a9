//! Migrates an SQLite database.

use super::copy::Copy;
use crate::db::error::OpenError;
use crate::db::files::with_suffix;
use crate::db::migrate::{Changes, Plan, READABLE_FROM, newer, plan};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::path::Path;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// An update that changes no value.
const WRITE: &str = "UPDATE installation SET version = version WHERE id = 1";

/// Migrates the SQLite file at `path`. Returns whether its schema was older. Uses a separate
/// connection: rebuilding a referenced table needs `foreign_keys=OFF`, which SQLite does not change
/// inside a transaction.
pub(super) async fn migrate(
    path: &Path,
    options: &SqliteConnectOptions,
    changes: Changes,
) -> Result<bool, OpenError> {
    let plan = plan_of_file(path).await?.allowed(changes)?;
    let was_older = matches!(plan, Plan::Upgrade { .. });
    let mut connection = options.clone().foreign_keys(false).connect().await?;
    match plan {
        Plan::Nothing => {}
        Plan::Create | Plan::Upgrade { .. } => {
            // sqlx's migrator takes no lock on SQLite; this makes concurrent starts wait.
            let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
            // Another process may have migrated meanwhile; then there is nothing to copy.
            if let Plan::Upgrade { from } = plan_of_file(path).await? {
                copy_beside(options, path, from).await?;
            }
            MIGRATOR.run(&mut *tx).await?;
            let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut *tx).await?;
            if !broken.is_empty() {
                return Err(OpenError::BrokenReferences(broken.len()));
            }
            tx.commit().await?;
        }
    }
    if changes.any() {
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

/// Plans the migration of an SQLite file. Uses default connection options: switching to WAL would
/// change the file, which may belong to another program.
async fn plan_of_file(path: &Path) -> Result<Plan, OpenError> {
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
    plan_of_file(path).await?.upgrades()
}

async fn plan_of(options: &SqliteConnectOptions) -> Result<Plan, OpenError> {
    const TABLES: &str =
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let mut connection = options.connect().await?;
    let tables = sqlx::query_scalar(TABLES).fetch_all(&mut connection).await?;
    let plan = match plan(&MIGRATOR, &mut connection, &tables).await {
        Err(OpenError::Newer) => {
            let readable_from = sqlx::query_scalar(READABLE_FROM).fetch_one(&mut connection).await;
            newer(&MIGRATOR, readable_from.ok())
        }
        plan => plan,
    };
    connection.close().await?;
    plan
}

/// Copies the database to `FILE.before-migration-N`. Calls must not run concurrently. Uses a
/// separate connection, because `VACUUM` does not work inside a transaction.
async fn copy_beside(
    options: &SqliteConnectOptions,
    path: &Path,
    from: i64,
) -> Result<(), OpenError> {
    let copy = with_suffix(path, &format!(".before-migration-{from}"));
    let mut connection = options.connect().await?;
    let written = Copy::write(&mut connection, &copy).await;
    connection.close().await?;
    // An existing copy is older: from a failed attempt, or from an upgrade that was undone.
    written?.name(true).await?;
    tracing::info!(event = "database.copied", copy = %copy.display(), "copied before migrating");
    Ok(())
}
