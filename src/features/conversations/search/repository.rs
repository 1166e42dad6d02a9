//! SQL for search. SQLite and Postgres have different indexes and therefore different statements.

use super::batch_size::BatchSize;
use super::phrases::Phrases;
use super::words::{Words, written};
use crate::core::clock::Timestamp;
use crate::db::{Db, Executor, Query, Snapshot, Tx, query};
use crate::features::conversations::repository::visible;
use crate::security::Visibility;
use sqlx::Result;
use std::ops::Range;

/// Maximum number of contents read in one statement.
pub const MAX_CONTENTS: usize = 100;
/// Maximum number of hits read in one statement: each can have 400,000 bytes.
pub const MAX_HITS: usize = 10;
/// Maximum number of terms in SQLite's index to which a short word may expand.
const TERMS: usize = 200;
/// Maximum number of short words compared in an SQLite statement, each in time linear in the
/// message.
const OTHERS: usize = 4;

/// The messages to search.
#[derive(Clone, Copy, Debug)]
pub struct SearchScope {
    /// The conversation; `None` searches all.
    pub conversation_id: Option<i64>,
    /// The visibility of the caller.
    pub visibility: Visibility,
}

/// The id and size of a message to read and compare.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Candidate {
    pub id: i64,
    pub bytes: i64,
}

/// The next batch for SQLite's index: the messages up to and including `id`.
#[derive(Clone, Copy, Debug)]
pub struct NextBatch {
    pub part: BatchSize,
    pub id: i64,
}

/// A search hit, with the content of the message.
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

/// The newest messages in `scope`, at most `limit`, sorted newest first.
pub async fn newest(
    on: impl Into<Executor<'_>>,
    scope: SearchScope,
    limit: i64,
) -> Result<Vec<Candidate>> {
    const OF_ALL: &str = "SELECT m.id, CAST(octet_length(m.content) AS BIGINT) AS bytes \
         FROM messages m WHERE m.deleted_at IS NULL AND m.conversation_id NOT IN \
         (SELECT gone.id FROM conversations gone WHERE gone.retired_at IS NOT NULL) \
         ORDER BY m.id DESC LIMIT $1";
    const OF_ONE: &str = concat!(
        "SELECT m.id, CAST(octet_length(m.content) AS BIGINT) AS bytes FROM messages m \
         WHERE m.conversation_id = $1 AND m.deleted_at IS NULL AND ",
        visible!("m.conversation_id", "$2"),
        " ORDER BY m.seq DESC LIMIT $3"
    );
    // Includes deleted messages: they are empty and never match, but without them the result could
    // have fewer rows than the limit although older messages exist. Reads at most the limit of each
    // conversation, and the ids first, which come from an index.
    const OF_USER: &str = "WITH newest AS (SELECT m.id FROM participants p \
         JOIN conversations c ON c.id = p.conversation_id \
         JOIN messages m ON m.conversation_id = c.id AND m.seq > c.last_seq - $2 \
         WHERE p.user_id = $1 ORDER BY m.id DESC LIMIT $2) \
         SELECT m.id, CAST(octet_length(m.content) AS BIGINT) AS bytes \
         FROM newest JOIN messages m ON m.id = newest.id ORDER BY m.id DESC";
    let statement = match (scope.conversation_id, scope.visibility) {
        (Some(id), visibility) => query(on, OF_ONE).bind(id).bind(visibility.user_id()),
        (None, Visibility::All) => query(on, OF_ALL),
        (None, Visibility::ParticipantOf(user_id)) => query(on, OF_USER).bind(user_id),
    };
    statement.bind(limit).all().await
}

/// The messages in `scope` that SQLite's index lacks, sorted newest first. All of them are newer
/// than the indexed ones.
pub async fn unindexed(snapshot: &mut Snapshot, scope: SearchScope) -> Result<Vec<Candidate>> {
    const SQL: &str = concat!(
        "SELECT m.id, octet_length(m.content) AS bytes FROM messages m \
         WHERE m.id > (SELECT up_to FROM message_search_progress) AND m.deleted_at IS NULL AND ",
        visible!("m.conversation_id", "$1")
    );
    if !snapshot.is_sqlite() {
        return Ok(vec![]);
    }
    let mut statement = query(snapshot, SQL).bind(scope.visibility.user_id());
    if let Some(id) = scope.conversation_id {
        // The unary plus prevents SQLite from reading the whole conversation.
        statement = statement.push(" AND +m.conversation_id = ").push_bind(id);
    }
    statement.push(" ORDER BY m.id DESC").all().await
}

