//! SQL for search, and nothing else. The indexes differ, and so do the statements that use them.

use super::index::Part;
use super::phrases::Phrases;
use super::words::{Words, written};
use crate::core::clock::Timestamp;
use crate::db::{Db, On, Query, Snapshot, Tx, query};
use crate::features::conversations::repository::within_reach;
use crate::security::Reach;
use sqlx::Result;
use std::ops::Range;

/// Messages read in one statement.
pub const CONTENTS: usize = 100;
/// Messages shown in one statement: each may have 400,000 bytes.
pub const SHOWN: usize = 10;
/// Beginnings in the index of SQLite that a short word may stand for.
const TERMS: usize = 200;
/// Short words that a statement of SQLite compares, each in time linear in the message.
const OTHERS: usize = 4;

/// Where to search.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// In this conversation; `None` is in all.
    pub conversation_id: Option<i64>,
    /// Of those within this reach.
    pub reach: Reach,
}

/// A message that may be read, and its size.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Candidate {
    pub id: i64,
    pub bytes: i64,
}

/// The next batch for SQLite's index: messages up to and including `id`.
#[derive(Clone, Copy, Debug)]
pub struct Next {
    pub part: Part,
    pub id: i64,
}

/// A message that was found.
#[derive(sqlx::FromRow)]
pub struct HitRow {
    pub id: i64,
    pub conversation_id: i64,
    pub title: Option<String>,
    pub seq: i64,
    pub role: String,
    pub content: String,
    pub user_id: Option<i64>,
    pub username: Option<String>,
    pub email: Option<String>,
    pub created_at: Timestamp,
    pub edited_at: Option<Timestamp>,
}

/// The newest messages in `scope`, at most `limit`, the newest first.
pub async fn newest(on: impl Into<On<'_>>, scope: Scope, limit: i64) -> Result<Vec<Candidate>> {
    const OF_ALL: &str = "SELECT m.id, CAST(octet_length(m.content) AS BIGINT) AS bytes \
         FROM messages m WHERE m.deleted_at IS NULL AND m.conversation_id NOT IN \
         (SELECT gone.id FROM conversations gone WHERE gone.retired_at IS NOT NULL) \
         ORDER BY m.id DESC LIMIT $1";
    const OF_ONE: &str = concat!(
        "SELECT m.id, CAST(octet_length(m.content) AS BIGINT) AS bytes FROM messages m \
         WHERE m.conversation_id = $1 AND m.deleted_at IS NULL AND ",
        within_reach!("m.conversation_id", "$2"),
        " ORDER BY m.seq DESC LIMIT $3"
    );
    // What was deleted says nothing, and so is not found; left out here, it would look as if there
    // were no more than the limit. Of no conversation more than that, and of all of them, first the ids: those an index has.
    const OF_USER: &str = "WITH newest AS (SELECT m.id FROM participants p \
         JOIN conversations c ON c.id = p.conversation_id \
         JOIN messages m ON m.conversation_id = c.id AND m.seq > c.last_seq - $2 \
         WHERE p.user_id = $1 ORDER BY m.id DESC LIMIT $2) \
         SELECT m.id, CAST(octet_length(m.content) AS BIGINT) AS bytes \
         FROM newest JOIN messages m ON m.id = newest.id ORDER BY m.id DESC";
    let statement = match (scope.conversation_id, scope.reach) {
        (Some(id), reach) => query(on, OF_ONE).bind(id).bind(reach.user_id()),
        (None, Reach::Everything) => query(on, OF_ALL),
        (None, Reach::OwnOf(user_id)) => query(on, OF_USER).bind(user_id),
    };
    statement.bind(limit).all().await
}

/// Those in `scope` that the index of SQLite lacks, the newest first: all are newer than those it has.
pub async fn unindexed(snapshot: &mut Snapshot, scope: Scope) -> Result<Vec<Candidate>> {
    const SQL: &str = concat!(
        "SELECT m.id, octet_length(m.content) AS bytes FROM messages m \
         WHERE m.id > (SELECT up_to FROM message_search_progress) AND m.deleted_at IS NULL AND ",
        within_reach!("m.conversation_id", "$1")
    );
    if !snapshot.is_sqlite() {
        return Ok(vec![]);
    }
    let mut statement = query(snapshot, SQL).bind(scope.reach.user_id());
    if let Some(id) = scope.conversation_id {
        // The plus keeps SQLite from reading the whole conversation.
        statement = statement.push(" AND +m.conversation_id = ").push_bind(id);
    }
    statement.push(" ORDER BY m.id DESC").all().await
}

