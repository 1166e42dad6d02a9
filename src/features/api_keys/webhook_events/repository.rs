//! SQL statements for API keys that expire soon.

use crate::core::clock::Timestamp;
use crate::db::{Executor, Tx, query};
use chrono::{DateTime, Utc};
use sqlx::Result;

/// A key that expires soon.
#[derive(sqlx::FromRow)]
pub struct ExpiringKey {
    pub id: i64,
    pub name: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Lists at most `limit` active keys, by id after `last`, that expire after `from` and not after
/// `to` and are not marked with `days`. Excludes rotated keys.
pub async fn list_unannounced(
    on: impl Into<Executor<'_>>,
    days: i64,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    last: i64,
    limit: usize,
) -> Result<Vec<ExpiringKey>> {
    const SQL: &str = "SELECT id, name, created_at, expires_at FROM api_keys k \
         WHERE is_active = TRUE AND rotated_at IS NULL AND expires_at > $1 AND expires_at <= $2 \
         AND NOT EXISTS (SELECT 1 FROM expiry_notices n WHERE n.api_key_id = k.id \
         AND n.expires_at = k.expires_at AND n.days = $3) AND id > $4 ORDER BY id LIMIT $5";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    query(on, SQL).bind(from).bind(to).bind(days).bind(last).bind(limit).all().await
}

/// Marks `key` with `days`. Returns `false` if another process marked it first, or if the key was
/// changed since it was read.
pub async fn mark(tx: &mut Tx, key: &ExpiringKey, days: i64) -> Result<bool> {
    const SQL: &str = "INSERT INTO expiry_notices (api_key_id, expires_at, days) \
         SELECT id, expires_at, $1 FROM api_keys \
         WHERE id = $2 AND expires_at = $3 AND is_active = TRUE AND rotated_at IS NULL \
         ON CONFLICT DO NOTHING";
    Ok(query(tx, SQL).bind(days).bind(key.id).bind(key.expires_at).execute().await? == 1)
}
