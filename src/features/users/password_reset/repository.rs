//! SQL statements for password reset tokens.

use crate::db::{Executor, Tx, query};
use crate::security::secret::SecretHash;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// Stores a user's token and replaces an earlier one.
pub async fn put(
    tx: &mut Tx,
    user_id: i64,
    token_hash: SecretHash,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    const SQL: &str = "INSERT INTO password_resets (user_id, token_hash, expires_at) \
        VALUES ($1, $2, $3) ON CONFLICT (user_id) DO UPDATE SET \
        token_hash = excluded.token_hash, expires_at = excluded.expires_at";
    let statement = query(tx, SQL).bind(user_id).bind(token_hash.to_vec());
    statement.bind(expires_at).execute().await.map(drop)
}

/// The id of the active user to whom this unexpired token belongs.
pub async fn find(
    on: impl Into<Executor<'_>>,
    token_hash: SecretHash,
    now: DateTime<Utc>,
) -> Result<Option<i64>> {
    const SQL: &str = "SELECT r.user_id FROM password_resets r JOIN users u ON u.id = r.user_id \
        WHERE r.token_hash = $1 AND r.expires_at > $2 AND u.is_active = TRUE";
    let found = query(on, SQL).bind(token_hash.to_vec()).bind(now).optional::<(i64,)>();
    Ok(found.await?.map(|(id,)| id))
}

/// Deletes an unexpired token. Returns whether it existed.
pub async fn spend(tx: &mut Tx, token_hash: SecretHash, now: DateTime<Utc>) -> Result<bool> {
    const SQL: &str = "DELETE FROM password_resets WHERE token_hash = $1 AND expires_at > $2";
    Ok(query(tx, SQL).bind(token_hash.to_vec()).bind(now).execute().await? == 1)
}

/// Deletes a user's token, if any.
pub async fn withdraw(tx: &mut Tx, user_id: i64) -> Result<()> {
    const SQL: &str = "DELETE FROM password_resets WHERE user_id = $1";
    query(tx, SQL).bind(user_id).execute().await.map(drop)
}

/// Deletes expired tokens.
pub async fn forget_expired(tx: &mut Tx, now: DateTime<Utc>) -> Result<()> {
    const SQL: &str = "DELETE FROM password_resets WHERE expires_at <= $1";
    query(tx, SQL).bind(now).execute().await.map(drop)
}
