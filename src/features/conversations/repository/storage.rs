//! SQL for what users store.

use crate::db::{On, Tx, query};
use sqlx::Result;

/// What a user stores, as far as it was counted.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Stored {
    /// Bytes of texts and metadata.
    pub bytes: i64,
    /// Conversations they created.
    pub conversations: i64,
}

/// Adds to what user `user_id` stores in conversation `id`: never less than nothing, as what was
/// written before it was counted may be taken away.
pub async fn add(tx: &mut Tx, user_id: i64, id: i64, bytes: i64, has_created: bool) -> Result<()> {
    const SQL: &str = "INSERT INTO user_storage (user_id, conversation_id, bytes, has_created) \
        VALUES ($1, $2, CASE WHEN $3 > 0 THEN $3 ELSE 0 END, $4) \
        ON CONFLICT (user_id, conversation_id) DO UPDATE SET bytes = \
        CASE WHEN user_storage.bytes + $3 > 0 THEN user_storage.bytes + $3 ELSE 0 END";
    let statement = query(tx, SQL).bind(user_id).bind(id).bind(bytes).bind(has_created);
    statement.execute().await.map(drop)
}

/// What user `user_id` stores: it adds up one row for each conversation they wrote in.
pub async fn of_user(on: impl Into<On<'_>>, user_id: i64) -> Result<Stored> {
    const SQL: &str = "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS bytes, \
        CAST(COALESCE(SUM(CASE WHEN has_created THEN 1 ELSE 0 END), 0) AS BIGINT) AS conversations \
        FROM user_storage WHERE user_id = $1";
    query(on, SQL).bind(user_id).one().await
}
