//! Conversations with what belongs to them, in one statement: it sees one state of the database, and
//! what it finds comes back in one row.

use super::messages::{MessageRow, message_columns};
use super::{ConversationRow, ConversationSlice, Selection, within_reach};
use crate::db::{On, Query, from_json, query};
use crate::features::conversations::model::{Message, Participant};
use crate::http::Direction;
use crate::security::Reach;
use sqlx::Result;

/// Conversations, those who take part in them, and their newest messages.
#[derive(Debug)]
pub struct Found {
    /// In the order in which their list was walked.
    pub conversations: Vec<ConversationRow>,
    /// With the conversation's id; by that and then by their own.
    pub participants: Vec<(i64, Participant)>,
    /// By conversation and then in their order.
    pub messages: Vec<Message>,
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
    let mut participants: Vec<(i64, i64, String, String)> = from_json(&participants)?;
    participants.sort_unstable_by_key(|(conversation_id, id, ..)| (*conversation_id, *id));
    let participants = participants.into_iter().map(|(conversation_id, id, name, email)| {
        (conversation_id, Participant::seen_by(reach, id, name, email))
    });
    let messages: Vec<MessageRow> = from_json(messages.as_deref().unwrap_or("[]"))?;
    let mut messages: Vec<Message> = messages.into_iter().map(|row| row.seen_by(reach)).collect();
    messages.sort_unstable_by_key(|message| (message.conversation_id, message.seq));
    Ok(Found { conversations, participants: participants.collect(), messages })
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
