//! Reads conversations with their participants and newest messages in one statement, so that all
//! come from one snapshot. The result is one row of JSON texts.

use super::conversations::ConversationRow;
use super::messages::{MessageRow, message_columns};
use super::selection::{ConversationSlice, Selection};
use super::size_sql::{size, weight};
use super::visibility::visible;
use crate::db::{Executor, Query, from_json, query};
use crate::features::conversations::model::{Message, Participant};
use crate::security::Visibility;
use serde_json::value::RawValue;
use sqlx::Result;

/// Conversations with their participants and messages, not parsed yet.
#[derive(Debug)]
pub struct Found {
    /// In scan order of the list; unordered if selected by ids.
    pub conversations: Vec<ConversationRow>,
    /// As JSON.
    participants: String,
    /// As JSON.
    messages: String,
    visibility: Visibility,
}

/// The participants of conversations, and their newest messages.
#[derive(Debug)]
pub struct Embedded<'t> {
    /// Each with its conversation id; sorted by conversation id, then user id.
    participants: Vec<(i64, Participant<'t>)>,
    /// Sorted by conversation id, then `seq`.
    messages: Vec<Message<'t>>,
}

/// How much one statement may read.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Maximum number of newest messages per conversation.
    pub each: i64,
    /// Approximate maximum size of the result in bytes; `None` is no limit, for one conversation
    /// without messages.
    pub bytes: Option<i64>,
}

/// The columns of `conversations c` that every selection reads.
macro_rules! columns {
    () => {
        "c.id, c.title, c.metadata, c.last_seq, c.active_at, c.created_at, c.updated_at"
    };
}

/// The condition for the newest messages; the number of messages follows. Used with CROSS JOIN:
/// SQLite has no estimate of the number of conversations and would otherwise scan the messages
/// first.
macro_rules! newest {
    () => {
        " WHERE m.conversation_id = c.id AND m.seq > c.last_seq - "
    };
}

/// Reads the selected conversations, as shown to a caller with this `visibility`. For a list, reads
/// one more than the page has. `None` if the result would exceed `limit`.
pub async fn find(
    on: impl Into<Executor<'_>>,
    selection: Selection<'_>,
    visibility: Visibility,
    limit: ReadLimit,
) -> Result<Option<Found>> {
    let statement = messages(participants(conversations(confined(on, selection))), limit);
    let found: Option<(String, String, String)> = fitting(statement, limit).optional().await?;
    let Some((conversations, participants, messages)) = found else { return Ok(None) };
    let mut conversations: Vec<ConversationRow> = from_json(&conversations)?;
    if let Selection::Page { slice, .. } = selection {
        slice.sort(&mut conversations);
    }
    Ok(Some(Found { conversations, participants, messages, visibility }))
}

impl Found {
    /// Approximate size in a response, in bytes.
    pub fn answer_bytes(&self) -> usize {
        512 * self.conversations.len() + 2 * self.participants.len() + 3 * self.messages.len() / 2
    }

    /// Parses the participants and messages, as shown to the caller.
    pub fn embedded(&self) -> Result<Embedded<'_>> {
        let rows: Vec<(i64, i64, &RawValue, &RawValue)> = from_json(&self.participants)?;
        let seen = rows.into_iter().map(|(conversation_id, id, name, email)| {
            (conversation_id, Participant::visible_to(self.visibility, id, name, email))
        });
        let mut participants: Vec<_> = seen.collect();
        participants.sort_unstable_by_key(|(conversation_id, user)| (*conversation_id, user.id));
        let rows: Vec<MessageRow<&RawValue>> = from_json(&self.messages)?;
        let mut messages: Vec<_> =
            rows.into_iter().map(|row| row.visible_to(self.visibility)).collect();
        messages.sort_unstable_by_key(|message| (message.conversation_id, message.seq));
        Ok(Embedded { participants, messages })
    }
}

impl<'t> Embedded<'t> {
    /// The participants of conversation `id` that were read, sorted by id.
    pub fn participants_of(&self, id: i64) -> Vec<&Participant<'t>> {
        let part = part_of(&self.participants, id, |(conversation_id, _)| *conversation_id);
        part.iter().map(|(_, participant)| participant).collect()
    }

    /// The newest messages of conversation `id`, in order.
    pub fn messages_of(&self, id: i64) -> &[Message<'t>] {
        part_of(&self.messages, id, |message| message.conversation_id)
    }
}

/// The elements of `all`, which is sorted by `key`, whose key is `wanted`.
fn part_of<T>(all: &[T], wanted: i64, key: impl Fn(&T) -> i64) -> &[T] {
    let rest = &all[all.partition_point(|one| key(one) < wanted)..];
    &rest[..rest.partition_point(|one| key(one) == wanted)]
}

