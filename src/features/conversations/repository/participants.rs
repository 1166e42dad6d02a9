//! SQL for participants of conversations.

use super::visibility::visible;
use crate::db::{Executor, Tx, query};
use crate::features::conversations::model::Participant;
use crate::http::Slice;
use crate::security::Visibility;
use sqlx::Result;
use std::collections::{HashMap, HashSet};

#[derive(sqlx::FromRow)]
struct ParticipantRow {
    id: i64,
    username: String,
    email: String,
}

/// The participants of conversation `id` among `user_ids`, by user id, as shown to a caller with
/// this `visibility`.
pub async fn find_all(
    on: impl Into<Executor<'_>>,
    id: i64,
    user_ids: &HashSet<i64>,
    visibility: Visibility,
) -> Result<HashMap<i64, Participant<'static>>> {
    const SQL: &str = "SELECT u.id, u.username, u.email FROM participants p \
         JOIN users u ON u.id = p.user_id WHERE p.conversation_id = $1 AND p.user_id IN (";
    if user_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let mut statement = query(on, SQL).bind(id);
    for (index, user_id) in user_ids.iter().enumerate() {
        statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(*user_id);
    }
    let rows: Vec<ParticipantRow> = statement.push(")").all().await?;
    let seen = |row: ParticipantRow| {
        (row.id, Participant::visible_to(visibility, row.id, row.username, row.email))
    };
    Ok(rows.into_iter().map(seen).collect())
}

/// A page of the participants of conversation `id`, sorted by id, as shown to a caller with this
/// `visibility`. Empty if the conversation is not visible.
pub async fn list(
    on: impl Into<Executor<'_>>,
    id: i64,
    visibility: Visibility,
    slice: &Slice<i64>,
) -> Result<Vec<Participant<'static>>> {
    const SQL: &str = concat!(
        "SELECT u.id, u.username, u.email FROM participants p JOIN users u ON u.id = p.user_id \
         WHERE p.conversation_id = $1 AND ",
        visible!("$1", "$2")
    );
    let statement = query(on, SQL).bind(id).bind(visibility.user_id());
    let rows: Vec<ParticipantRow> = slice.cut(statement, &["p.user_id"]).all().await?;
    let seen =
        |row: ParticipantRow| Participant::visible_to(visibility, row.id, row.username, row.email);
    Ok(rows.into_iter().map(seen).collect())
}

/// Number of participants of conversation `id`.
pub async fn count(on: impl Into<Executor<'_>>, id: i64) -> Result<i64> {
    const SQL: &str = "SELECT COUNT(*) FROM participants WHERE conversation_id = $1";
    let (count,): (i64,) = query(on, SQL).bind(id).one().await?;
    Ok(count)
}

/// Adds the existing users among `user_ids` as participants of conversation `id`. Returns the ids
/// of the users added, without those who were participants already.
pub async fn insert(tx: &mut Tx, id: i64, user_ids: &[i64]) -> Result<Vec<i64>> {
    const SQL: &str = "INSERT INTO participants (conversation_id, user_id) \
         SELECT c.id, u.id FROM conversations c CROSS JOIN users u WHERE c.id = $1 AND u.id IN (";
    if user_ids.is_empty() {
        return Ok(vec![]);
    }
    let mut statement = query(tx, SQL).bind(id);
    for (index, user_id) in user_ids.iter().enumerate() {
        statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(*user_id);
    }
    let rows: Vec<(i64,)> =
        statement.push(") ON CONFLICT DO NOTHING RETURNING user_id").all().await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Removes a participant. Returns whether the user was one.
pub async fn delete(tx: &mut Tx, id: i64, user_id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2";
    Ok(query(tx, SQL).bind(id).bind(user_id).execute().await? == 1)
}

/// Returns whether user `id` exists.
pub async fn user_exists(on: impl Into<Executor<'_>>, id: i64) -> Result<bool> {
    const SQL: &str = "SELECT id FROM users WHERE id = $1";
    Ok(query(on, SQL).bind(id).optional::<(i64,)>().await?.is_some())
}
