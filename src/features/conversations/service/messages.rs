//! The rules of messages.

use super::quota::{self, Added};
use super::{NOT_FOUND, commit};
use crate::audit::{Action, Origin};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::db::{Db, Tx};
use crate::features::conversations::model::{
    Message, MessageChanges, Metadata, NewMessage, Participant, ROLES,
};
use crate::features::conversations::repository::{self, messages, participants};
use crate::features::conversations::search::{self, IndexPart};
use crate::http::{Direction, Earlier, IfMatch, Listed, Made, OldestFirst, Once, Window};
use crate::security::Reach;
use crate::state::AppState;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

const NO_MESSAGE: Error = Error::NotFound("Message");

/// Appends a message. Its number is taken in the same transaction, so messages are in the order in
/// which they were accepted, on every reader's screen.
pub async fn append(
    app: &AppState,
    id: i64,
    author: Author,
    new: NewMessage,
    once: Option<&Once>,
) -> Result<Made<Message<'static>>> {
    let made = append_all(app, id, author, vec![new], once).await?;
    let first = |messages: Vec<Message<'static>>| messages.into_iter().next().ok_or(NO_MESSAGE);
    Ok(match made {
        Made::Now(messages) => Made::Now(first(messages)?),
        Made::Before(messages) => Made::Before(first(messages)?),
    })
}

/// Appends messages one after the other, nobody else's between them; all of them or none.
pub async fn append_all(
    app: &AppState,
    id: i64,
    Author { reach, may_read }: Author,
    mut new: Vec<NewMessage>,
    once: Option<&Once>,
) -> Result<Made<Vec<Message<'static>>>> {
    for message in &mut new {
        attribute(reach, message)?;
    }
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    if let Some(once) = once
        && let Some(earlier) = once.claim(&mut tx, now).await?
    {
        let mut messages = earlier_messages(&mut tx, id, reach, earlier).await?;
        if !may_read {
            messages = messages.into_iter().zip(new).map(as_sent).collect();
        }
        return Ok(Made::Before(messages));
    }
    let count = i64::try_from(new.len()).unwrap_or(i64::MAX);
    let bytes = new.iter().map(|message| message.content.len()).sum();
    let Stored { first_seq, ids, created_at, speakers } = match (reach, &*new) {
        (Reach::Everything, [new]) if new.user_id.is_none() => {
            let written = messages::append_one(&mut tx, id, new, now).await?;
            let (first_seq, message_id, created_at) = written.ok_or(NOT_FOUND)?;
            Stored { first_seq, ids: vec![message_id], created_at, speakers: HashMap::new() }
        }
        (_, new) => {
            let stored = write(&mut tx, id, reach, (new, count), now).await?;
            quota::count(app, &mut tx, id, reach, Added::messages(new)).await?;
            stored
        }
    };
    let written = IndexPart::of(new.len(), bytes);
    if !written.is_large() {
        search::keep_up(&mut tx, written).await?;
    }
    if let Some(once) = once {
        once.made(&mut tx, ids.first().copied().unwrap_or_default(), count).await?;
    }
    commit(app, tx, id).await?;
    if written.is_large() {
        search::keep_up_after(&app.db, written).await;
    }
    let appended = (first_seq..).zip(ids).zip(new).map(|((seq, message_id), new)| {
        let user_id = new.user_id.filter(|_| may_read);
        let user = user_id.and_then(|user_id| speakers.get(&user_id).cloned());
        appended(id, seq, message_id, new, user, created_at)
    });
    Ok(Made::Now(appended.collect()))
}

/// Who appends messages.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    /// The conversations they may write to.
    pub reach: Reach,
    /// Whether answers may show more than they sent.
    pub may_read: bool,
}

/// Messages as they were written.
struct Stored {
    first_seq: i64,
    ids: Vec<i64>,
    created_at: Timestamp,
    speakers: HashMap<i64, Participant<'static>>,
}

async fn write(
    tx: &mut Tx,
    id: i64,
    reach: Reach,
    (new, count): (&[NewMessage], i64),
    now: DateTime<Utc>,
) -> Result<Stored> {
    let next = messages::next_seqs(tx, id, reach, count, now).await?;
    let (last_seq, created_at) = next.ok_or(NOT_FOUND)?;
    let first_seq = last_seq - count + 1;
    let speakers = speakers(tx, id, reach, new).await?;
    let ids = messages::insert(tx, id, first_seq, new, created_at).await?;
    Ok(Stored { first_seq, ids, created_at, speakers })
}