/// Number of messages that SQLite's index lacks; includes ids of deleted messages.
pub async fn lacking(db: &Db) -> Result<u32> {
    const SQL: &str = "SELECT MAX(0, (SELECT COALESCE(MAX(id), 0) FROM messages) - p.up_to) \
                       FROM message_search_progress p";
    if matches!(db, Db::Postgres { .. }) {
        return Ok(0);
    }
    let (lacking,): (i64,) = query(db, SQL).one().await?;
    Ok(u32::try_from(lacking).unwrap_or(u32::MAX))
}

/// The oldest messages that SQLite's index lacks, until `part` is reached: their size and the last id.
pub async fn next_unindexed(tx: &mut Tx, part: Part) -> Result<Option<Next>> {
    const SQL: &str = "SELECT COUNT(*) AS messages, COALESCE(SUM(bytes), 0) AS bytes, MAX(id) AS id FROM \
        (SELECT id, octet_length(content) AS bytes, \
        SUM(octet_length(content)) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS total FROM messages \
        WHERE id > (SELECT up_to FROM message_search_progress) ORDER BY id LIMIT $1) \
        WHERE total - bytes < $2";
    if !tx.is_sqlite() {
        return Ok(None);
    }
    let (messages, bytes, id): (i64, i64, Option<i64>) =
        query(tx, SQL).bind(part.messages).bind(part.bytes).one().await?;
    Ok(id.map(|id| Next { part: Part { messages, bytes }, id }))
}

/// Gives the index of SQLite the messages that it lacks, up to the one with this id.
pub async fn index_up_to(tx: &mut Tx, id: i64) -> Result<()> {
    const INDEX: &str = "INSERT INTO message_search (rowid, content) \
        SELECT id, content || char(10, 10) FROM messages \
        WHERE id > (SELECT up_to FROM message_search_progress) AND id <= $1 ORDER BY id";
    const NOTE: &str = "UPDATE message_search_progress SET up_to = $1";
    query(&mut *tx, INDEX).bind(id).execute().await?;
    query(tx, NOTE).bind(id).execute().await.map(drop)
}

/// What these messages say, at most [`CONTENTS`] of them.
pub async fn contents(on: impl Into<On<'_>>, ids: &[i64]) -> Result<Vec<(i64, String)>> {
    const SQL: &str = "SELECT m.id, m.content FROM messages m WHERE m.id IN (";
    listed(query(on, SQL), ids, CONTENTS).push(") ORDER BY m.id DESC").all().await
}

/// These messages, at most [`SHOWN`] of them, as far as they are within reach.
pub async fn hits(on: impl Into<On<'_>>, ids: &[i64], reach: Reach) -> Result<Vec<HitRow>> {
    const SQL: &str = concat!(
        "SELECT m.id, m.conversation_id, c.title, m.seq, m.role, m.content, m.user_id, \
         u.username, u.email, m.created_at, m.edited_at FROM messages m \
         JOIN conversations c ON c.id = m.conversation_id LEFT JOIN users u ON u.id = m.user_id \
         WHERE ",
        within_reach!("m.conversation_id", "$1"),
        " AND m.id IN ("
    );
    let statement = listed(query(on, SQL).bind(reach.user_id()), ids, SHOWN);
    statement.push(") ORDER BY m.id DESC").all().await
}

/// Appends `ids`, and the last one again up to `count`, so that there is one statement for any
/// number of them.
fn listed<'c>(mut statement: Query<'c>, ids: &[i64], count: usize) -> Query<'c> {
    for index in 0..count {
        let id = ids.get(index).or(ids.last()).copied();
        statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(id);
    }
    statement
}

/// What the index of a database can be asked for.
#[derive(Debug)]
pub enum Indexed {
    /// Nothing: the words are too short for it.
    Nothing,
    /// It knows that no message has all of the words.
    NoMessage,
    /// This.
    Condition(Condition),
}

