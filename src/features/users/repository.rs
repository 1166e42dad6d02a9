//! SQL statements for users.

use super::model::{NewUser, PublicUser, User, UserChanges};
use crate::core::identity::{email_key, skeleton, skeletons, username_key};
use crate::core::text::folded;
use crate::db::{Executor, NameKeys, TableChecks, TimeColumns, Tx, query};
use crate::http::Slice;
use chrono::{DateTime, Utc};
use sqlx::Result;

/// The checks of `octopus verify`.
pub const CHECKS: TableChecks = TableChecks {
    id_tables: &["users", "sessions"],
    name_keys: &[NameKeys {
        row_kind: "user",
        sql: "SELECT id, email, email_key, username, username_key FROM users \
              WHERE id > $1 ORDER BY id LIMIT $2",
    }],
    times: &[
        TimeColumns {
            table: "users",
            row_kind: "user",
            columns: &["created_at", "updated_at", "email_since", "username_since"],
        },
        TimeColumns {
            table: "sessions",
            row_kind: "session",
            columns: &["created_at", "last_used_at", "expires_at"],
        },
    ],
    ..TableChecks::NONE
};

/// The columns of [`User`].
macro_rules! columns {
    () => {
        "id, email, username, full_name, is_active, is_superuser, created_at, updated_at"
    };
}

/// A user with the password hash, for password checks.
#[derive(sqlx::FromRow)]
pub struct Credentials {
    pub id: i64,
    pub email: String,
    pub username: String,
    pub full_name: Option<String>,
    pub password_hash: String,
    pub is_active: bool,
}

/// The columns of [`Credentials`].
macro_rules! credentials {
    () => {
        "id, email, username, full_name, password_hash, is_active"
    };
}

/// Selects the user with a name: a match of the case-folded name first, then a match of the
/// canonical key. Names that are older than canonical keys may share a key: of these users, the
/// oldest.
macro_rules! named {
    ($columns:expr, $name:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM users WHERE ",
            $name,
            "_key = $1 OR ",
            $name,
            "_canonical = $2 ORDER BY CASE WHEN ",
            $name,
            "_key = $1 THEN 0 ELSE 1 END, ",
            $name,
            "_duplicate LIMIT 1"
        )
    };
}

/// Inserts a user. Returns `None` if the email or username is taken.
pub async fn insert(
    tx: &mut Tx,
    new: &NewUser,
    password_hash: &str,
    now: DateTime<Utc>,
) -> Result<Option<User>> {
    const SQL: &str = concat!(
        "INSERT INTO users (email, email_key, email_canonical, username, username_key, \
         username_canonical, username_skeleton, full_name, password_hash, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10) ON CONFLICT DO NOTHING RETURNING ",
        columns!()
    );
    query(tx, SQL)
        .bind(&*new.email)
        .bind(folded(&new.email))
        .bind(email_key(&new.email))
        .bind(&*new.username)
        .bind(folded(&new.username))
        .bind(username_key(&new.username))
        .bind(skeleton(&new.username))
        .bind(new.full_name.as_deref())
        .bind(password_hash)
        .bind(now)
        .optional()
        .await
}

/// Returns whether a user other than `except` has the email or username, in any spelling.
pub async fn is_taken(
    on: impl Into<Executor<'_>>,
    email: Option<&str>,
    username: Option<&str>,
    except: Option<i64>,
) -> Result<bool> {
    const SQL: &str = "SELECT id FROM users WHERE (email_key = $1 OR email_canonical = $2 \
        OR username_key = $3 OR username_canonical = $4) AND id <> $5 LIMIT 1";
    let statement = query(on, SQL).bind(email.map(folded)).bind(email.map(email_key));
    let statement = statement.bind(username.map(folded)).bind(username.map(username_key));
    let found = statement.bind(except.unwrap_or_default()).optional::<(i64,)>();
    Ok(found.await?.is_some())
}

