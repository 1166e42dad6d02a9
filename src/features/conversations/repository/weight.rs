//! Measures conversations and messages. The databases do it without reading the texts.

use super::page::confined;
use super::selection::{Placed, Selection};
use super::size_sql::{size, weight};
use crate::core::stored_time::StoredTime;
use crate::db::{Executor, from_json, query};
use serde::Deserialize;
use sqlx::Result;

/// A conversation and its size, for a page that is too large for one statement.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct MeasuredConversation {
    pub id: i64,
    pub active_at: StoredTime,
    /// Approximate size in a response.
    pub bytes: i64,
}

impl Placed for MeasuredConversation {
    fn place(&self) -> (StoredTime, i64) {
        (self.active_at, self.id)
    }
}

/// Computes the sizes of the selected conversations, each with its newest `each` messages. The
/// result is in scan order of the list.
pub async fn measure(
    on: impl Into<Executor<'_>>,
    selection: Selection<'_>,
    each: i64,
) -> Result<Vec<MeasuredConversation>> {
    const COLUMNS: &str = "w.id, w.active_at, w.bytes";
    const HEADS: &str = concat!(" FROM (SELECT c.id AS id, c.active_at AS active_at, ", weight!());
    const MESSAGES: &str = concat!(
        " + (SELECT COALESCE(SUM(",
        size!(),
        "), 0) FROM messages m WHERE m.conversation_id = c.id AND m.seq > c.last_seq - "
    );
    let statement = confined(on, selection).push("SELECT ").push_json_of_rows(COLUMNS);
    let statement = statement.push(HEADS).push(MESSAGES).push_bind(each);
    let (rows,): (String,) = statement.push(") AS bytes FROM c) AS w").one().await?;
    let mut measured: Vec<MeasuredConversation> = from_json(&rows)?;
    if let Selection::Page { slice, .. } = selection {
        slice.sort(&mut measured);
    }
    Ok(measured)
}

/// Finds how many of the newest `each` messages of conversation `id`, up to `seq` `last`, fit into
/// `bytes` as JSON. Returns the `seq` of the oldest that fits and the total size. `None` if none
/// fits.
pub async fn first_that_fits(
    on: impl Into<Executor<'_>>,
    id: i64,
    last: i64,
    each: i64,
    bytes: i64,
) -> Result<Option<(i64, i64)>> {
    // In two steps: only messages that fit unescaped are read and measured as JSON.
    const UNESCAPED: &str = concat!(
        "WITH few AS MATERIALIZED (SELECT m.id AS id, SUM(",
        size!(),
        ") OVER (ORDER BY m.seq DESC) AS total FROM messages m \
         WHERE m.conversation_id = $1 AND m.seq > $2 AND m.seq <= $3) \
         SELECT MIN(w.seq), MAX(w.total) FROM (SELECT m.seq AS seq, SUM("
    );
    const SQLITE: &str = "octet_length(json_quote(m.content))";
    const POSTGRES: &str = "octet_length(CAST(to_json(m.content) AS TEXT))";
    const JSON: &str = " + COALESCE(octet_length(m.metadata), 0) + 320) \
        OVER (ORDER BY m.seq DESC) AS total FROM few CROSS JOIN messages m \
        WHERE m.id = few.id AND few.total <= $4) AS w WHERE w.total <= $4";
    let statement = query(on, UNESCAPED).push_either(SQLITE, POSTGRES).push(JSON);
    let statement = statement.bind(id).bind(last.saturating_sub(each)).bind(last).bind(bytes);
    let (first, total): (Option<i64>, Option<i64>) = statement.one().await?;
    Ok(first.zip(total))
}
