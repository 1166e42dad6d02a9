//! The rules of usernames that depend on other users.

use super::model::User;
use super::repository;
use crate::core::error::{Error, Result};
use crate::core::identity::username_key;
use crate::db::Tx;
use chrono::{DateTime, TimeDelta, Utc};

/// How long a username that was given up is kept from others, so that they do not receive what is
/// meant for its former user.
const HELD: TimeDelta = TimeDelta::days(30);
/// Most usernames that are kept for one user: otherwise one account could reserve any number.
const MAX_HELD: i64 = 10;

/// Fails unless `user`, who has been written, may have their username: it must not look like
/// another's, and must not have been given up by another a short time ago. Called after the write,
/// which waits for a transaction that gives the name up.
pub(super) async fn take(tx: &mut Tx, user: &User, now: DateTime<Utc>) -> Result<()> {
    if repository::has_lookalike(&mut *tx, &user.username, Some(user.id)).await? {
        let sentence = "The username looks like that of another user: choose another";
        return Err(Error::Refused(sentence.into()));
    }
    let key = username_key(&user.username);
    let held_by = repository::released_by(&mut *tx, &key, now - HELD).await?;
    if held_by.is_some_and(|id| id != user.id) {
        let sentence = "The username was given up less than 30 days ago: choose another";
        return Err(Error::Refused(sentence.into()));
    }
    Ok(repository::unrelease(tx, &key).await?)
}

/// Notes that a user gave up the username they had `before`, unless it is the same one still. Fails
/// where they gave up too many within 30 days.
pub(super) async fn release(
    tx: &mut Tx,
    before: &User,
    after: &User,
    now: DateTime<Utc>,
) -> Result<()> {
    if username_key(&before.username) == username_key(&after.username) {
        return Ok(());
    }
    if repository::count_released(&mut *tx, before.id, now - HELD).await? >= MAX_HELD {
        let sentence = format!(
            "{MAX_HELD} usernames of this user were given up within 30 days: take one of them back, \
             or wait"
        );
        return Err(Error::Refused(sentence.into()));
    }
    give_up(tx, before, now).await
}

/// Notes that `user` gave up their username.
pub(super) async fn give_up(tx: &mut Tx, user: &User, now: DateTime<Utc>) -> Result<()> {
    Ok(repository::release(tx, &username_key(&user.username), user.id, now).await?)
}

/// Forgets usernames that anybody may take again.
pub(super) async fn forget_old(tx: &mut Tx, now: DateTime<Utc>) -> Result<()> {
    Ok(repository::forget_released(tx, now - HELD).await?)
}