/// Returns whether a user other than `except` has a username that looks like `username`. Two ASCII
/// names never count as look-alikes, although UTS 39 treats `l` and `1` as such.
pub async fn has_lookalike(
    on: impl Into<Executor<'_>>,
    username: &str,
    except: Option<i64>,
) -> Result<bool> {
    const SQL: &str = "SELECT id FROM users WHERE username_skeleton IN ($1, $2) AND id <> $3 \
        AND ($4 = TRUE OR octet_length(username_canonical) <> length(username_canonical)) LIMIT 1";
    let [one, other] = skeletons(username);
    let statement = query(on, SQL).bind(one).bind(other).bind(except.unwrap_or_default());
    let found = statement.bind(!username.is_ascii()).optional::<(i64,)>();
    Ok(found.await?.is_some())
}

/// Lists users by id.
pub async fn list(on: impl Into<Executor<'_>>, slice: &Slice<i64>) -> Result<Vec<PublicUser>> {
    const SQL: &str = "SELECT id, username, full_name, created_at FROM users WHERE TRUE";
    slice.cut(query(on, SQL), &["id"]).all().await
}

pub async fn find(on: impl Into<Executor<'_>>, id: i64) -> Result<Option<User>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM users WHERE id = $1");
    query(on, SQL).bind(id).optional().await
}

/// Locks user `id` until `tx` ends, so that checks against the returned row remain valid.
pub async fn lock(tx: &mut Tx, id: i64) -> Result<Option<User>> {
    const SQL: &str =
        concat!("UPDATE users SET updated_at = updated_at WHERE id = $1 RETURNING ", columns!());
    query(tx, SQL).bind(id).optional().await
}

pub async fn find_by_username(
    on: impl Into<Executor<'_>>,
    username: &str,
) -> Result<Option<PublicUser>> {
    const SQL: &str = named!("id, username, full_name, created_at", "username");
    query(on, SQL).bind(folded(username)).bind(username_key(username)).optional().await
}

pub async fn find_credentials(on: impl Into<Executor<'_>>, id: i64) -> Result<Option<Credentials>> {
    const SQL: &str = concat!("SELECT ", credentials!(), " FROM users WHERE id = $1");
    query(on, SQL).bind(id).optional().await
}

/// Finds a user by case-folded email, or by its canonical key.
pub async fn find_by_email_key(
    on: impl Into<Executor<'_>>,
    folded: &str,
    key: &str,
) -> Result<Option<Credentials>> {
    const SQL: &str = named!(credentials!(), "email");
    query(on, SQL).bind(folded).bind(key).optional().await
}

/// Finds a user by case-folded username, or by its canonical key.
pub async fn find_by_username_key(
    on: impl Into<Executor<'_>>,
    folded: &str,
    key: &str,
) -> Result<Option<Credentials>> {
    const SQL: &str = named!(credentials!(), "username");
    query(on, SQL).bind(folded).bind(key).optional().await
}

/// Replaces the password hash `checked` with `renewed` and locks the user until `tx` ends. Returns
/// `None` if the user is inactive or the hash is no longer `checked`.
pub async fn confirm(tx: &mut Tx, id: i64, checked: &str, renewed: &str) -> Result<Option<User>> {
    const SQL: &str = concat!(
        "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2 AND is_active = TRUE RETURNING ",
        columns!()
    );
    query(tx, SQL).bind(id).bind(checked).bind(renewed).optional().await
}

pub async fn set_password(tx: &mut Tx, id: i64, hash: &str, now: DateTime<Utc>) -> Result<()> {
    const SQL: &str = "UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1";
    query(tx, SQL).bind(id).bind(hash).bind(now).execute().await.map(drop)
}

