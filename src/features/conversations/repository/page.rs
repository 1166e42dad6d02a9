//! Conversations with their participants and newest messages, in one statement: it sees one state of
//! the database, and what it finds comes back in one row.

use super::messages::{MessageRow, message_columns};
use super::weight::{size, weight};
use super::{ConversationRow, ConversationSlice, Selection, within_reach};
use crate::db::{On, Query, from_json, query};
use crate::features::conversations::model::{Message, Participant};
use crate::security::Reach;
use serde_json::value::RawValue;
use sqlx::Result;

/// Conversations, and what was found with them.
#[derive(Debug)]
pub struct Found {
    /// In the order in which their list is read; those selected by ids in no order.
    pub conversations: Vec<ConversationRow>,
    /// As JSON.
    participants: String,
    /// As JSON.
    messages: String,
    reach: Reach,
}

/// The participants of conversations, and their newest messages.
#[derive(Debug)]
pub struct Belongings<'t> {
    /// With the conversation's id; by that and then by their own.
    participants: Vec<(i64, Participant<'t>)>,
    /// By conversation and then in their order.
    messages: Vec<Message<'t>>,
}

/// How much is read at once.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The newest messages of every conversation.
    pub each: i64,
    /// Most bytes of all that is selected, about; `None` is no limit, for one conversation without
    /// messages.
    pub bytes: Option<i64>,
}

/// The columns of `conversations c` that every selection has.
macro_rules! columns {
    () => {
        "c.id, c.title, c.metadata, c.last_seq, c.active_at, c.created_at, c.updated_at"
    };
}

/// The newest messages of the conversations selected; a limit comes next. Neither database may take
/// the messages first: SQLite would, as it does not know how few conversations there are.
macro_rules! newest {
    () => {
        " WHERE m.conversation_id = c.id AND m.seq > c.last_seq - "
    };
}

/// Those selected, as a caller with this `reach` sees them; of a list, one more than its page has.
/// `None` where they take more bytes than there is room for.
pub async fn find(
    on: impl Into<On<'_>>,
    selection: Selection<'_>,
    reach: Reach,
    room: Room,
) -> Result<Option<Found>> {
    let statement = messages(participants(conversations(confined(on, selection))), room);
    let found: Option<(String, String, String)> = fitting(statement, room).optional().await?;
    let Some((conversations, participants, messages)) = found else { return Ok(None) };
    let mut conversations: Vec<ConversationRow> = from_json(&conversations)?;
    if let Selection::Listed { slice, .. } = selection {
        slice.sort(&mut conversations);
    }
    Ok(Some(Found { conversations, participants, messages, reach }))
}

impl Found {
    /// About the bytes that all of it takes in an answer.
    pub fn answer_bytes(&self) -> usize {
        512 * self.conversations.len() + 2 * self.participants.len() + 3 * self.messages.len() / 2
    }

    /// What belongs to the conversations, as the caller sees it.
    pub fn belongings(&self) -> Result<Belongings<'_>> {
        let rows: Vec<(i64, i64, &RawValue, &RawValue)> = from_json(&self.participants)?;
        let seen = rows.into_iter().map(|(conversation_id, id, name, email)| {
            (conversation_id, Participant::seen_by(self.reach, id, name, email))
        });
        let mut participants: Vec<_> = seen.collect();
        participants.sort_unstable_by_key(|(conversation_id, user)| (*conversation_id, user.id));
        let rows: Vec<MessageRow<&RawValue>> = from_json(&self.messages)?;
        let mut messages: Vec<_> = rows.into_iter().map(|row| row.seen_by(self.reach)).collect();
        messages.sort_unstable_by_key(|message| (message.conversation_id, message.seq));
        Ok(Belongings { participants, messages })
    }
}

impl<'t> Belongings<'t> {
    /// The participants of conversation `id` that were read, by id.
    pub fn participants_of(&self, id: i64) -> Vec<&Participant<'t>> {
        let part = part_of(&self.participants, id, |(conversation_id, _)| *conversation_id);
        part.iter().map(|(_, participant)| participant).collect()
    }

    /// The newest messages of conversation `id`, in their order.
    pub fn messages_of(&self, id: i64) -> &[Message<'t>] {
        part_of(&self.messages, id, |message| message.conversation_id)
    }
}

/// Those of `all`, which are sorted by `key`, with this one.
fn part_of<T>(all: &[T], wanted: i64, key: impl Fn(&T) -> i64) -> &[T] {
    let rest = &all[all.partition_point(|one| key(one) < wanted)..];
    &rest[..rest.partition_point(|one| key(one) == wanted)]
}

/// The beginning of a statement about the conversations selected, which it calls `c`.
pub(super) fn confined<'c>(on: impl Into<On<'c>>, selection: Selection<'_>) -> Query<'c> {
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
    const WITHIN_REACH: &str = concat!(
        "WITH c AS MATERIALIZED (SELECT ",
        columns!(),
        " FROM conversations c WHERE ",
        within_reach!("c.id", "$1"),
        " AND c.id IN ("
    );
    let (of_user, slice) = match selection {
        Selection::Ids(ids, reach) => {
            let mut statement = query(on, WITHIN_REACH).bind(reach.user_id());
            for (index, id) in ids.iter().enumerate() {
                statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(*id);
            }
            return statement.push(")) ");
        }
        Selection::Listed { of_user, slice } => (of_user, slice),
    };
    // Of a user's, memberships are what an index has in the order of ids.
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

/// Reads the [`ConversationRow`]s.
fn conversations(statement: Query<'_>) -> Query<'_> {
    const COLUMNS: &str = concat!(
        columns!(),
        ", (SELECT COUNT(*) FROM participants n WHERE n.conversation_id = c.id)"
    );
    statement.push("SELECT (SELECT ").push_json_of_rows(COLUMNS).push(" FROM c), ")
}

/// Reads the first 100 participants of each. Each database finds the hundredth once for a conversation,
/// and reads no more of the index than that.
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

/// Reads the newest messages of each.
fn messages(statement: Query<'_>, room: Room) -> Query<'_> {
    const MESSAGES: &str =
        concat!(" FROM c CROSS JOIN messages m LEFT JOIN users u ON u.id = m.user_id", newest!());
    if room.each == 0 {
        return statement.push("'[]'");
    }
    let statement = statement.push("(SELECT ").push_json_of_rows(message_columns!());
    statement.push(MESSAGES).push_bind(room.each).push(")")
}

/// Finds nothing where there is no room for all.
fn fitting(statement: Query<'_>, room: Room) -> Query<'_> {
    const HEADS: &str = concat!(" WHERE (SELECT COALESCE(SUM(", weight!(), "), 0) FROM c)");
    const MESSAGES: &str = concat!(
        " + (SELECT COALESCE(SUM(",
        size!(),
        "), 0) FROM c CROSS JOIN messages m",
        newest!()
    );
    let Some(bytes) = room.bytes else { return statement };
    let mut statement = statement.push(HEADS);
    if room.each > 0 {
        statement = statement.push(MESSAGES).push_bind(room.each).push(")");
    }
    statement.push(" <= ").push_bind(bytes)
}
