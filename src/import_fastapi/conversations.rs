//! Imports conversations and participants.

use super::error::ImportError;
use super::importer::{Importer, SourceRow};
use super::report::Done;
use super::repository::{self, NewConversation};
use super::source::ConversationRow;
use super::targets::ConversationTarget;
use super::values;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

const TABLE: &str = "conversations";
const PARTICIPANTS: &str = "conversation_participants";
/// Maximum length of a title in the API, in characters.
const MAX_TITLE: usize = 255;

impl Importer<'_> {
    pub(super) async fn import_conversations(&mut self) -> Result<(), ImportError> {
        let found = self.source.count(TABLE).await?.unsigned_abs();
        self.count(TABLE).found = found;
        self.begin("conversations", Some(found));
        let mut after = i64::MIN;
        loop {
            let page = self.source.conversations(after).await?;
            let Some(last) = page.last().map(|row| row.id) else { return Ok(()) };
            self.progress.advance(page.len() as u64);
            let mut page = page.into_iter().peekable();
            while page.peek().is_some() {
                self.import_batch(page.by_ref().take(repository::LOOKED_UP).collect()).await?;
            }
            after = last;
        }
    }

    async fn import_batch(&mut self, rows: Vec<ConversationRow>) -> Result<(), ImportError> {
        let names: Vec<String> = rows.iter().map(external_id).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let known = repository::conversations(&mut self.tx, &names).await?;
        let known: HashMap<String, i64> =
            known.into_iter().map(|(name, _, messages)| (name, messages)).collect();
        let mut new = vec![];
        for (row, name) in rows.into_iter().zip(names) {
            let original = row.id;
            if let Some(messages) = known.get(name) {
                let place = ConversationTarget::Here { messages: *messages, found: 0 };
                self.conversations.insert(original, place);
                self.count(TABLE).here += 1;
                continue;
            }
            let at = SourceRow { table: TABLE, id: original };
            let created_at = self.since(at, &[&row.created_at, &row.updated_at])?;
            let title = self.clean_text(at, "title", row.title)?;
            if title.as_ref().is_some_and(|title| title.chars().count() > MAX_TITLE) {
                let why = format!("its title has more than {MAX_TITLE} characters; it is kept");
                self.note(at, "long", Done::Kept, why)?;
            }
            let id = self.ids.conversations.give(original);
            self.renumbered(TABLE, original, id)?;
            let updated_at = row.updated_at.as_deref().and_then(|raw| values::past(raw, self.now));
            new.push(NewConversation {
                id,
                external_id: name.to_owned(),
                title,
                created_at,
                updated_at: updated_at.unwrap_or(created_at),
            });
            self.conversations.insert(original, ConversationTarget::New { id, since: created_at });
            self.count(TABLE).imported += 1;
        }
        Ok(repository::insert_conversations(&mut self.tx, &new).await?)
    }

    pub(super) async fn import_participants(&mut self) -> Result<(), ImportError> {
        let found = self.source.count(PARTICIPANTS).await?.unsigned_abs();
        self.count(PARTICIPANTS).found = found;
        self.begin("participants", Some(found));
        for _ in 0..self.source.empty_participants().await? {
            self.count(PARTICIPANTS).left_out += 1;
            let why = "it has no valid user or conversation id";
            let row = SourceRow { table: PARTICIPANTS, id: 0 };
            self.note(row, "orphan", Done::LeftOut, why)?;
        }
        let mut after = (i64::MIN, i64::MIN);
        loop {
            let page = self.source.participants(after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = *last;
            let mut new = vec![];
            for (user_id, conversation) in page {
                match (self.users.get(&user_id), self.conversations.get(&conversation)) {
                    (Some(user), Some(ConversationTarget::New { id, .. })) => {
                        new.push((user.id, *id));
                    }
                    (_, Some(ConversationTarget::Here { .. })) => {
                        self.count(PARTICIPANTS).here += 1;
                    }
                    (known, _) => {
                        let (what, id) = match known {
                            None => ("user", user_id),
                            Some(_) => ("conversation", conversation),
                        };
                        self.count(PARTICIPANTS).left_out += 1;
                        let why = format!(
                            "user {user_id} in conversation {conversation}: {what} {id} does not \
                             exist"
                        );
                        let row = SourceRow { table: PARTICIPANTS, id: user_id };
                        self.note(row, "orphan", Done::LeftOut, why)?;
                    }
                }
            }
            self.count(PARTICIPANTS).imported += new.len() as u64;
            self.progress.advance(new.len() as u64);
            repository::insert_participants(&mut self.tx, &new).await?;
        }
    }
}

/// The external id of the conversation, derived from its immutable id and creation time, so that a
/// second import recognizes it.
fn external_id(row: &ConversationRow) -> String {
    let mut hasher = Sha256::new_with_prefix(b"octopus-import-conversation\0");
    hasher.update(row.id.to_be_bytes());
    hasher.update(row.created_at.as_deref().unwrap_or_default());
    let digits = hex::encode(hasher.finalize());
    digits[..32].to_owned()
}