/// Updates a user. Returns `None` if the user does not exist.
pub async fn update(
    tx: &mut Tx,
    id: i64,
    changes: &UserChanges,
    password_hash: Option<String>,
    now: DateTime<Utc>,
) -> Result<Option<User>> {
    let mut statement = query(tx, "UPDATE users SET updated_at = $1").bind(now);
    if let Some(email) = &changes.email {
        statement = statement.push(", email = ").push_bind(&**email);
        statement = statement.push(", email_key = ").push_bind(folded(email));
        statement = statement.push(", email_canonical = ").push_bind(email_key(email));
        statement = statement.push(", email_duplicate = 0, email_since = ").push_bind(now);
    }
    if let Some(username) = &changes.username {
        statement = statement.push(", username = ").push_bind(&**username);
        statement = statement.push(", username_key = ").push_bind(folded(username));
        statement = statement.push(", username_canonical = ").push_bind(username_key(username));
        statement = statement.push(", username_skeleton = ").push_bind(skeleton(username));
        statement = statement.push(", username_duplicate = 0, username_since = ").push_bind(now);
    }
    if let Some(full_name) = &changes.full_name {
        statement = statement.push(", full_name = ").push_bind(full_name.as_deref());
    }
    if let Some(hash) = password_hash {
        statement = statement.push(", password_hash = ").push_bind(hash);
    }
    if let Some(is_active) = changes.is_active {
        statement = statement.push(", is_active = ").push_bind(is_active);
    }
    let returning = concat!(" RETURNING ", columns!());
    statement.push(" WHERE id = ").push_bind(id).push(returning).optional().await
}

/// Locks the conversations of a user by id, before the user is deleted, and sets their `updated_at`
/// to `now`. Without this, the deletion could deadlock with an append, which locks the conversation
/// and waits for the user. Returns the conversation ids.
pub async fn lock_conversations(tx: &mut Tx, user_id: i64, now: DateTime<Utc>) -> Result<Vec<i64>> {
    const FIND: &str =
        "SELECT conversation_id FROM participants WHERE user_id = $1 ORDER BY conversation_id";
    const LOCK: &str = "UPDATE conversations SET updated_at = $2 WHERE id = $1";
    let ids: Vec<(i64,)> = query(&mut *tx, FIND).bind(user_id).all().await?;
    for (id,) in &ids {
        query(&mut *tx, LOCK).bind(*id).bind(now).execute().await?;
    }
    Ok(ids.into_iter().map(|(id,)| id).collect())
}

/// Deletes user `id`. Returns whether the user existed.
pub async fn delete(tx: &mut Tx, id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM users WHERE id = $1";
    Ok(query(tx, SQL).bind(id).execute().await? == 1)
}

/// The id of the user who released the username with this key after `since`.
pub async fn released_by(
    on: impl Into<Executor<'_>>,
    key: &str,
    since: DateTime<Utc>,
) -> Result<Option<i64>> {
    const SQL: &str =
        "SELECT user_id FROM released_usernames WHERE username_canonical = $1 AND released_at > $2";
    let found = query(on, SQL).bind(key).bind(since).optional::<(i64,)>();
    Ok(found.await?.map(|(id,)| id))
}

/// Number of usernames that user `id` released after `since`.
pub async fn count_released(
    on: impl Into<Executor<'_>>,
    id: i64,
    since: DateTime<Utc>,
) -> Result<i64> {
    const SQL: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM released_usernames \
        WHERE user_id = $1 AND released_at > $2";
    let (count,): (i64,) = query(on, SQL).bind(id).bind(since).one().await?;
    Ok(count)
}

/// Records that user `id` released the username with this key.
pub async fn release(tx: &mut Tx, key: &str, id: i64, now: DateTime<Utc>) -> Result<()> {
    const SQL: &str = "INSERT INTO released_usernames (username_canonical, user_id, released_at) \
        VALUES ($1, $2, $3) ON CONFLICT (username_canonical) DO UPDATE SET \
        user_id = excluded.user_id, released_at = excluded.released_at";
    query(tx, SQL).bind(key).bind(id).bind(now).execute().await.map(drop)
}

/// Deletes the record that the username with this key was released.
pub async fn delete_reservation(tx: &mut Tx, key: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM released_usernames WHERE username_canonical = $1";
    query(tx, SQL).bind(key).execute().await.map(drop)
}

/// Deletes records of usernames released before `end`.
pub async fn delete_expired_reservations(tx: &mut Tx, end: DateTime<Utc>) -> Result<()> {
    const SQL: &str = "DELETE FROM released_usernames WHERE released_at <= $1";
    query(tx, SQL).bind(end).execute().await.map(drop)
}
