//! SQL for the audit log.

use super::anchor::Anchor;
use super::chain::{Hash, Row, previous_key};
use super::origin::Action;
use crate::core::clock::Timestamp;
use crate::db::{Executor, Snapshot, Tx, query};
use chrono::{DateTime, SubsecRound, Utc};
use serde_json::Value;

/// Entries and API keys read per statement.
pub(super) const BATCH: i64 = 500;

/// The columns of [`Row`], for SQL statements.
macro_rules! columns {
    () => {
        "seq, api_key_id, api_key_name, action, performed_by, performed_by_key_id, \
         performed_by_key_name, performed_by_ip, request_id, details, timestamp, hash_key_id, \
         payload, hash"
    };
}
pub(crate) use columns;

/// The head of the chain: the position and hash of its last entry.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Head {
    pub(super) seq: i64,
    hash: Vec<u8>,
}

/// An API key as stored.
#[derive(sqlx::FromRow)]
pub(super) struct StoredKey {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) scopes: String,
    pub(super) is_active: bool,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) allowed_ips: Option<String>,
    pub(super) rate_limit_per_minute: Option<i64>,
    pub(super) created_by_user_id: Option<i64>,
    pub(super) rotated_at: Option<Timestamp>,
    pub(super) grace_expires_at: Option<Timestamp>,
}

impl Head {
    pub(super) fn anchor(&self) -> sqlx::Result<Anchor> {
        Ok(Anchor { seq: self.seq, hash: self.hash()? })
    }

    pub(super) fn hash(&self) -> sqlx::Result<Hash> {
        let length = |_| sqlx::Error::Decode("the audit chain's head has no valid hash".into());
        self.hash.as_slice().try_into().map_err(length)
    }
}

/// The head of the chain.
pub(super) async fn head(on: impl Into<Executor<'_>>) -> sqlx::Result<Head> {
    query(on, "SELECT seq, hash FROM audit_head WHERE id = 1").one().await
}

/// The head, locked against other writers until `tx` ends.
pub(super) async fn lock_head(tx: &mut Tx) -> sqlx::Result<Head> {
    const SQL: &str = "UPDATE audit_head SET seq = seq WHERE id = 1 RETURNING seq, hash";
    query(tx, SQL).one().await
}

/// Moves the head to the entry `seq`.
pub(super) async fn set_head(tx: &mut Tx, seq: i64, hash: Hash) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1";
    let updated = query(tx, SQL).bind(seq).bind(hash.to_vec()).execute().await?;
    if updated == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// Inserts an entry.
pub(super) async fn insert(tx: &mut Tx, row: Row) -> sqlx::Result<()> {
    const SQL: &str = concat!(
        "INSERT INTO api_key_audit_logs (",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
    );
    let inserted = query(tx, SQL)
        .bind(row.seq)
        .bind(row.api_key_id)
        .bind(row.api_key_name)
        .bind(row.action)
        .bind(row.performed_by)
        .bind(row.performed_by_key_id)
        .bind(row.performed_by_key_name)
        .bind(row.performed_by_ip)
        .bind(row.request_id)
        .bind(row.details)
        .bind(row.timestamp.at)
        .bind(row.hash_key_id)
        .bind(row.payload)
        .bind(row.hash)
        .execute()
        .await?;
    // A trigger could suppress the insert without an error.
    if inserted == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// Returns whether there are entries and none of them is in the chain.
pub(super) async fn waits_for_adoption(on: impl Into<Executor<'_>>) -> sqlx::Result<bool> {
    const SQL: &str = "SELECT h.seq FROM audit_head h WHERE h.id = 1 AND h.seq = 0 \
        AND EXISTS (SELECT 1 FROM api_key_audit_logs) \
        AND NOT EXISTS (SELECT 1 FROM api_key_audit_logs WHERE hash IS NOT NULL)";
    Ok(query(on, SQL).optional::<(i64,)>().await?.is_some())
}

/// At most `limit` entries from position `seq` on, in order.
pub(super) async fn rows_from(
    on: impl Into<Executor<'_>>,
    seq: i64,
    limit: i64,
) -> sqlx::Result<Vec<Row>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM api_key_audit_logs WHERE seq >= $1 ORDER BY seq LIMIT $2"
    );
    query(on, SQL).bind(seq).bind(limit).all().await
}

/// Stores the hash of an entry that had none, and its time as hashed.
pub(super) async fn set_hash(tx: &mut Tx, row: &Row) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE api_key_audit_logs \
                       SET timestamp = $2, hash_key_id = $3, payload = $4, hash = $5 WHERE seq = $1";
    let statement = query(tx, SQL).bind(row.seq).bind(row.timestamp.at.trunc_subsecs(6));
    let statement = statement.bind(row.hash_key_id).bind(row.payload.clone());
    statement.bind(row.hash.clone()).execute().await?;
    Ok(())
}

