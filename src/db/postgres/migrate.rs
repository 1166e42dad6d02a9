//! Migrates a Postgres database.

use crate::db::error::OpenError;
use crate::db::migrate::{Changes, Plan, READABLE_FROM, newer, plan};
use sqlx::migrate::Migrator;
use sqlx_postgres::{PgConnection, PgPool};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// Migrates a Postgres database. Returns whether its schema was older. sqlx holds an advisory lock
/// during the migration.
pub(super) async fn migrate(pool: &PgPool, changes: Changes) -> Result<bool, OpenError> {
    let mut connection = pool.acquire().await?;
    let plan = plan_of(&mut connection).await?.allowed(changes)?;
    drop(connection);
    if !matches!(plan, Plan::Nothing) {
        MIGRATOR.run(pool).await?;
    }
    Ok(matches!(plan, Plan::Upgrade { .. }))
}

async fn plan_of(connection: &mut PgConnection) -> Result<Plan, OpenError> {
    const TABLES: &str = "SELECT table_name::text FROM information_schema.tables \
                          WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'";
    let tables = sqlx::query_scalar(TABLES).fetch_all(&mut *connection).await?;
    match plan(&MIGRATOR, connection, &tables).await {
        Err(OpenError::Newer) => {
            newer(&MIGRATOR, sqlx::query_scalar(READABLE_FROM).fetch_one(connection).await.ok())
        }
        plan => plan,
    }
}
