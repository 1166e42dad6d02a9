//! SQL for who takes part in conversations.

use super::within_reach;
use crate::db::{On, Tx, query};
use crate::features::conversations::model::Participant;
use crate::http::Slice;
use crate::security::Reach;
use sqlx::Result;
use std::collections::{HashMap, HashSet};

#[derive(sqlx::FromRow)]
struct ParticipantRow {
    id: i64,
    username: String,
    email: String,
}

/// Those of `user_ids` who take part in conversation `id`, by their ids, as a caller with this `reach`
/// sees them.
pub async fn find_all(
    on: impl Into<On<'_>>,
    id: i64,
    user_ids: &HashSet<i64>,
    reach: Reach,
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
        (row.id, Participant::seen_by(reach, row.id, row.username, row.email))
    };
    Ok(rows.into_iter().map(seen).collect())
}

/// A part of the participants of conversation `id`, by id, as a caller with this `reach` sees them; none
/// if it is not within `reach`.
pub async fn list(
    on: impl Into<On<'_>>,
    id: i64,
    reach: Reach,
    slice: &Slice<i64>,
) -> Result<Vec<Participant<'static>>> {
    const SQL: &str = concat!(
        "SELECT u.id, u.username, u.email FROM participants p JOIN users u ON u.id = p.user_id \
         WHERE p.conversation_id = $1 AND ",
        within_reach!("$1", "$2")
    );
    let statement = query(on, SQL).bind(id).bind(reach.user_id());
    let rows: Vec<ParticipantRow> = slice.cut(statement, &["p.user_id"]).all().await?;
    let seen = |row: ParticipantRow| Participant::seen_by(reach, row.id, row.username, row.email);
    Ok(rows.into_iter().map(seen).collect())
}

/// How many participants conversation `id` has.
pub async fn count(on: impl Into<On<'_>>, id: i64) -> Result<i64> {
    const SQL: &str = "SELECT COUNT(*) FROM participants WHERE conversation_id = $1";
    let (count,): (i64,) = query(on, SQL).bind(id).one().await?;
    Ok(count)
}

/// Those of `user_ids` who exist take part in conversation `id` from now on; the ids of those added.
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

/// Whether the user took part.
pub async fn delete(tx: &mut Tx, id: i64, user_id: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2";
    Ok(query(tx, SQL).bind(id).bind(user_id).execute().await? == 1)
}

pub async fn user_exists(on: impl Into<On<'_>>, id: i64) -> Result<bool> {
    const SQL: &str = "SELECT id FROM users WHERE id = $1";
    Ok(query(on, SQL).bind(id).optional::<(i64,)>().await?.is_some())
}
