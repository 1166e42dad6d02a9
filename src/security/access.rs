//! What a caller of routes that keys and people share may reach.

use super::{Actor, LoggedIn};

/// Whose things somebody may see and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everybody's.
    Everything,
    /// Those this user takes part in, and no others: to them the others do not exist.
    OwnOf(i64),
}

impl Reach {
    /// The user it is confined to; `None` is no bound. Statements take it as a bind.
    pub fn user_id(self) -> Option<i64> {
        match self {
            Self::Everything => None,
            Self::OwnOf(user_id) => Some(user_id),
        }
    }
}

/// Somebody who calls a route that keys and people share.
#[derive(Clone, Debug)]
pub enum Access {
    /// The holder of a key with the scope.
    Key(Actor),
    /// Somebody logged in.
    User(LoggedIn),
}

impl Access {
    /// Whose things they may see and change.
    pub fn reach(&self) -> Reach {
        match self {
            Self::Key(_) => Reach::Everything,
            Self::User(user) => Reach::OwnOf(user.user_id()),
        }
    }

    /// Whose `Idempotency-Key`s are told apart from others': a person's are the same in all of
    /// their sessions, so that an app that had to log in again may repeat what it sent before.
    pub fn credential(&self) -> String {
        match self {
            Self::Key(actor) => actor.credential(),
            Self::User(user) => format!("user:{}", user.user_id()),
        }
    }
}
