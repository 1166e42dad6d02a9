//! Imports messages. Their positions in a conversation follow their times, then their ids.

use super::error::ImportError;
use super::importer::{Importer, SourceRow};
use super::report::Done;
use super::repository::{self, NewMessage};
use super::source::MessageRow;
use super::targets::ConversationTarget;
use super::values;
use crate::core::datetime::history;
use crate::features::conversations::model::ROLES;
use chrono::{DateTime, Utc};
use serde_json::json;

const TABLE: &str = "messages";
/// Maximum length of a message in the API, in characters.
const MAX_CONTENT: usize = 100_000;

impl Importer<'_> {
    /// Determines the position of each message; adds notes for messages without a conversation.
    pub(super) async fn assign_positions(&mut self) -> Result<(), ImportError> {
        let found = self.source.count(TABLE).await?.unsigned_abs();
        self.count(TABLE).found = found;
        self.begin("sorting messages", None);
        let placed = self.source.assign_positions().await?.unsigned_abs();
        if placed == found {
            return Ok(());
        }
        let mut after = i64::MIN;
        loop {
            let page = self.source.orphans(after).await?;
            let Some(last) = page.last().map(|(id, _)| *id) else { return Ok(()) };
            for (id, conversation) in page {
                let why = match conversation {
                    Some(conversation) => format!("conversation {conversation} does not exist"),
                    None => "it has no valid conversation id".to_owned(),
                };
                self.count(TABLE).left_out += 1;
                let row = SourceRow { table: TABLE, id };
                self.note(row, "orphan", Done::LeftOut, why)?;
            }
            after = last;
        }
    }

    pub(super) async fn import_messages(&mut self) -> Result<(), ImportError> {
        let total = self.count(TABLE).found;
        self.begin("messages", Some(total));
        let mut page = self.source.messages(i64::MIN).await?;
        while let Some(last) = page.last().map(|row| row.id) {
            let rows = page.len() as u64;
            let mut new = Vec::with_capacity(page.len());
            for row in page {
                let message = self.message(row)?;
                new.extend(message);
            }
            self.count(TABLE).imported += new.len() as u64;
            if self.options.dry_run {
                page = self.source.messages(last).await?;
            } else {
                // Read the next page while this one is written.
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

    /// The message to insert; `None` if its conversation existed before.
    fn message(&mut self, message: MessageRow) -> Result<Option<NewMessage>, ImportError> {
        let row = SourceRow { table: TABLE, id: message.id };
        let (conversation_id, since) = match self.conversations.get_mut(&message.conversation_id) {
            Some(ConversationTarget::New { id, since }) => (*id, *since),
            Some(ConversationTarget::Here { found, .. }) => {
                *found += 1;
                self.count(TABLE).here += 1;
                return Ok(None);
            }
            None => return Ok(None),
        };
        let sent_at = message.created_at.as_deref().and_then(values::time);
        let created_at = self.sent_at(row, sent_at, since)?;
        let user_id = self.author(row, message.user_id.as_deref(), sent_at)?;
        let (role, metadata) = self.role(row, message.role, user_id.is_some())?;
        if message.content.is_none() {
            self.note(row, "text_mended", Done::Changed, "its content was null; it is now empty")?;
        }
        let content = self.text(row, "content", message.content)?.unwrap_or_default();
        if content.len() > MAX_CONTENT && content.chars().count() > MAX_CONTENT {
            let why = format!("it has more than {MAX_CONTENT} characters and is kept whole");
            self.note(row, "long", Done::Kept, why)?;
        }
        if self.secrets.found_in_message(&content) {
            let why = "it contains an API key, which all its readers can use: rotate that key";
            self.note(row, "key_inside", Done::Kept, why)?;
        }
        let id = self.ids.messages.give(message.id);
        let seq = message.seq;
        let new =
            NewMessage { id, conversation_id, seq, role, content, user_id, metadata, created_at };
        Ok(Some(new))
    }

    /// The time to store for a message that was sent at `sent_at`, in a conversation that began at
    /// `since`.
    fn sent_at(
        &mut self,
        row: SourceRow,
        sent_at: Option<DateTime<Utc>>,
        since: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, ImportError> {
        let range = history(self.now);
        let (time, why) = match sent_at {
            Some(time) if range.contains(&time) => return Ok(time),
            // Not earlier: retention would remove a conversation that is in use.
            Some(time) if time > *range.end() => {
                (self.now, "its time is in the future; it is set to the time of the import")
            }
            Some(_) => {
                (since, "its time is before 1970; it is set to the start of its conversation")
            }
            None => {
                (since, "its time cannot be parsed; it is set to the start of its conversation")
            }
        };
        self.note(row, "time_unreadable", Done::Changed, why)?;
        Ok(time)
    }

    /// The author of the message. There is none if the user does not exist or registered after the
    /// message was sent: the FastAPI app reuses the ids of deleted users, and their messages then
    /// appear to be those of the new user.
    fn author(
        &mut self,
        row: SourceRow,
        user_id: Option<&[u8]>,
        sent_at: Option<DateTime<Utc>>,
    ) -> Result<Option<i64>, ImportError> {
        let Some(raw) = user_id else { return Ok(None) };
        let Some(original) = values::id(raw) else {
            let why = "its user id is invalid: it has no author";
            self.note(row, "unknown_user", Done::Changed, why)?;
            return Ok(None);
        };
        match self.users.get(&original) {
            Some(user) if !user.registered_after(sent_at) => Ok(Some(user.id)),
            Some(_) => {
                let why = format!(
                    "user {original} registered after it was sent: its author was an earlier user \
                     with the same id; it has no author"
                );
                self.note(row, "before_its_user", Done::Changed, why)?;
                Ok(None)
            }
            None => {
                let why = format!("user {original} does not exist: it has no author");
                self.note(row, "unknown_user", Done::Changed, why)?;
                Ok(None)
            }
        }
    }

    /// The role of the message, and metadata with the original role if it is unknown.
    fn role(
        &mut self,
        row: SourceRow,
        raw: Option<Vec<u8>>,
        has_user: bool,
    ) -> Result<(&'static str, Option<String>), ImportError> {
        let text = values::text(raw.unwrap_or_default()).0;
        if let Some(role) = ROLES.into_iter().find(|role| *role == text) {
            return Ok((role, None));
        }
        let lower = text.trim().to_lowercase();
        let similar = ROLES.into_iter().find(|role| *role == lower);
        let role = similar.unwrap_or(if has_user { "user" } else { "assistant" });
        let why = format!(
            "unknown role '{}': it is now '{role}', and the metadata keeps the original role",
            self.secrets.redact(text.clone()).replace(char::is_control, "\u{fffd}")
        );
        self.note(row, "role_mended", Done::Changed, why)?;
        let kept: String = self.secrets.redact(text).chars().take(255).collect();
        Ok((role, Some(json!({ "original_role": kept }).to_string())))
    }

    /// Adds notes for existing conversations that have more messages in the source.
    fn note_grown(&mut self) -> Result<(), ImportError> {
        let places = self.conversations.iter();
        let mut grown: Vec<(i64, i64)> = places
            .filter_map(|(id, place)| match place {
                ConversationTarget::Here { messages, found } if found > messages => {
                    Some((*id, found - messages))
                }
                _ => None,
            })
            .collect();
        grown.sort_unstable();
        for (id, more) in grown {
            let why = format!("it existed before; {more} new messages are not imported");
            let row = SourceRow { table: "conversations", id };
            self.note(row, "grown", Done::Kept, why)?;
        }
        Ok(())
    }
}