/// Number of messages that SQLite's index lacks. An upper bound: it also counts ids of deleted
/// messages.
pub async fn count_unindexed(db: &Db) -> Result<u32> {
    const SQL: &str = "SELECT MAX(0, (SELECT COALESCE(MAX(id), 0) FROM messages) - p.up_to) \
                       FROM message_search_progress p";
    if matches!(db, Db::Postgres { .. }) {
        return Ok(0);
    }
    let (count,): (i64,) = query(db, SQL).one().await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The oldest messages that SQLite's index lacks, until `limit` is reached: their size and last id.
pub async fn next_unindexed(tx: &mut Tx, limit: BatchSize) -> Result<Option<NextBatch>> {
    const SQL: &str = "SELECT COUNT(*) AS messages, COALESCE(SUM(bytes), 0) AS bytes, MAX(id) AS id FROM \
        (SELECT id, octet_length(content) AS bytes, \
        SUM(octet_length(content)) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS total FROM messages \
        WHERE id > (SELECT up_to FROM message_search_progress) ORDER BY id LIMIT $1) \
        WHERE total - bytes < $2";
    if !tx.is_sqlite() {
        return Ok(None);
    }
    let (messages, bytes, id): (i64, i64, Option<i64>) =
        query(tx, SQL).bind(limit.messages).bind(limit.bytes).one().await?;
    Ok(id.map(|id| NextBatch { part: BatchSize { messages, bytes }, id }))
}

/// Adds the missing messages to SQLite's index, up to and including `id`.
pub async fn index_up_to(tx: &mut Tx, id: i64) -> Result<()> {
    const INDEX: &str = "INSERT INTO message_search (rowid, content) \
        SELECT id, content || char(10, 10) FROM messages \
        WHERE id > (SELECT up_to FROM message_search_progress) AND id <= $1 ORDER BY id";
    const NOTE: &str = "UPDATE message_search_progress SET up_to = $1";
    query(&mut *tx, INDEX).bind(id).execute().await?;
    query(tx, NOTE).bind(id).execute().await.map(drop)
}

/// The contents of these messages, at most [`MAX_CONTENTS`] of them.
pub async fn contents(on: impl Into<Executor<'_>>, ids: &[i64]) -> Result<Vec<(i64, String)>> {
    const SQL: &str = "SELECT m.id, m.content FROM messages m WHERE m.id IN (";
    listed(query(on, SQL), ids, MAX_CONTENTS).push(") ORDER BY m.id DESC").all().await
}

/// The visible ones of these messages, at most [`MAX_HITS`].
pub async fn hits(
    on: impl Into<Executor<'_>>,
    ids: &[i64],
    visibility: Visibility,
) -> Result<Vec<HitRow>> {
    const SQL: &str = concat!(
        "SELECT m.id, m.conversation_id, c.title, m.seq, m.role, m.content, m.user_id, \
         u.username, u.email, m.created_at, m.edited_at FROM messages m \
         JOIN conversations c ON c.id = m.conversation_id LEFT JOIN users u ON u.id = m.user_id \
         WHERE ",
        visible!("m.conversation_id", "$1"),
        " AND m.id IN ("
    );
    let statement = listed(query(on, SQL).bind(visibility.user_id()), ids, MAX_HITS);
    statement.push(") ORDER BY m.id DESC").all().await
}

/// Appends `ids`, padded to `count` by repeating the last one, so that one prepared statement
/// serves any number of ids.
fn listed<'c>(mut statement: Query<'c>, ids: &[i64], count: usize) -> Query<'c> {
    for index in 0..count {
        let id = ids.get(index).or(ids.last()).copied();
        statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(id);
    }
    statement
}

