//! SQL for the storage used by each user.

use crate::db::{Executor, Tx, query};
use sqlx::Result;

/// The counted storage of a user.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Stored {
    /// Bytes of texts and metadata.
    pub bytes: i64,
    /// Number of conversations the user created.
    pub conversations: i64,
}

/// Adds `bytes` to the storage of user `user_id` in conversation `id`. The sum is at least 0,
/// because data written before counting began can be deleted later.
pub async fn add(tx: &mut Tx, user_id: i64, id: i64, bytes: i64, has_created: bool) -> Result<()> {
    const SQL: &str = "INSERT INTO user_storage (user_id, conversation_id, bytes, has_created) \
        VALUES ($1, $2, CASE WHEN $3 > 0 THEN $3 ELSE 0 END, $4) \
        ON CONFLICT (user_id, conversation_id) DO UPDATE SET bytes = \
        CASE WHEN user_storage.bytes + $3 > 0 THEN user_storage.bytes + $3 ELSE 0 END";
    let statement = query(tx, SQL).bind(user_id).bind(id).bind(bytes).bind(has_created);
    statement.execute().await.map(drop)
}

/// Total storage of user `user_id`: the sum of one row for each conversation they wrote to.
pub async fn of_user(on: impl Into<Executor<'_>>, user_id: i64) -> Result<Stored> {
    const SQL: &str = "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS bytes, \
        CAST(COALESCE(SUM(CASE WHEN has_created THEN 1 ELSE 0 END), 0) AS BIGINT) AS conversations \
        FROM user_storage WHERE user_id = $1";
    query(on, SQL).bind(user_id).one().await
}
