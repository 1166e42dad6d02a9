//! SQL statements for sessions.

use crate::core::clock::Timestamp;
use crate::core::config::SessionLimits;
use crate::db::{Executor, Tx, query};
use crate::http::Slice;
use crate::security::secret::SecretHash;
use chrono::{DateTime, Utc};
use sqlx::Result;
use std::net::IpAddr;

/// A stored session.
#[derive(sqlx::FromRow)]
pub struct SessionRow {
    pub id: i64,
    pub created_at: Timestamp,
    pub last_used_at: Timestamp,
    pub last_used_ip: Option<String>,
    pub user_agent: Option<String>,
    pub expires_at: Timestamp,
}

/// A session to insert.
pub struct NewSession<'s> {
    pub user_id: i64,
    pub token_hash: SecretHash,
    pub ip: IpAddr,
    pub user_agent: Option<&'s str>,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// Inserts a session and returns its id. The user's row must be locked.
pub async fn insert(tx: &mut Tx, new: &NewSession<'_>) -> Result<i64> {
    const SQL: &str = "INSERT INTO sessions (token_hash, user_id, created_at, last_used_at, \
        last_used_ip, user_agent, expires_at) VALUES ($1, $2, $3, $3, $4, $5, $6) RETURNING id";
    let statement = query(tx, SQL).bind(new.token_hash.to_vec()).bind(new.user_id);
    let statement = statement.bind(new.created_at).bind(new.ip.to_string()).bind(new.user_agent);
    let (id,): (i64,) = statement.bind(new.expires_at).one().await?;
    Ok(id)
}

/// Deletes the oldest sessions of a user, so that at most `most` remain. The user's row must be
/// locked.
pub async fn keep_newest(tx: &mut Tx, user_id: i64, most: i64) -> Result<()> {
    const SQL: &str = "DELETE FROM sessions WHERE user_id = $1 AND id <= (SELECT id FROM sessions \
        WHERE user_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)";
    query(tx, SQL).bind(user_id).bind(most).execute().await.map(drop)
}

/// Lists the active sessions of a user.
pub async fn list(
    on: impl Into<Executor<'_>>,
    user_id: i64,
    limits: &SessionLimits,
    now: DateTime<Utc>,
    slice: &Slice<i64>,
) -> Result<Vec<SessionRow>> {
    const SQL: &str = "SELECT id, created_at, last_used_at, last_used_ip, user_agent, expires_at \
        FROM sessions WHERE user_id = $1 AND expires_at > $2 AND last_used_at > $3";
    let statement = query(on, SQL).bind(user_id).bind(now).bind(now - limits.idle);
    slice.cut(statement, &["id"]).all().await
}

/// Deletes a session of a user. Returns whether it existed.
pub async fn delete(tx: &mut Tx, id: i64, user_id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM sessions WHERE id = $1 AND user_id = $2";
    Ok(query(tx, SQL).bind(id).bind(user_id).execute().await? == 1)
}

/// Deletes all sessions of a user except `kept`. The user's row must be locked, so that no session
/// is created at the same time.
pub async fn delete_all(tx: &mut Tx, user_id: i64, kept: Option<i64>) -> Result<()> {
    const SQL: &str = "SELECT id FROM sessions WHERE user_id = $1 ORDER BY id";
    let ids: Vec<(i64,)> = query(&mut *tx, SQL).bind(user_id).all().await?;
    // Deletes by id, in the order in which uses are written, to prevent deadlocks.
    for (id,) in ids.into_iter().filter(|(id,)| Some(*id) != kept) {
        delete(tx, id, user_id).await?;
    }
    Ok(())
}

/// Deletes sessions that expired before `now` or were last used before `unused_since`.
pub async fn forget(tx: &mut Tx, now: DateTime<Utc>, unused_since: DateTime<Utc>) -> Result<u64> {
    const SQL: &str = "DELETE FROM sessions WHERE expires_at <= $1 OR last_used_at <= $2";
    query(tx, SQL).bind(now).bind(unused_since).execute().await
}