/// A condition that the index answers.
#[derive(Debug, Default)]
pub struct Condition {
    /// What the index is asked.
    index: String,
    /// Short words, of which the index says nothing: the statement compares them.
    others: Vec<String>,
    /// Whether what is found has all of the words. Otherwise the caller compares.
    pub is_exact: bool,
}

impl Condition {
    /// Where `is_exact` says whether what the index finds has all longer words.
    fn of(index: String, mut others: Vec<String>, is_exact: bool) -> Self {
        let is_exact = is_exact && others.len() <= OTHERS;
        others.truncate(OTHERS);
        Self { index, others, is_exact }
    }
}

/// How the index finds `words`.
pub async fn indexed(snapshot: &mut Snapshot, words: &Words) -> Result<Indexed> {
    if snapshot.is_sqlite() { on_sqlite(snapshot, words).await } else { Ok(on_postgres(words)) }
}

/// Pairs of characters are in the index, if none is a blank. Words are told apart by U+001F, which
/// none of them has.
fn on_postgres(words: &Words) -> Indexed {
    let has_pair = |word: &String| {
        let characters: Vec<char> = word.chars().collect();
        characters.windows(2).any(|pair| !pair.iter().any(|c| c.is_whitespace()))
    };
    if words.as_slice().iter().any(has_pair) {
        let index = words.as_slice().join("\u{1f}");
        Indexed::Condition(Condition { index, others: vec![], is_exact: true })
    } else {
        Indexed::Nothing
    }
}

/// Three characters in a row are in the index. Where every word is shorter, one of them is looked
/// for as the beginning of such three, unless there are too many of those.
async fn on_sqlite(snapshot: &mut Snapshot, words: &Words) -> Result<Indexed> {
    let (short, long): (Vec<_>, Vec<_>) =
        words.as_slice().iter().cloned().partition(|word| word.chars().count() < 3);
    if !long.is_empty() {
        let phrases = Phrases::of(&long);
        let index = any_or_all(&phrases.all, " AND ");
        return Ok(Indexed::Condition(Condition::of(index, short, phrases.are_exact)));
    }
    let Some(longest) = short.iter().max_by_key(|word| word.len()) else {
        return Ok(Indexed::Nothing);
    };
    // Too much of the index would have to be read.
    if longest.len() < 2 {
        return Ok(Indexed::Nothing);
    }
    let terms = beginning_with(snapshot, longest).await?;
    Ok(match terms.len() {
        0 => Indexed::NoMessage,
        1..=TERMS => {
            let index = any_or_all(&terms, " OR ");
            let others = short.iter().filter(|word| *word != longest).cloned().collect();
            Indexed::Condition(Condition::of(index, others, true))
        }
        _ => Indexed::Nothing,
    })
}

/// A condition of FTS5 on `phrases`.
fn any_or_all(phrases: &[String], operator: &str) -> String {
    let quoted = phrases.iter().map(|phrase| format!("\"{}\"", phrase.replace('"', "\"\"")));
    quoted.collect::<Vec<_>>().join(operator)
}

/// What the index of SQLite has that begins with `word`, and one more than there may be.
async fn beginning_with(snapshot: &mut Snapshot, word: &str) -> Result<Vec<String>> {
    const SQL: &str = "SELECT term FROM message_terms WHERE term >= $1 AND term < $2 LIMIT $3";
    let limit = i64::try_from(TERMS + 1).unwrap_or(i64::MAX);
    let statement = query(snapshot, SQL).bind(word).bind(format!("{word}{}", char::MAX));
    let rows: Vec<(String,)> = statement.bind(limit).all().await?;
    Ok(rows.into_iter().map(|(term,)| term).collect())
}

/// The last place that messages of `scope` can have in SQLite's index; see [`found_on_sqlite`].
pub async fn last_place(snapshot: &mut Snapshot, scope: Scope) -> Result<i64> {
    const OF_ONE: &str = "SELECT last_seq FROM conversations WHERE id = $1";
    const OF_ALL: &str = "SELECT up_to FROM message_search_progress";
    let statement = match scope.conversation_id {
        Some(id) => query(snapshot, OF_ONE).bind(id),
        None => query(snapshot, OF_ALL),
    };
    let last: Option<(i64,)> = statement.optional().await?;
    Ok(last.map_or(0, |(last,)| last))
}