/// Says who speaks: somebody logged in, only for themselves and as nobody else.
fn attribute(reach: Reach, new: &mut NewMessage) -> Result<()> {
    if !ROLES.contains(&new.role.as_str()) {
        return Err(Error::Refused("Role must be 'user', 'assistant', or 'system'".into()));
    }
    let Some(own) = reach.user_id() else { return Ok(()) };
    if new.role != "user" {
        return Err(Error::Forbidden("A logged-in user may only post as 'user'".into()));
    }
    if new.user_id.is_some_and(|user_id| user_id != own) {
        return Err(Error::Forbidden("A logged-in user may only post as themselves".into()));
    }
    new.user_id = Some(own);
    Ok(())
}

/// The users who speak in `new`, all of whom take part.
async fn speakers(
    tx: &mut Tx,
    id: i64,
    reach: Reach,
    new: &[NewMessage],
) -> Result<HashMap<i64, Participant<'static>>> {
    let user_ids: HashSet<i64> = new.iter().filter_map(|message| message.user_id).collect();
    let speakers = participants::find_all(tx, id, &user_ids, reach).await?;
    if speakers.len() == user_ids.len() {
        return Ok(speakers);
    }
    Err(match reach {
        Reach::Everything => {
            Error::Forbidden("User is not a participant in this conversation".into())
        }
        // Who left while this request waited for the lock.
        Reach::OwnOf(_) => NOT_FOUND,
    })
}

/// What the same request appended before, as it is now, if it is still within reach.
async fn earlier_messages(
    tx: &mut Tx,
    id: i64,
    reach: Reach,
    earlier: Earlier,
) -> Result<Vec<Message<'static>>> {
    let first = messages::find(&mut *tx, id, earlier.id, reach).await?.ok_or(NOT_FOUND)?;
    Ok(messages::numbered(tx, id, reach, first.seq, first.seq + earlier.count - 1).await?)
}

fn appended(
    conversation_id: i64,
    seq: i64,
    id: i64,
    new: NewMessage,
    user: Option<Participant<'static>>,
    created_at: Timestamp,
) -> Message<'static> {
    Message {
        id,
        conversation_id,
        seq,
        role: new.role.into(),
        content: new.content.into(),
        user_id: new.user_id,
        user,
        metadata: Metadata::shown(new.metadata.map(Metadata::into_string)),
        created_at,
        edited_at: None,
        deleted_at: None,
        version: 1,
    }
}

/// An earlier message as the request that appended it sent it: for a caller who may not read what
/// became of it since.
fn as_sent((stored, new): (Message<'static>, NewMessage)) -> Message<'static> {
    let (id, seq, created_at) = (stored.id, stored.seq, stored.created_at);
    let sent = appended(stored.conversation_id, seq, id, new, None, created_at);
    Message { version: stored.version, ..sent }
}

/// The numbers of the messages on a page, in the order in which they are shown.
pub async fn numbers(
    db: &Db,
    id: i64,
    reach: Reach,
    window: Window<OldestFirst>,
) -> Result<Listed<i64>> {
    let slice = window.resolve(("messages", id))?;
    let last = repository::last_seq(db, id, reach).await?.ok_or(NOT_FOUND)?;
    Ok(slice.numbers(last))
}

/// Messages of a conversation that are read in parts, so that no client makes the server hold many.
#[derive(Debug)]
pub struct Parts {
    db: Db,
    conversation_id: i64,
    reach: Reach,
    /// The numbers of the first and the last message that are not read yet, first the smaller one.
    left: (i64, i64),
    order: Direction,
}

impl Parts {
    /// Messages read at once.
    const MOST: i64 = 50;

    /// Those with the numbers `first` to `last`, in this order.
    pub fn new(
        (db, reach): (Db, Reach),
        conversation_id: i64,
        (first, last): (i64, i64),
        order: Direction,
    ) -> Self {
        Self { db, conversation_id, reach, left: (first, last), order }
    }

    /// Those with `numbers`, which follow one another.
    pub fn of_numbers(db: Db, conversation_id: i64, reach: Reach, numbers: &[i64]) -> Self {
        let (first, last) = match numbers {
            [first, .., last] => (*first, *last),
            [one] => (*one, *one),
            [] => (1, 0),
        };
        let is_descending = numbers.len() > 1 && first > last;
        let order = if is_descending { Direction::Descending } else { Direction::Ascending };
        let left = if is_descending { (last, first) } else { (first, last) };
        Self::new((db, reach), conversation_id, left, order)
    }

    /// Whether all are read.
    pub fn is_empty(&self) -> bool {
        self.left.0 > self.left.1
    }

    /// The next ones; none where all are read. Fails where the conversation was deleted or left
    /// meanwhile.
    pub async fn next(&mut self) -> Result<Vec<Message<'static>>> {
        if self.is_empty() {
            return Ok(vec![]);
        }
        let (first, last) = self.left;
        let range = match self.order {
            Direction::Ascending => (first, last.min(first + Self::MOST - 1)),
            Direction::Descending => (first.max(last - Self::MOST + 1), last),
        };
        let found =
            messages::part(&self.db, self.conversation_id, self.reach, range, self.order).await?;
        let (Some(one), Some(other)) = (found.first(), found.last()) else {
            return Err(NOT_FOUND);
        };
        let (read_first, read_last) = (one.seq.min(other.seq), one.seq.max(other.seq));
        if i64::try_from(found.len()) != Ok(read_last - read_first + 1) {
            return Err(Error::Internal("messages without numbers".into()));
        }
        self.left = match self.order {
            Direction::Ascending => (read_last + 1, last),
            Direction::Descending => (first, read_first - 1),
        };
        Ok(found)
    }
}

/// One message.
pub async fn get(db: &Db, id: i64, message_id: i64, reach: Reach) -> Result<Message<'static>> {
    let mut snapshot = db.snapshot().await?;
    if !repository::exists(&mut snapshot, id, reach).await? {
        return Err(NOT_FOUND);
    }
    messages::find(&mut snapshot, id, message_id, reach).await?.ok_or(NO_MESSAGE)
}

