//! SQL for tickets.

use crate::db::{Executor, Tx, query};
use crate::security::credential::CredentialId;
use crate::security::secret::SecretHash;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// Stores a ticket for conversation `id`.
pub(super) async fn insert(
    tx: &mut Tx,
    hash: SecretHash,
    id: i64,
    credential: CredentialId,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    const SQL: &str = "INSERT INTO event_tickets \
        (token_hash, conversation_id, api_key_id, session_id, expires_at) \
        VALUES ($1, $2, $3, $4, $5)";
    let (key, session) = match credential {
        CredentialId::Key(id) => (Some(id), None),
        CredentialId::Session(id) => (None, Some(id)),
    };
    let statement = query(tx, SQL).bind(hash.to_vec()).bind(id).bind(key).bind(session);
    statement.bind(expires_at).execute().await.map(drop)
}

/// The columns of the credential that created a ticket.
type CreatorRow = (Option<i64>, Option<i64>);

fn creator((key, session): CreatorRow) -> Option<CredentialId> {
    key.map(CredentialId::Key).or(session.map(CredentialId::Session))
}

/// Finds the ticket for conversation `id` with this hash. Returns the credential that created it;
/// `None` if the ticket is not valid at `now`.
pub(super) async fn find(
    on: impl Into<Executor<'_>>,
    hash: SecretHash,
    id: i64,
    now: DateTime<Utc>,
) -> Result<Option<CredentialId>> {
    const SQL: &str = "SELECT api_key_id, session_id FROM event_tickets \
        WHERE token_hash = $1 AND conversation_id = $2 AND expires_at > $3";
    let row = query(on, SQL).bind(hash.to_vec()).bind(id).bind(now).optional().await?;
    Ok(row.and_then(creator))
}

/// Deletes the ticket for conversation `id` with this hash. Returns the credential that created it;
/// `None` if the ticket is not valid at `now`.
pub(super) async fn take(
    tx: &mut Tx,
    hash: SecretHash,
    id: i64,
    now: DateTime<Utc>,
) -> Result<Option<CredentialId>> {
    const SQL: &str = "DELETE FROM event_tickets \
        WHERE token_hash = $1 AND conversation_id = $2 AND expires_at > $3 \
        RETURNING api_key_id, session_id";
    let row = query(tx, SQL).bind(hash.to_vec()).bind(id).bind(now).optional().await?;
    Ok(row.and_then(creator))
}

/// Deletes the tickets that are expired at `now`. Returns the number deleted.
pub(super) async fn delete_expired(tx: &mut Tx, now: DateTime<Utc>) -> Result<u64> {
    const SQL: &str = "DELETE FROM event_tickets WHERE expires_at <= $1";
    query(tx, SQL).bind(now).execute().await
}
