//! SQL for idempotency records.

use super::key::IdempotencyKey;
use crate::db::{Query, Tx, query};
use chrono::{DateTime, Utc};

/// A stored record.
#[derive(sqlx::FromRow)]
pub(super) struct StoredRecord {
    pub(super) request_hash: Vec<u8>,
    pub(super) resource_id: i64,
    pub(super) resource_count: i64,
}

/// Inserts a record without a result, or overwrites one that was created at `expired` or before.
/// Returns whether it did; otherwise there is a valid record.
pub(super) async fn insert(
    tx: &mut Tx,
    credential: &str,
    key: &IdempotencyKey,
    now: DateTime<Utc>,
    expired: DateTime<Utc>,
) -> sqlx::Result<bool> {
    const SQL: &str = "INSERT INTO idempotency_keys (credential, method, path, \
        idempotency_key, request_hash, resource_id, resource_count, created_at) \
        VALUES ($1, $2, $3, $4, $5, 0, 0, $6) \
        ON CONFLICT (credential, method, path, idempotency_key) DO UPDATE SET \
        request_hash = excluded.request_hash, resource_id = 0, resource_count = 0, \
        created_at = excluded.created_at WHERE idempotency_keys.created_at <= $7";
    let statement = bind(query(tx, SQL), credential, key).bind(key.request_hash.to_vec());
    Ok(statement.bind(now).bind(expired).execute().await? == 1)
}

/// Returns the record of `key`.
pub(super) async fn find(
    tx: &mut Tx,
    credential: &str,
    key: &IdempotencyKey,
) -> sqlx::Result<StoredRecord> {
    const SQL: &str = "SELECT request_hash, resource_id, resource_count \
        FROM idempotency_keys \
        WHERE credential = $1 AND method = $2 AND path = $3 AND idempotency_key = $4";
    bind(query(tx, SQL), credential, key).one().await
}

/// Stores the result in the record of `key`: `count` resources, of which `id` is the first.
pub(super) async fn store_result(
    tx: &mut Tx,
    credential: &str,
    key: &IdempotencyKey,
    id: i64,
    count: i64,
) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE idempotency_keys SET resource_id = $5, resource_count = $6 \
        WHERE credential = $1 AND method = $2 AND path = $3 AND idempotency_key = $4";
    bind(query(tx, SQL), credential, key).bind(id).bind(count).execute().await.map(drop)
}

/// Deletes the records created at `time` or before. Returns how many.
pub(super) async fn delete_created_until(tx: &mut Tx, time: DateTime<Utc>) -> sqlx::Result<u64> {
    const SQL: &str = "DELETE FROM idempotency_keys WHERE created_at <= $1";
    query(tx, SQL).bind(time).execute().await
}

/// Binds `$1` to `$4`, which identify a record.
fn bind<'c>(statement: Query<'c>, credential: &str, key: &IdempotencyKey) -> Query<'c> {
    let statement = statement.bind(credential).bind(&*key.method);
    statement.bind(&*key.path).bind(key.key_hash.to_vec())
}
