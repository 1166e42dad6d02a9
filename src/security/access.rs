//! Row-level access on routes that API keys and signed-in users share.

use super::actor::Actor;
use super::session::SignedIn;

/// Row-level visibility: the conversations a caller may read and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Every conversation.
    All,
    /// The conversations this user participates in. Others are reported as not found.
    ParticipantOf(i64),
}

impl Visibility {
    /// The user the visibility is restricted to; `None` means no restriction. Bound in SQL
    /// statements.
    pub fn user_id(self) -> Option<i64> {
        match self {
            Self::All => None,
            Self::ParticipantOf(user_id) => Some(user_id),
        }
    }
}

/// The caller of a route that API keys and signed-in users share.
#[derive(Clone, Debug)]
pub enum Access {
    /// A caller with an API key that has the required scope.
    Key(Actor),
    /// A signed-in user.
    User(SignedIn),
}

impl Access {
    /// The row-level visibility of the caller.
    pub fn visibility(&self) -> Visibility {
        match self {
            Self::Key(_) => Visibility::All,
            Self::User(user) => Visibility::ParticipantOf(user.user_id()),
        }
    }

    /// The identity that idempotency records are stored under. A user has the same one in all
    /// sessions, so that a client can retry a request after it signed in again.
    pub fn credential(&self) -> String {
        match self {
            Self::Key(actor) => actor.credential(),
            Self::User(user) => format!("user:{}", user.user_id()),
        }
    }
}
