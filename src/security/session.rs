//! Sessions of signed-in users.
//!
//! Every look-up queries the database, without a cache: a session that is revoked in any process is
//! invalid immediately.

use super::secret::{self, Hash};
use crate::core::config::SessionLimits;
use crate::core::error::{Error, Result};
use crate::db::{Db, Executor, Tx, query};
use crate::http::RequestId;
use chrono::{DateTime, Utc};
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The `detail` of the 401 for an invalid session.
pub const ENDED: &str = "Invalid or expired session";

/// An active session and its user.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Session {
    /// Primary key.
    pub id: i64,
    /// The id of the user.
    pub user_id: i64,
    /// The name of the user.
    pub username: String,
    /// Expiry, which use of the session does not extend.
    pub expires_at: DateTime<Utc>,
}

/// A signed-in user.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub(super) session: Arc<Session>,
    pub(super) ip: IpAddr,
    pub(super) request_id: RequestId,
}

impl SignedIn {
    /// The session of the request.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The id of the user.
    pub fn user_id(&self) -> i64 {
        self.session.user_id
    }

    /// The client's IP address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The id of the request.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }
}

/// Selects the columns of [`Session`] of active sessions. Callers append a condition.
const SELECT_ACTIVE: &str = "SELECT s.id, s.user_id, u.username, s.expires_at FROM sessions s \
    JOIN users u ON u.id = s.user_id \
    WHERE u.is_active = TRUE AND s.expires_at > $1 AND s.last_used_at > $2";

/// Finds the session with this token, if it is active at `now`.
pub async fn find(
    db: &Db,
    token: &str,
    limits: &SessionLimits,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<Session>> {
    let hash: Hash = secret::hash(token);
    let statement = query(db, SELECT_ACTIVE).bind(now).bind(now - limits.idle);
    statement.push(" AND s.token_hash = ").push_bind(hash.to_vec()).optional().await
}

/// Finds the session `id`, if it is active at `now`.
pub async fn find_by_id(
    on: impl Into<Executor<'_>>,
    id: i64,
    limits: &SessionLimits,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<Session>> {
    let statement = query(on, SELECT_ACTIVE).bind(now).bind(now - limits.idle);
    statement.push(" AND s.id = ").push_bind(id).optional().await
}

/// Validates the session of `user` a second time. Fails with 401 if it ended since the request
/// began.
pub async fn revalidate(
    on: impl Into<Executor<'_>>,
    user: &SignedIn,
    limits: &SessionLimits,
    now: DateTime<Utc>,
) -> Result<()> {
    let found = find_by_id(on, user.session.id, limits, now).await?;
    found.map(drop).ok_or(Error::Unauthenticated(ENDED))
}

/// The time and address of the last use of each session, collected in memory and written in
/// batches. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SessionUses(Arc<DashMap<i64, (DateTime<Utc>, IpAddr)>>);

impl SessionUses {
    /// Records a use of the session of `user`.
    pub fn note(&self, user: &SignedIn, at: DateTime<Utc>) {
        self.0.insert(user.session.id, (at, user.ip));
    }

    /// The last use of session `id` that is not in the database yet.
    pub fn last(&self, id: i64) -> Option<(DateTime<Utc>, IpAddr)> {
        self.0.get(&id).map(|used| *used)
    }

    /// Writes pending uses to the database. Uses that cannot be written stay pending.
    pub async fn flush(&self, db: &Db) -> sqlx::Result<()> {
        let mut pending: Vec<_> = self.0.iter().map(|entry| (*entry.key(), *entry)).collect();
        if pending.is_empty() {
            return Ok(());
        }
        // Every process updates rows in the order of their ids, which prevents deadlocks.
        pending.sort_unstable_by_key(|(id, _)| *id);
        for batch in pending.chunks(BATCH) {
            let mut tx = db.begin().await?;
            for (id, (at, ip)) in batch {
                write(&mut tx, *id, *at, *ip).await?;
            }
            tx.commit().await?;
            for (id, written) in batch {
                self.0.remove_if(id, |_, used| used == written);
            }
        }
        Ok(())
    }
}

/// Sessions written per transaction. A small batch keeps other writers from waiting long.
const BATCH: usize = 500;

/// Updates the last use of a session. Its time never decreases.
async fn write(tx: &mut Tx, id: i64, at: DateTime<Utc>, ip: IpAddr) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE sessions SET last_used_at = $2, last_used_ip = $3 \
                       WHERE id = $1 AND last_used_at < $2";
    query(tx, SQL).bind(id).bind(at).bind(ip.to_string()).execute().await.map(drop)
}