/// How the index can be used for a search.
#[derive(Debug)]
pub enum Indexed {
    /// The index cannot be used: the words are too short.
    Unusable,
    /// No indexed message has all of the words.
    NoMessage,
    /// The index finds the messages with this condition.
    Condition(Condition),
}

/// A condition on the words of a message, for the index and the statement.
#[derive(Debug, Default)]
pub struct Condition {
    /// The index query.
    index: String,
    /// Short words that the index cannot match: the statement compares them.
    others: Vec<String>,
    /// Whether every result has all of the words. Otherwise the caller compares the contents.
    pub is_exact: bool,
}

impl Condition {
    /// `is_exact` is whether every match of the index has all longer words.
    fn of(index: String, mut others: Vec<String>, is_exact: bool) -> Self {
        let is_exact = is_exact && others.len() <= OTHERS;
        others.truncate(OTHERS);
        Self { index, others, is_exact }
    }
}

/// Determines how the index can search for `words`.
pub async fn indexed(snapshot: &mut Snapshot, words: &Words) -> Result<Indexed> {
    if snapshot.is_sqlite() { on_sqlite(snapshot, words).await } else { Ok(on_postgres(words)) }
}

/// Postgres indexes pairs of non-blank characters. Words are separated by U+001F, which no word
/// contains.
fn on_postgres(words: &Words) -> Indexed {
    let has_pair = |word: &String| {
        let characters: Vec<char> = word.chars().collect();
        characters.windows(2).any(|pair| !pair.iter().any(|c| c.is_whitespace()))
    };
    if words.as_slice().iter().any(has_pair) {
        let index = words.as_slice().join("\u{1f}");
        Indexed::Condition(Condition { index, others: vec![], is_exact: true })
    } else {
        Indexed::Unusable
    }
}

/// SQLite indexes trigrams. If every word is shorter, one word is expanded to the trigrams that
/// begin with it, unless there are more than [`TERMS`].
async fn on_sqlite(snapshot: &mut Snapshot, words: &Words) -> Result<Indexed> {
    let (short, long): (Vec<_>, Vec<_>) =
        words.as_slice().iter().cloned().partition(|word| word.chars().count() < 3);
    if !long.is_empty() {
        let phrases = Phrases::of(&long);
        let index = any_or_all(&phrases.all, " AND ");
        return Ok(Indexed::Condition(Condition::of(index, short, phrases.are_exact)));
    }
    let Some(longest) = short.iter().max_by_key(|word| word.len()) else {
        return Ok(Indexed::Unusable);
    };
    // A single character would expand to too much of the index.
    if longest.len() < 2 {
        return Ok(Indexed::Unusable);
    }
    let terms = beginning_with(snapshot, longest).await?;
    Ok(match terms.len() {
        0 => Indexed::NoMessage,
        1..=TERMS => {
            let index = any_or_all(&terms, " OR ");
            let others = short.iter().filter(|word| *word != longest).cloned().collect();
            Indexed::Condition(Condition::of(index, others, true))
        }
        _ => Indexed::Unusable,
    })
}

/// An FTS5 query that joins `phrases` with `operator`.
fn any_or_all(phrases: &[String], operator: &str) -> String {
    let quoted = phrases.iter().map(|phrase| format!("\"{}\"", phrase.replace('"', "\"\"")));
    quoted.collect::<Vec<_>>().join(operator)
}

/// The terms of SQLite's index that begin with `word`, at most [`TERMS`] and one more.
async fn beginning_with(snapshot: &mut Snapshot, word: &str) -> Result<Vec<String>> {
    const SQL: &str = "SELECT term FROM message_terms WHERE term >= $1 AND term < $2 LIMIT $3";
    let limit = i64::try_from(TERMS + 1).unwrap_or(i64::MAX);
    let statement = query(snapshot, SQL).bind(word).bind(format!("{word}{}", char::MAX));
    let rows: Vec<(String,)> = statement.bind(limit).all().await?;
    Ok(rows.into_iter().map(|(term,)| term).collect())
}

