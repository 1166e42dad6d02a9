//! Messages. Those of a conversation have their places by time, and by id where that is the same.

use super::conversations::Place;
use super::report::Done;
use super::repository::{self, NewMessage};
use super::source::MessageRow;
use super::{MoveError, Mover, values};
use chrono::{DateTime, Utc};
use serde_json::json;

const TABLE: &str = "messages";
const ROLES: [&str; 3] = ["user", "assistant", "system"];
/// Longest message that is taken over HTTP.
const MAX_CONTENT: usize = 100_000;

impl Mover<'_> {
    /// Finds the places of messages, and notes those that have none.
    pub(super) async fn place_messages(&mut self) -> Result<(), MoveError> {
        let found = self.source.count(TABLE).await?.unsigned_abs();
        self.count(TABLE).found = found;
        self.begin("sorting messages", None);
        let placed = self.source.place_messages().await?.unsigned_abs();
        if placed == found {
            return Ok(());
        }
        let mut after = i64::MIN;
        loop {
            let page = self.source.orphans(after).await?;
            let Some(last) = page.last().map(|(id, _)| *id) else { return Ok(()) };
            for (id, conversation) in page {
                let why = match conversation {
                    Some(conversation) => format!("there is no conversation {conversation}"),
                    None => "it names no conversation".to_owned(),
                };
                self.count(TABLE).left_out += 1;
                self.note((TABLE, id), "orphan", Done::LeftOut, why)?;
            }
            after = last;
        }
    }

    pub(super) async fn take_messages(&mut self) -> Result<(), MoveError> {
        let total = self.count(TABLE).found;
        self.begin("messages", Some(total));
        let mut page = self.source.messages(i64::MIN).await?;
        while let Some(last) = page.last().map(|row| row.id) {
            let rows = page.len() as u64;
            let mut new = Vec::with_capacity(page.len());
            for row in page {
                let taken = self.message(row)?;
                new.extend(taken);
            }
            self.count(TABLE).imported += new.len() as u64;
            if self.options.dry_run {
                page = self.source.messages(last).await?;
            } else {
                // The next ones are read while these are written.
                let write = repository::insert_messages(&mut self.tx, &new);
                let (next, ()) = tokio::try_join!(self.source.messages(last), write)?;
                page = next;
            }
            self.progress.advance(rows);
        }
        self.note_grown()?;
        let floor = self.ids.conversations.floor;
        Ok(repository::count_messages(&mut self.tx, floor).await?)
    }

    /// The message as it is here; `None` where its conversation was here before.
    fn message(&mut self, message: MessageRow) -> Result<Option<NewMessage>, MoveError> {
        let row = (TABLE, message.id);
        let (conversation_id, since) = match self.conversations.get_mut(&message.conversation_id) {
            Some(Place::New { id, since }) => (*id, *since),
            Some(Place::Here { found, .. }) => {
                *found += 1;
                self.count(TABLE).here += 1;
                return Ok(None);
            }
            None => return Ok(None),
        };
        let said_at = message.created_at.as_deref().and_then(values::time);
        if said_at.is_none() {
            let why =
                "when it was said cannot be read; the beginning of its conversation stands in";
            self.note(row, "time_unreadable", Done::Changed, why)?;
        }
        let created_at = said_at.unwrap_or(since);
        let user_id = self.author(row, message.user_id.as_deref(), said_at)?;
        let (role, metadata) = self.role(row, message.role, user_id.is_some())?;
        if message.content.is_none() {
            self.note(
                row,
                "text_mended",
                Done::Changed,
                "it had no content, not even an empty one",
            )?;
        }
        let content = self.text(row, "content", message.content)?.unwrap_or_default();
        if content.len() > MAX_CONTENT && content.chars().count() > MAX_CONTENT {
            let why = format!("it has more than {MAX_CONTENT} characters; it is kept whole");
            self.note(row, "long", Done::Kept, why)?;
        }
        if self.secrets.stand_in_speech(&content) {
            let why = "an API key stands in it, which whoever reads it can use: rotate that key";
            self.note(row, "key_inside", Done::Kept, why)?;
        }
        let id = self.ids.messages.give(message.id);
        let seq = message.seq;
        let new =
            NewMessage { id, conversation_id, seq, role, content, user_id, metadata, created_at };
        Ok(Some(new))
    }

    /// Whose message it is: nobody's where that user is not there, or came only later. The original
    /// gives the ids of users who were deleted to others, and with them what they had said.
    fn author(
        &mut self,
        row: (&'static str, i64),
        user_id: Option<&[u8]>,
        said_at: Option<DateTime<Utc>>,
    ) -> Result<Option<i64>, MoveError> {
        let Some(raw) = user_id else { return Ok(None) };
        let Some(original) = values::id(raw) else {
            let why = "what it names as its user is no id: it is nobody's";
            self.note(row, "unknown_user", Done::Changed, why)?;
            return Ok(None);
        };
        match self.users.get(&original) {
            Some(person) if !person.came_after(said_at) => Ok(Some(person.id)),
            Some(_) => {
                let why = format!(
                    "user {original} registered only after it was said: it was of a user before \
                     with the same id, and is nobody's"
                );
                self.note(row, "before_its_user", Done::Changed, why)?;
                Ok(None)
            }
            None => {
                let why = format!("there is no user {original}: it is nobody's");
                self.note(row, "unknown_user", Done::Changed, why)?;
                Ok(None)
            }
        }
    }

    /// Its role, and what keeps the one it had if that is none here.
    fn role(
        &mut self,
        row: (&'static str, i64),
        raw: Option<Vec<u8>>,
        has_user: bool,
    ) -> Result<(&'static str, Option<String>), MoveError> {
        let text = values::text(raw.unwrap_or_default()).0;
        if let Some(role) = ROLES.into_iter().find(|role| *role == text) {
            return Ok((role, None));
        }
        let lower = text.trim().to_lowercase();
        let similar = ROLES.into_iter().find(|role| *role == lower);
        let role = similar.unwrap_or(if has_user { "user" } else { "assistant" });
        let why = format!(
            "there is no role '{}': it is '{role}', and the metadata keep the other",
            self.secrets.taken_out(text.clone()).replace(char::is_control, "\u{fffd}")
        );
        self.note(row, "role_mended", Done::Changed, why)?;
        let kept: String = self.secrets.taken_out(text).chars().take(255).collect();
        Ok((role, Some(json!({ "original_role": kept }).to_string())))
    }

    /// Notes conversations that were here before and have more messages in the original.
    fn note_grown(&mut self) -> Result<(), MoveError> {
        let places = self.conversations.iter();
        let mut grown: Vec<(i64, i64)> = places
            .filter_map(|(id, place)| match place {
                Place::Here { messages, found } if found > messages => {
                    Some((*id, found - messages))
                }
                _ => None,
            })
            .collect();
        grown.sort_unstable();
        for (id, more) in grown {
            let why = format!("it was here already, and has {more} more messages in the original");
            self.note(("conversations", id), "grown", Done::Kept, why)?;
        }
        Ok(())
    }
}