/// Begins a statement with the CTE `c`: the selected conversations.
pub(super) fn confined<'c>(on: impl Into<Executor<'c>>, selection: Selection<'_>) -> Query<'c> {
    const ALL: &str = concat!(
        "WITH c AS MATERIALIZED (SELECT ",
        columns!(),
        " FROM conversations c WHERE c.retired_at IS NULL"
    );
    const OF_USER: &str = concat!(
        "WITH c AS MATERIALIZED (SELECT ",
        columns!(),
        " FROM participants p JOIN conversations c ON c.id = p.conversation_id WHERE p.user_id = $1"
    );
    const VISIBLE: &str = concat!(
        "WITH c AS MATERIALIZED (SELECT ",
        columns!(),
        " FROM conversations c WHERE ",
        visible!("c.id", "$1"),
        " AND c.id IN ("
    );
    let (of_user, slice) = match selection {
        Selection::Ids(ids, visibility) => {
            let mut statement = query(on, VISIBLE).bind(visibility.user_id());
            for (index, id) in ids.iter().enumerate() {
                statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(*id);
            }
            return statement.push(")) ");
        }
        Selection::Page { of_user, slice } => (of_user, slice),
    };
    // For a user, the index on participants has the conversation ids in order.
    let (statement, id) = match of_user {
        Some(user_id) => (query(on, OF_USER).bind(user_id), "p.conversation_id"),
        None => (query(on, ALL), "c.id"),
    };
    let statement = match slice {
        ConversationSlice::ById(slice) => slice.cut(statement, &[id]),
        ConversationSlice::Recent(slice) => slice.cut(statement, &["c.active_at", "c.id"]),
    };
    statement.push(") ")
}

/// Appends the column with the [`ConversationRow`]s.
fn conversations(statement: Query<'_>) -> Query<'_> {
    const COLUMNS: &str = concat!(
        columns!(),
        ", (SELECT COUNT(*) FROM participants n WHERE n.conversation_id = c.id)"
    );
    statement.push("SELECT (SELECT ").push_json_of_rows(COLUMNS).push(" FROM c), ")
}

/// Appends the column with the first 100 participants of each conversation. Both variants read at
/// most 100 index entries per conversation.
fn participants(statement: Query<'_>) -> Query<'_> {
    const COLUMNS: &str = "p.conversation_id, u.id, u.username, u.email";
    const SQLITE: &str = " FROM c CROSS JOIN participants p CROSS JOIN users u \
        WHERE p.conversation_id = c.id AND u.id = p.user_id AND p.user_id <= COALESCE((\
        SELECT n.user_id FROM participants n WHERE n.conversation_id = c.id \
        ORDER BY n.user_id LIMIT 1 OFFSET 99), 9223372036854775807)), ";
    const POSTGRES: &str = " FROM c CROSS JOIN LATERAL (\
        SELECT n.conversation_id, n.user_id FROM participants n WHERE n.conversation_id = c.id \
        ORDER BY n.user_id LIMIT 100) p JOIN users u ON u.id = p.user_id), ";
    let statement = statement.push("(SELECT ").push_json_of_rows(COLUMNS);
    statement.push_either(SQLITE, POSTGRES)
}

/// Appends the column with the newest messages of each conversation.
fn messages(statement: Query<'_>, limit: ReadLimit) -> Query<'_> {
    const MESSAGES: &str =
        concat!(" FROM c CROSS JOIN messages m LEFT JOIN users u ON u.id = m.user_id", newest!());
    if limit.each == 0 {
        return statement.push("'[]'");
    }
    let statement = statement.push("(SELECT ").push_json_of_rows(message_columns!());
    statement.push(MESSAGES).push_bind(limit.each).push(")")
}

/// Appends a condition that yields no row if the result would exceed `limit`.
fn fitting(statement: Query<'_>, limit: ReadLimit) -> Query<'_> {
    const HEADS: &str = concat!(" WHERE (SELECT COALESCE(SUM(", weight!(), "), 0) FROM c)");
    const MESSAGES: &str = concat!(
        " + (SELECT COALESCE(SUM(",
        size!(),
        "), 0) FROM c CROSS JOIN messages m",
        newest!()
    );
    let Some(bytes) = limit.bytes else { return statement };
    let mut statement = statement.push(HEADS);
    if limit.each > 0 {
        statement = statement.push(MESSAGES).push_bind(limit.each).push(")");
    }
    statement.push(" <= ").push_bind(bytes)
}
