//! Conversations with what belongs to them, in one statement: it sees one state of the database, and
//! what it finds comes back in one row.

use super::messages::{MessageRow, message_columns};
use super::{ConversationRow, ConversationSlice, Selection, within_reach};
use crate::db::{On, Query, from_json, query};
use crate::features::conversations::model::{Message, Participant};
use crate::http::Direction;
use crate::security::Reach;
use serde_json::value::RawValue;
use sqlx::Result;

/// Conversations, and what was found with them.
#[derive(Debug)]
pub struct Found {
    /// In the order in which their list was walked.
    pub conversations: Vec<ConversationRow>,
    /// As JSON.
    participants: String,
    /// As JSON.
    messages: String,
    reach: Reach,
}

/// Those who take part in conversations, and their newest messages.
#[derive(Debug)]
pub struct Belongings<'t> {
    /// With the conversation's id; by that and then by their own.
    participants: Vec<(i64, Participant<'t>)>,
    /// By conversation and then in their order.
    messages: Vec<Message<'t>>,
}

/// How much is read of the messages: the newest `each` of every conversation; fewer where all
/// together would take more than `bytes`, beginning with the conversation that is shown first.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub each: i64,
    pub bytes: usize,
}

impl Room {
    fn bytes(self) -> i64 {
        i64::try_from(self.bytes).unwrap_or(i64::MAX)
    }
}

/// The columns of [`ConversationRow`], of `conversations c`.
macro_rules! columns {
    () => {
        "c.id, c.title, c.metadata, c.last_seq, c.active_at, c.created_at, c.updated_at"
    };
}

/// The bytes a message takes in an answer; 320 stands for what is neither content nor metadata.
macro_rules! size {
    () => {
        "octet_length(m.content) + COALESCE(octet_length(m.metadata), 0) + 320"
    };
}

/// The newest messages of the conversations selected; a limit comes next. Neither database may take
/// the messages first: SQLite would, as it does not know how few conversations there are.
macro_rules! newest {
    () => {
        " WHERE m.conversation_id = c.id AND m.seq > c.last_seq - "
    };
}

/// Those selected, as somebody with this `reach` sees them; of a list, one more than its page has.
pub async fn find(
    on: impl Into<On<'_>> + Copy,
    selection: Selection<'_>,
    reach: Reach,
    room: Room,
) -> Result<Found> {
    let mut found = run(all(select(on, selection), room)).await?;
    if found.2.is_none() {
        // Rare, as it is much: then each message is weighed.
        found = run(fitting(select(on, selection), selection, room)).await?;
    }
    let (conversations, participants, messages) = found;
    let mut conversations: Vec<ConversationRow> = from_json(&conversations)?;
    if let Selection::Listed { slice, .. } = selection {
        slice.sort(&mut conversations);
    }
    let messages = messages.unwrap_or_else(|| "[]".to_owned());
    Ok(Found { conversations, participants, messages, reach })
}

impl Found {
    /// About the bytes that all of it takes in an answer.
    pub fn answer_bytes(&self) -> usize {
        512 * self.conversations.len() + 2 * self.participants.len() + 3 * self.messages.len() / 2
    }

    /// What belongs to the conversations, as whoever asked for them sees it.
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
    /// Those who take part in conversation `id`, by id.
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

/// Conversations, participants and messages, each as JSON; no messages where there was no room.
async fn run(statement: Query<'_>) -> Result<(String, String, Option<String>)> {
    statement.one().await
}

/// The beginning of a statement that reads of the conversations selected, which it calls `c`: they
/// and their participants.
fn select<'c>(on: impl Into<On<'c>>, selection: Selection<'_>) -> Query<'c> {
    const PARTICIPANTS: &str = "p.conversation_id, u.id, u.username, u.email";
    const JOINED: &str = " FROM c CROSS JOIN participants p JOIN users u ON u.id = p.user_id \
        WHERE p.conversation_id = c.id), (";
    confined(on, selection)
        .push("SELECT (SELECT ")
        .push_json_of_rows(columns!())
        .push(" FROM c), (SELECT ")
        .push_json_of_rows(PARTICIPANTS)
        .push(JOINED)
}

fn confined<'c>(on: impl Into<On<'c>>, selection: Selection<'_>) -> Query<'c> {
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
    const ONE: &str = concat!(
        "WITH c AS MATERIALIZED (SELECT ",
        columns!(),
        " FROM conversations c WHERE c.id = $1 AND ",
        within_reach!("c.id", "$2"),
        ") "
    );
    let (of_user, slice) = match selection {
        Selection::One(id, reach) => return query(on, ONE).bind(id).bind(reach.user_id()),
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

/// All of the newest messages, or null where they take too much room.
fn all(statement: Query<'_>, room: Room) -> Query<'_> {
    const SIZE: &str = concat!(
        "CASE WHEN (SELECT COALESCE(SUM(",
        size!(),
        "), 0) FROM c CROSS JOIN messages m",
        newest!()
    );
    const MESSAGES: &str =
        concat!(" FROM c CROSS JOIN messages m LEFT JOIN users u ON u.id = m.user_id", newest!());
    if room.each == 0 {
        return statement.push("'[]')");
    }
    let statement = statement.push("SELECT ").push(SIZE).push_bind(room.each);
    let statement = statement.push(") <= ").push_bind(room.bytes()).push(" THEN (SELECT ");
    let statement = statement.push_json_of_rows(message_columns!());
    statement.push(MESSAGES).push_bind(room.each).push(") END)")
}

/// The newest messages that there is room for.
fn fitting<'c>(statement: Query<'c>, selection: Selection<'_>, room: Room) -> Query<'c> {
    const SIZES: &str = concat!("SELECT m.id AS id, SUM(", size!(), ") OVER (ORDER BY ");
    statement
        .push("SELECT ")
        .push_json_of_rows(message_columns!())
        .push(" FROM (")
        .push(SIZES)
        .push(shown_first(selection))
        .push(concat!(", m.seq DESC) AS total FROM c CROSS JOIN messages m", newest!()))
        .push_bind(room.each)
        // Here, too, SQLite would take the messages first: all there are.
        .push(") AS size CROSS JOIN messages m LEFT JOIN users u ON u.id = m.user_id")
        .push(" WHERE m.id = size.id AND size.total <= ")
        .push_bind(room.bytes())
        .push(")")
}

/// The order in which the conversations selected are shown.
fn shown_first(selection: Selection<'_>) -> &'static str {
    let (slice, order) = match selection {
        Selection::One(..) => return "c.id",
        Selection::Listed { slice, .. } => (slice, slice.order()),
    };
    match (slice, order) {
        (ConversationSlice::ById(_), Direction::Ascending) => "c.id",
        (ConversationSlice::ById(_), Direction::Descending) => "c.id DESC",
        (ConversationSlice::Recent(_), Direction::Ascending) => "c.active_at, c.id",
        (ConversationSlice::Recent(_), Direction::Descending) => "c.active_at DESC, c.id DESC",
    }
}