/// The id of the key that signed the last entry.
pub(super) async fn last_key(on: impl Into<Executor<'_>>) -> sqlx::Result<Option<i64>> {
    const SQL: &str = "SELECT hash_key_id FROM api_key_audit_logs ORDER BY seq DESC LIMIT 1";
    let last: Option<(Option<i64>,)> = query(on, SQL).optional().await?;
    Ok(last.and_then(|(id,)| id))
}

/// The ids of the keys that the chain has changed from.
pub(super) async fn previous_keys(on: impl Into<Executor<'_>>) -> sqlx::Result<Vec<i64>> {
    const SQL: &str = "SELECT details FROM api_key_audit_logs WHERE action = $1";
    let statement = query(on, SQL).bind(Action::ChangeAuditKey.as_str());
    let rows: Vec<(String,)> = statement.all().await?;
    Ok(rows.iter().filter_map(|(details,)| previous_key(details)).collect())
}

/// Returns whether the entry at the position of `anchor` has its hash.
pub(super) async fn has_entry(on: impl Into<Executor<'_>>, anchor: &Anchor) -> sqlx::Result<bool> {
    const SQL: &str = "SELECT seq FROM api_key_audit_logs WHERE seq = $1 AND hash = $2";
    let statement = query(on, SQL).bind(anchor.seq).bind(anchor.hash.to_vec());
    Ok(statement.optional::<(i64,)>().await?.is_some())
}

/// The last removed entry according to the newest checkpoint. It is not verified here: verification
/// checks the checkpoint like any other entry.
pub(super) async fn checkpoint(on: impl Into<Executor<'_>>) -> sqlx::Result<Option<Anchor>> {
    const SQL: &str = "SELECT details FROM api_key_audit_logs WHERE action = $1 \
                       ORDER BY seq DESC LIMIT 1";
    let statement = query(on, SQL).bind(Action::PruneEntries.as_str());
    let row: Option<(String,)> = statement.optional().await?;
    let details = row.and_then(|(details,)| serde_json::from_str::<Value>(&details).ok());
    Ok(details.and_then(|details| details.get("through")?.as_str()?.parse().ok()))
}

/// Returns whether the first entry is older than `before`.
pub(super) async fn begins_before(
    on: impl Into<Executor<'_>>,
    before: DateTime<Utc>,
) -> sqlx::Result<bool> {
    const SQL: &str = "SELECT seq FROM api_key_audit_logs WHERE timestamp < $1 \
        AND seq = (SELECT MIN(seq) FROM api_key_audit_logs)";
    Ok(query(on, SQL).bind(before).optional::<(i64,)>().await?.is_some())
}

/// The last entry of the leading run of entries older than `before`, among the first `limit`.
pub(super) async fn last_before(
    tx: &mut Tx,
    before: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Option<Anchor>> {
    // Positions have no gaps, but a clock may have been set back: times may not increase.
    const SQL: &str = "SELECT seq, hash FROM api_key_audit_logs WHERE seq < COALESCE( \
        (SELECT seq FROM (SELECT seq, timestamp FROM api_key_audit_logs ORDER BY seq LIMIT $2) f \
         WHERE timestamp >= $1 ORDER BY seq LIMIT 1), \
        (SELECT MIN(seq) FROM api_key_audit_logs) + $2) ORDER BY seq DESC LIMIT 1";
    let row: Option<(i64, Vec<u8>)> = query(tx, SQL).bind(before).bind(limit).optional().await?;
    let Some((seq, hash)) = row else { return Ok(None) };
    let hash = Hash::try_from(hash);
    let hash = hash.map_err(|_| sqlx::Error::Decode("an audit entry has no valid hash".into()))?;
    Ok(Some(Anchor { seq, hash }))
}

/// Deletes the entries up to `seq`. Returns their number.
pub(super) async fn delete_through(tx: &mut Tx, seq: i64) -> sqlx::Result<u64> {
    const SQL: &str = "DELETE FROM api_key_audit_logs WHERE seq <= $1";
    query(tx, SQL).bind(seq).execute().await
}

/// Returns whether any API key exists. An empty audit log is then a fault: the creation of each key
/// has an entry.
pub(super) async fn has_keys(snapshot: &mut Snapshot) -> sqlx::Result<bool> {
    const SQL: &str = "SELECT id FROM api_keys LIMIT 1";
    Ok(query(snapshot, SQL).optional::<(i64,)>().await?.is_some())
}

/// The first [`BATCH`] API keys with ids greater than `after`, in order of their ids.
pub(super) async fn keys_after(
    on: impl Into<Executor<'_>>,
    after: i64,
) -> sqlx::Result<Vec<StoredKey>> {
    const SQL: &str = "SELECT id, name, description, scopes, is_active, expires_at, \
        allowed_ips, rate_limit_per_minute, created_by_user_id, rotated_at, grace_expires_at \
        FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2";
    query(on, SQL).bind(after).bind(BATCH).all().await
}
