//! People who are logged in, and finding them by the tokens of their sessions.
//!
//! Sessions are looked up in the database every time: one that was ended anywhere is over at once.

use super::secret::{self, Hash};
use crate::core::config::SessionLimits;
use crate::core::error::{Error, Result};
use crate::db::{Db, On, Tx, query};
use crate::http::RequestId;
use chrono::{DateTime, Utc};
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What a 401 says of a session that is not good.
pub const ENDED: &str = "Invalid or expired session";

/// A session that goes on, and whose it is.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Session {
    /// Its id.
    pub id: i64,
    /// Whose it is.
    pub user_id: i64,
    /// Their name.
    pub username: String,
    /// When it ends, however much it is used.
    pub expires_at: DateTime<Utc>,
}

/// Somebody with a session.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    pub(super) session: Arc<Session>,
    pub(super) ip: IpAddr,
    pub(super) request_id: RequestId,
}

impl LoggedIn {
    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The user's id.
    pub fn user_id(&self) -> i64 {
        self.session.user_id
    }

    /// Where they call from.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// In which request.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }
}

/// The columns of [`Session`] and the condition that it goes on; the rest follows.
const GOING_ON: &str = "SELECT s.id, s.user_id, u.username, s.expires_at FROM sessions s \
    JOIN users u ON u.id = s.user_id \
    WHERE u.is_active = TRUE AND s.expires_at > $1 AND s.last_used_at > $2";

/// The session with this token, if it goes on at `now`.
pub async fn find(
    db: &Db,
    token: &str,
    limits: &SessionLimits,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<Session>> {
    let hash: Hash = secret::hash(token);
    let statement = query(db, GOING_ON).bind(now).bind(now - limits.idle);
    statement.push(" AND s.token_hash = ").push_bind(hash.to_vec()).optional().await
}

/// The session `id`, if it goes on at `now`.
pub async fn find_by_id(
    on: impl Into<On<'_>>,
    id: i64,
    limits: &SessionLimits,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<Session>> {
    let statement = query(on, GOING_ON).bind(now).bind(now - limits.idle);
    statement.push(" AND s.id = ").push_bind(id).optional().await
}

/// Fails with 401 when the session of `user` has ended since the request began.
pub async fn still_going_on(
    on: impl Into<On<'_>>,
    user: &LoggedIn,
    limits: &SessionLimits,
    now: DateTime<Utc>,
) -> Result<()> {
    let found = find_by_id(on, user.session.id, limits, now).await?;
    found.map(drop).ok_or(Error::Unauthenticated(ENDED))
}

/// When and from where sessions were used last: kept in memory, written in batches. Clones share
/// it.
#[derive(Clone, Debug, Default)]
pub struct SessionUses(Arc<DashMap<i64, (DateTime<Utc>, IpAddr)>>);

impl SessionUses {
    /// Remembers a use.
    pub fn note(&self, user: &LoggedIn, at: DateTime<Utc>) {
        self.0.insert(user.session.id, (at, user.ip));
    }

    /// The last use of session `id` that the database does not know of yet.
    pub fn last(&self, id: i64) -> Option<(DateTime<Utc>, IpAddr)> {
        self.0.get(&id).map(|used| *used)
    }

    /// Writes what waits. What could not be written waits on.
    pub async fn flush(&self, db: &Db) -> sqlx::Result<()> {
        let mut waiting: Vec<_> = self.0.iter().map(|entry| (*entry.key(), *entry)).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        // In one order everywhere: two processes that wrote in others could wait for each other.
        waiting.sort_unstable_by_key(|(id, _)| *id);
        for batch in waiting.chunks(BATCH) {
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

/// Sessions written in one transaction, so that other writers get their turn.
const BATCH: usize = 500;

/// The last use only ever goes forward.
async fn write(tx: &mut Tx, id: i64, at: DateTime<Utc>, ip: IpAddr) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE sessions SET last_used_at = $2, last_used_ip = $3 \
                       WHERE id = $1 AND last_used_at < $2";
    query(tx, SQL).bind(id).bind(at).bind(ip.to_string()).execute().await.map(drop)
}