/// The upper bound of the range to search with [`found_on_sqlite`]: an id, or the `seq` of one
/// conversation.
pub async fn search_range_end(snapshot: &mut Snapshot, scope: SearchScope) -> Result<i64> {
    const OF_ONE: &str = "SELECT last_seq FROM conversations WHERE id = $1";
    const OF_ALL: &str = "SELECT up_to FROM message_search_progress";
    let statement = match scope.conversation_id {
        Some(id) => query(snapshot, OF_ONE).bind(id),
        None => query(snapshot, OF_ALL),
    };
    let last: Option<(i64,)> = statement.optional().await?;
    Ok(last.map_or(0, |(last,)| last))
}

/// The messages in `scope` that SQLite's index finds by `condition`, sorted newest first. `range`
/// is a range of ids, or of `seq` if the scope is one conversation.
pub async fn found_on_sqlite(
    snapshot: &mut Snapshot,
    scope: SearchScope,
    condition: &Condition,
    range: &Range<i64>,
    limit: i64,
) -> Result<Vec<i64>> {
    // The index returns matches newest first and stops at the limit.
    const SQL: &str = concat!(
        "SELECT m.id FROM message_search s CROSS JOIN messages m ON m.id = s.rowid \
         WHERE s.message_search MATCH $1 AND m.deleted_at IS NULL AND ",
        visible!("m.conversation_id", "$2")
    );
    const IN_RANGE: &str = " AND s.rowid >= $3 AND s.rowid < $4";
    // Filters before the message itself is read, because the index can return many. The unary plus
    // prevents SQLite from querying the index once for each message of the conversation.
    const IN_CONVERSATION: &str = " AND s.rowid >= (SELECT MIN(o.id) FROM messages o \
         WHERE o.seq >= $3 AND o.seq < $4 AND o.conversation_id = $5) \
         AND s.rowid <= (SELECT MAX(o.id) FROM messages o \
         WHERE o.seq >= $3 AND o.seq < $4 AND o.conversation_id = $5) \
         AND +s.rowid IN (SELECT o.id FROM messages o \
         WHERE o.seq >= $3 AND o.seq < $4 AND o.conversation_id = $5)";
    let index = condition.index.clone();
    let mut statement = query(snapshot, SQL).bind(index).bind(scope.visibility.user_id());
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

/// The messages in `scope` that the Postgres index finds by `condition`, sorted newest first. Sets
/// the statement timeout of `snapshot` to `milliseconds` from here on.
pub async fn found_on_postgres(
    snapshot: &mut Snapshot,
    scope: SearchScope,
    condition: &Condition,
    milliseconds: u16,
    limit: i64,
) -> Result<Vec<i64>> {
    const LIMIT: &str = "SELECT set_config('statement_timeout', $1, TRUE)";
    // MATERIALIZED forces the use of the index. The alternative plan, scanning from the newest
    // message, has already been tried by the caller.
    const SQL: &str = concat!(
        "WITH found AS MATERIALIZED (SELECT m.id FROM messages m \
         WHERE octopus_search_vector(m.content) @@ octopus_search_query($1) \
         AND m.deleted_at IS NULL AND ",
        visible!("m.conversation_id", "$2")
    );
    // Folding and comparing is the most expensive step; it stops when the page is full. OFFSET 0
    // keeps the order.
    const COMPARED: &str = ") SELECT f.id FROM \
         (SELECT found.id FROM found ORDER BY found.id DESC OFFSET 0) f \
         CROSS JOIN LATERAL (SELECT 1 FROM messages m WHERE m.id = f.id \
         AND octopus_folded(m.content) LIKE ALL (octopus_search_patterns($1)) OFFSET 0) same \
         ORDER BY f.id DESC LIMIT ";
    query(&mut *snapshot, LIMIT).bind(milliseconds.to_string()).execute().await?;
    let index = condition.index.clone();
    let mut statement = query(snapshot, SQL).bind(index).bind(scope.visibility.user_id());
    if let Some(id) = scope.conversation_id {
        statement = statement.push(" AND m.conversation_id = ").push_bind(id);
    }
    let rows: Vec<(i64,)> = statement.push(COMPARED).push_bind(limit).all().await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Every spelling that folds to `word`, which is short and folded.
fn variants(word: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for c in word.chars() {
        let longer = all.iter().flat_map(|start| written(c).map(move |c| format!("{start}{c}")));
        all = longer.collect();
    }
    all
}