/// The messages in `scope` that SQLite's index finds by `condition` within `range`, which are ids,
/// or the `seq` of one conversation: the newest first.
pub async fn found_on_sqlite(
    snapshot: &mut Snapshot,
    scope: Scope,
    condition: &Condition,
    range: &Range<i64>,
    limit: i64,
) -> Result<Vec<i64>> {
    // The index gives them from the newest, and is asked no further than the limit.
    const SQL: &str = concat!(
        "SELECT m.id FROM message_search s CROSS JOIN messages m ON m.id = s.rowid \
         WHERE s.message_search MATCH $1 AND m.deleted_at IS NULL AND ",
        within_reach!("m.conversation_id", "$2")
    );
    const IN_RANGE: &str = " AND s.rowid >= $3 AND s.rowid < $4";
    // Before the message itself is read, of which the index may name many. The plus keeps SQLite
    // from asking the index anew for each message of the conversation.
    const IN_CONVERSATION: &str = " AND s.rowid >= (SELECT MIN(o.id) FROM messages o \
         WHERE o.seq >= $3 AND o.seq < $4 AND o.conversation_id = $5) \
         AND s.rowid <= (SELECT MAX(o.id) FROM messages o \
         WHERE o.seq >= $3 AND o.seq < $4 AND o.conversation_id = $5) \
         AND +s.rowid IN (SELECT o.id FROM messages o \
         WHERE o.seq >= $3 AND o.seq < $4 AND o.conversation_id = $5)";
    let index = condition.index.clone();
    let mut statement = query(snapshot, SQL).bind(index).bind(scope.reach.user_id());
    statement = statement.bind(range.start).bind(range.end);
    statement = match scope.conversation_id {
        Some(id) => statement.push(IN_CONVERSATION).bind(id),
        None => statement.push(IN_RANGE),
    };
    for word in &condition.others {
        statement = statement.push(" AND (");
        for (index, written) in variants(word).into_iter().enumerate() {
            let or = if index == 0 { "instr(m.content, " } else { " OR instr(m.content, " };
            statement = statement.push(or).push_bind(written).push(") > 0");
        }
        statement = statement.push(")");
    }
    let statement = statement.push(" ORDER BY s.rowid DESC LIMIT ").push_bind(limit);
    let rows: Vec<(i64,)> = statement.all().await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// The messages in `scope` that the index of Postgres finds by `condition`, the newest first. Each
/// statement of `snapshot` from here on ends after `milliseconds`.
pub async fn found_on_postgres(
    snapshot: &mut Snapshot,
    scope: Scope,
    condition: &Condition,
    milliseconds: u16,
    limit: i64,
) -> Result<Vec<i64>> {
    const LIMIT: &str = "SELECT set_config('statement_timeout', $1, TRUE)";
    // Materialized, so that the index is used whatever Postgres expects: reading messages from the
    // newest until enough are found is what was done before.
    const SQL: &str = concat!(
        "WITH found AS MATERIALIZED (SELECT m.id FROM messages m \
         WHERE octopus_search_vector(m.content) @@ octopus_search_query($1) \
         AND m.deleted_at IS NULL AND ",
        within_reach!("m.conversation_id", "$2")
    );
    // Folding and comparing is what costs most, and ends with the page. OFFSET 0 keeps the order.
    const COMPARED: &str = ") SELECT f.id FROM \
         (SELECT found.id FROM found ORDER BY found.id DESC OFFSET 0) f \
         CROSS JOIN LATERAL (SELECT 1 FROM messages m WHERE m.id = f.id \
         AND octopus_folded(m.content) LIKE ALL (octopus_search_patterns($1)) OFFSET 0) same \
         ORDER BY f.id DESC LIMIT ";
    query(&mut *snapshot, LIMIT).bind(milliseconds.to_string()).execute().await?;
    let index = condition.index.clone();
    let mut statement = query(snapshot, SQL).bind(index).bind(scope.reach.user_id());
    if let Some(id) = scope.conversation_id {
        statement = statement.push(" AND m.conversation_id = ").push_bind(id);
    }
    let rows: Vec<(i64,)> = statement.push(COMPARED).push_bind(limit).all().await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Every spelling that folds to a short folded word.
fn variants(word: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for c in word.chars() {
        let longer = all.iter().flat_map(|start| written(c).map(move |c| format!("{start}{c}")));
        all = longer.collect();
    }
    all
}