/// Changes a message: its author's own, or any for a key. Fails with 412 when `meant` is for
/// another version of it.
pub async fn edit(
    app: &AppState,
    (id, message_id): (i64, i64),
    (reach, by): (Reach, Option<&Origin>),
    meant: &IfMatch,
    changes: &MessageChanges,
) -> Result<Message<'static>> {
    let mut tx = app.db.begin().await?;
    let message = changeable(&mut tx, id, message_id, reach, meant).await?;
    if message.deleted_at.is_some() {
        return Err(Error::Conflict("This message was deleted".into()));
    }
    if changes.content.is_none() && changes.metadata.is_none() {
        return Ok(message);
    }
    let (now, rewritten) = (app.clock.now(), rewritten(&message, by));
    repository::touch(&mut tx, id, now).await?;
    messages::update(&mut tx, message_id, changes, now).await?;
    quota::count(app, &mut tx, id, reach, Added::changed(&message, changes)).await?;
    let message = messages::find(&mut tx, id, message_id, reach).await?.ok_or(NO_MESSAGE)?;
    let details = details(&message);
    app.audit.record_of_key(&mut tx, rewritten, Action::EditMessage, &details, now).await?;
    commit(app, tx, id).await?;
    Ok(message)
}

/// The key that changes `message`, where a user wrote it. What programs wrote, and rewrite while
/// they write it, is not recorded.
fn rewritten<'o>(message: &Message<'_>, by: Option<&'o Origin>) -> Option<&'o Origin> {
    by.filter(|_| message.user_id.is_some() || message.role.is("user"))
}

/// What the audit log says of a changed message: never its content.
fn details(message: &Message<'_>) -> Value {
    json!({
        "conversation_id": message.conversation_id,
        "message_id": message.id,
        "user_id": message.user_id,
        "version": message.version,
    })
}

/// Takes away what a message said; its place stays. Twice is as good as once.
pub async fn delete(
    app: &AppState,
    (id, message_id): (i64, i64),
    (reach, by): (Reach, Option<&Origin>),
    meant: &IfMatch,
) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let message = changeable(&mut tx, id, message_id, reach, meant).await?;
    if message.deleted_at.is_some() {
        return Ok(());
    }
    let now = app.clock.now();
    repository::touch(&mut tx, id, now).await?;
    messages::erase(&mut tx, message_id, now).await?;
    quota::count(app, &mut tx, id, reach, Added::erased(&message)).await?;
    let (rewritten, details) = (rewritten(&message, by), details(&message));
    app.audit.record_of_key(&mut tx, rewritten, Action::DeleteMessage, &details, now).await?;
    commit(app, tx, id).await
}

/// The message, which nobody else changes until `tx` ends, if the caller may change it.
async fn changeable(
    tx: &mut Tx,
    id: i64,
    message_id: i64,
    reach: Reach,
    meant: &IfMatch,
) -> Result<Message<'static>> {
    if !repository::lock(&mut *tx, id, reach).await? {
        return Err(NOT_FOUND);
    }
    let message = messages::find(tx, id, message_id, reach).await?.ok_or(NO_MESSAGE)?;
    let is_own = |own| message.user_id == Some(own) && message.role.is("user");
    if reach.user_id().is_some_and(|own| !is_own(own)) {
        return Err(Error::Forbidden("Only its author may change a message".into()));
    }
    meant.check(message.version)?;
    Ok(message)
}
