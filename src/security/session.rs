//! Sessions of signed-in users.

use crate::core::clock::Timestamp;
use crate::http::RequestId;
use chrono::{DateTime, Utc};
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
    #[sqlx(try_from = "Timestamp")]
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
