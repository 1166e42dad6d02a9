//! Username rules that depend on other users: look-alikes and recently released names.

use super::model::User;
use super::repository;
use crate::core::error::{Error, Result};
use crate::core::identity::username_key;
use crate::db::Tx;
use chrono::{DateTime, TimeDelta, Utc};

/// How long a released username is reserved for its former owner, so that another user does not
/// receive what is meant for that owner.
const RESERVED_FOR: TimeDelta = TimeDelta::days(30);
/// Maximum number of released usernames reserved for one user, so that an account cannot reserve
/// any number of names.
const MAX_RESERVED: i64 = 10;

/// Checks the username of `user`, which has been written. Fails with 400 if it looks like another
/// user's username, or if another user released it less than 30 days ago. Call this after the
/// write, because the write waits for a transaction that releases the name.
pub(super) async fn check_available(tx: &mut Tx, user: &User, now: DateTime<Utc>) -> Result<()> {
    if repository::has_lookalike(&mut *tx, &user.username, Some(user.id)).await? {
        let sentence = "The username looks like that of another user: choose another";
        return Err(Error::Refused(sentence.into()));
    }
    let key = username_key(&user.username);
    let released_by = repository::released_by(&mut *tx, &key, now - RESERVED_FOR).await?;
    if released_by.is_some_and(|id| id != user.id) {
        let sentence = "This username was released less than 30 days ago: choose another";
        return Err(Error::Refused(sentence.into()));
    }
    Ok(repository::delete_reservation(tx, &key).await?)
}

/// Reserves the username that a user had `before`, if it has changed. Fails with 400 if the user
/// released too many usernames within 30 days.
pub(super) async fn release(
    tx: &mut Tx,
    before: &User,
    after: &User,
    now: DateTime<Utc>,
) -> Result<()> {
    if username_key(&before.username) == username_key(&after.username) {
        return Ok(());
    }
    if repository::count_released(&mut *tx, before.id, now - RESERVED_FOR).await? >= MAX_RESERVED {
        let sentence = format!(
            "This user released {MAX_RESERVED} usernames within 30 days: take one of them back, or \
             wait"
        );
        return Err(Error::Refused(sentence.into()));
    }
    reserve(tx, before, now).await
}

/// Reserves the username of `user`.
pub(super) async fn reserve(tx: &mut Tx, user: &User, now: DateTime<Utc>) -> Result<()> {
    Ok(repository::release(tx, &username_key(&user.username), user.id, now).await?)
}

/// Deletes expired username reservations.
pub(super) async fn forget_old(tx: &mut Tx, now: DateTime<Utc>) -> Result<()> {
    Ok(repository::delete_expired_reservations(tx, now - RESERVED_FOR).await?)
}
