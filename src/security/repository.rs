//! SQL statements for the look-up of API keys and sessions and for their usage.

use super::key::{Key, KeyRow};
use super::secret::SecretHash;
use super::session::Session;
use crate::core::clock::MAX_REORDERING;
use crate::core::config::SessionLimits;
use crate::db::{Executor, Tx, query};
use chrono::{DateTime, Utc};
use sqlx::Result;
use std::net::IpAddr;

/// Selects the columns of [`KeyRow`] for the keys that meet the condition.
macro_rules! select_key {
    ($condition:literal) => {
        concat!(
            "SELECT id, name, description, scopes, is_active, created_at, expires_at, \
             grace_expires_at, allowed_ips, rate_limit_per_minute, created_by_user_id, \
             rotated_from_id, rotated_to_id FROM api_keys WHERE ",
            $condition
        )
    };
}

/// Finds the key whose secret has this hash, whether it is valid or not.
pub(super) async fn key_by_hash(
    on: impl Into<Executor<'_>>,
    hash: SecretHash,
) -> Result<Option<Key>> {
    const SQL: &str = select_key!("key_hash = $1");
    let row: Option<KeyRow> = query(on, SQL).bind(hash.to_vec()).optional().await?;
    Ok(row.map(Key::from))
}

/// Finds the key `id`, whether it is valid or not.
pub(super) async fn key_by_id(on: impl Into<Executor<'_>>, id: i64) -> Result<Option<Key>> {
    const SQL: &str = select_key!("id = $1");
    let row: Option<KeyRow> = query(on, SQL).bind(id).optional().await?;
    Ok(row.map(Key::from))
}

/// The stored hash of the key `id`.
pub(super) async fn hash_of_key(
    on: impl Into<Executor<'_>>,
    id: i64,
) -> Result<Option<SecretHash>> {
    const SQL: &str = "SELECT key_hash FROM api_keys WHERE id = $1";
    let row: Option<(Vec<u8>,)> = query(on, SQL).bind(id).optional().await?;
    Ok(row.and_then(|(hash,)| hash.try_into().ok()))
}

/// Updates the last use of a key. Its time does not decrease, unless it is more than
/// [`MAX_REORDERING`] ahead.
pub(super) async fn write_key_use(
    tx: &mut Tx,
    id: i64,
    at: DateTime<Utc>,
    ip: Option<IpAddr>,
) -> Result<()> {
    const SQL: &str = "UPDATE api_keys SET \
        last_used_ip = CASE WHEN last_used_at >= $2 AND last_used_at <= $3 \
        THEN last_used_ip ELSE $4 END, \
        last_used_at = CASE WHEN last_used_at >= $2 AND last_used_at <= $3 \
        THEN last_used_at ELSE $2 END WHERE id = $1";
    let statement = query(tx, SQL).bind(id).bind(at).bind(at + MAX_REORDERING);
    statement.bind(ip.map(|ip| ip.to_string())).execute().await.map(drop)
}

/// Locks the row of a key.
pub(super) async fn lock_key(tx: &mut Tx, id: i64) -> Result<()> {
    const SQL: &str = "UPDATE api_keys SET last_used_at = last_used_at WHERE id = $1";
    query(tx, SQL).bind(id).execute().await.map(drop)
}

/// Adds the `counts` of requests in one hour, in the order of
/// [`UsageOutcome`](super::usage::UsageOutcome). Writes nothing if the key was deleted in the
/// meantime.
pub(super) async fn add_key_usage(
    tx: &mut Tx,
    id: i64,
    hour: DateTime<Utc>,
    counts: &[i64; 5],
) -> Result<()> {
    const SQL: &str = "INSERT INTO api_key_usage \
        (api_key_id, hour, ok, denied_scope, denied_address, rate_limited, expired) \
        SELECT $1, $2, $3, $4, $5, $6, $7 WHERE EXISTS (SELECT 1 FROM api_keys WHERE id = $1) \
        ON CONFLICT (api_key_id, hour) DO UPDATE SET ok = api_key_usage.ok + excluded.ok, \
        denied_scope = api_key_usage.denied_scope + excluded.denied_scope, \
        denied_address = api_key_usage.denied_address + excluded.denied_address, \
        rate_limited = api_key_usage.rate_limited + excluded.rate_limited, \
        expired = api_key_usage.expired + excluded.expired";
    let statement = query(tx, SQL).bind(id).bind(hour);
    counts.iter().fold(statement, |s, count| s.bind(*count)).execute().await.map(drop)
}

/// Selects the columns of [`Session`] of active sessions. Callers append a condition.
// Every look-up of a session queries the database, without a cache: a session that is revoked in any
// process is invalid immediately.
const SELECT_ACTIVE: &str = "SELECT s.id, s.user_id, u.username, s.expires_at FROM sessions s \
    JOIN users u ON u.id = s.user_id \
    WHERE u.is_active = TRUE AND s.expires_at > $1 AND s.last_used_at > $2";

/// Finds the session whose token has this hash, if it is active at `now`.
pub(super) async fn session_by_hash(
    on: impl Into<Executor<'_>>,
    hash: SecretHash,
    limits: &SessionLimits,
    now: DateTime<Utc>,
) -> Result<Option<Session>> {
    let statement = query(on, SELECT_ACTIVE).bind(now).bind(now - limits.idle);
    statement.push(" AND s.token_hash = ").push_bind(hash.to_vec()).optional().await
}

/// Finds the session `id`, if it is active at `now`.
pub(super) async fn session_by_id(
    on: impl Into<Executor<'_>>,
    id: i64,
    limits: &SessionLimits,
    now: DateTime<Utc>,
) -> Result<Option<Session>> {
    let statement = query(on, SELECT_ACTIVE).bind(now).bind(now - limits.idle);
    statement.push(" AND s.id = ").push_bind(id).optional().await
}

/// Updates the last use of a session. Its time does not decrease, unless it is more than
/// [`MAX_REORDERING`] ahead: otherwise a clock that was ahead would keep an unused session active.
pub(super) async fn write_session_use(
    tx: &mut Tx,
    id: i64,
    at: DateTime<Utc>,
    ip: IpAddr,
) -> Result<()> {
    const SQL: &str = "UPDATE sessions SET last_used_at = $2, last_used_ip = $4 \
                       WHERE id = $1 AND (last_used_at < $2 OR last_used_at > $3)";
    let statement = query(tx, SQL).bind(id).bind(at).bind(at + MAX_REORDERING);
    statement.bind(ip.to_string()).execute().await.map(drop)
}
