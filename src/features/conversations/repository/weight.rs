//! How many bytes conversations and messages take, which the databases find without reading them.

use super::page::confined;
use super::{Placed, Selection};
use crate::core::clock::Timestamp;
use crate::db::{On, from_json, query};
use serde::Deserialize;
use sqlx::Result;

/// The bytes a message takes in an answer; 320 stands for all but its content and metadata.
macro_rules! size {
    () => {
        "octet_length(m.content) + COALESCE(octet_length(m.metadata), 0) + 320"
    };
}
pub(in crate::features::conversations) use size;

/// About the bytes that conversation `c` takes without its messages: 512 for what is always there,
/// and 256 for each participant.
macro_rules! weight {
    () => {
        "COALESCE(octet_length(c.title), 0) + COALESCE(octet_length(c.metadata), 0) + 512 \
         + 256 * (SELECT COUNT(*) FROM participants n WHERE n.conversation_id = c.id)"
    };
}
pub(super) use weight;

/// A conversation of a page that is too large to be read at once.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Weighed {
    pub id: i64,
    pub active_at: Timestamp,
    /// About the bytes it takes in an answer.
    pub bytes: i64,
}

impl Placed for Weighed {
    fn place(&self) -> (Timestamp, i64) {
        (self.active_at, self.id)
    }
}

/// Weighs the conversations selected, each with its newest `each` messages; in the order in which
/// their list is read.
pub async fn weigh(
    on: impl Into<On<'_>>,
    selection: Selection<'_>,
    each: i64,
) -> Result<Vec<Weighed>> {
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
    let mut weighed: Vec<Weighed> = from_json(&rows)?;
    if let Selection::Listed { slice, .. } = selection {
        slice.sort(&mut weighed);
    }
    Ok(weighed)
}

/// The first of the newest `each` messages of conversation `id`, up to number `last`, that fit into
/// `bytes` as JSON together with all after it, and the bytes these take. `None` where none fits.
pub async fn first_that_fits(
    on: impl Into<On<'_>>,
    id: i64,
    last: i64,
    each: i64,
    bytes: i64,
) -> Result<Option<(i64, i64)>> {
    // Weighed twice: only those that fit unescaped are read to be weighed as JSON.
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
