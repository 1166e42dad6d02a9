//! Fills in columns that a migration cannot compute, because SQLite and Postgres share no function
//! for them.

use super::handle::Db;
use super::query::query;
use super::transaction::Tx;
use crate::core::identity::{email_key, skeleton, username_key};
use crate::core::text::folded;
use sqlx::Result;

/// Rows updated per transaction.
const BATCH: i64 = 500;

/// Fills in `api_keys.name_key`, the folded name for searches, where a migration left it empty:
/// SQLite folds the case of ASCII only, and Postgres folds by its locale.
pub(super) async fn name_keys(db: &Db) -> Result<()> {
    const MISSING: &str = "SELECT id, name FROM api_keys WHERE name_key = '' ORDER BY id LIMIT $1";
    const FILL: &str = "UPDATE api_keys SET name_key = $3 WHERE id = $1 AND name = $2";
    loop {
        let keys: Vec<(i64, String)> = query(db, MISSING).bind(BATCH).all().await?;
        if keys.is_empty() {
            return Ok(());
        }
        let mut tx = db.begin().await?;
        for (id, name) in keys {
            let key = folded(&name);
            query(&mut tx, FILL).bind(id).bind(name).bind(key).execute().await?;
        }
        tx.commit().await?;
    }
}

/// Fills in the canonical usernames and emails that a migration or an earlier version left `NULL`.
/// Among users with the same canonical value, all but the first are marked as duplicates.
pub(super) async fn user_keys(db: &Db) -> Result<()> {
    const MISSING: &str = "SELECT id, username, email FROM users \
        WHERE username_canonical IS NULL OR email_canonical IS NULL ORDER BY id LIMIT $1";
    let mut duplicates = 0;
    loop {
        let users: Vec<(i64, String, String)> = query(db, MISSING).bind(BATCH).all().await?;
        if users.is_empty() {
            break;
        }
        let mut tx = db.begin().await?;
        for (id, username, email) in users {
            let found = fill_user(&mut tx, id, &username, &email).await?;
            duplicates += u32::from(found);
        }
        tx.commit().await?;
    }
    if duplicates > 0 {
        tracing::warn!(
            event = "users.duplicate_names",
            users = duplicates,
            "some usernames or emails differ only in spelling; see docs/USERS.md"
        );
    }
    Ok(())
}

/// Fills in one user's canonical values. Returns whether another user already has one of them.
async fn fill_user(tx: &mut Tx, id: i64, username: &str, email: &str) -> Result<bool> {
    const USERNAME: &str = "UPDATE users SET username_canonical = $2, username_skeleton = $3, \
        username_duplicate = CASE WHEN EXISTS (SELECT 1 FROM users o \
        WHERE o.username_canonical = $2 AND o.id <> $1) THEN id ELSE 0 END \
        WHERE id = $1 AND username = $4 AND username_canonical IS NULL RETURNING username_duplicate";
    const EMAIL: &str = "UPDATE users SET email_canonical = $2, email_duplicate = CASE WHEN EXISTS \
        (SELECT 1 FROM users o WHERE o.email_canonical = $2 AND o.id <> $1) THEN id ELSE 0 END \
        WHERE id = $1 AND email = $3 AND email_canonical IS NULL RETURNING email_duplicate";
    let statement = query(&mut *tx, USERNAME).bind(id).bind(username_key(username));
    let statement = statement.bind(skeleton(username)).bind(username);
    let by_name: Option<(i64,)> = statement.optional().await?;
    let statement = query(tx, EMAIL).bind(id).bind(email_key(email)).bind(email);
    let by_email: Option<(i64,)> = statement.optional().await?;
    Ok([by_name, by_email].into_iter().flatten().any(|(duplicate,)| duplicate != 0))
}
