//! Imports conversations. Each line is validated on arrival and spooled until its conversation is
//! complete. The conversation is then written completely or not at all. No transaction is open
//! while the server waits for the client.

use super::model::{
    ConversationLine, ImportOptions, ImportReport, ImportedConversation, MessageLine,
    ParticipantsLine, REPORTED, Sought, SpooledPart, UserMatches,
};
use super::repository::{self, NewConversation};
use super::spool::{Spool, Spooled};
use super::writer::Writer;
use crate::core::error::{Error, FieldError, Loc, Result};
use crate::http::{NdjsonBody, NdjsonLine};
use crate::security::Actor;
use crate::state::AppState;
use chrono::{DateTime, Utc};
use serde_json::Value;

/// Maximum number of participants in one spooled part.
const PARTICIPANTS_PER_PART: usize = 1000;

/// A conversation that has not arrived completely.
struct PendingConversation {
    line: NdjsonLine,
    conversation: ImportedConversation,
    /// `None` if the conversation already exists.
    spool: Option<Spool>,
    messages: i64,
    last_message_at: Option<DateTime<Utc>>,
}

/// Imports every conversation of `lines` that does not exist yet. Fails with 422 if a line is
/// invalid; conversations imported before it are kept.
pub async fn import(
    app: &AppState,
    actor: &Actor,
    options: ImportOptions,
    mut lines: NdjsonBody,
) -> Result<ImportReport> {
    let mut import = Import { app, actor, options, report: ImportReport::default() };
    let outcome = import.run(&mut lines).await;
    let ImportReport { imported, skipped, messages, .. } = import.report;
    tracing::info!(
        event = "conversations.imported",
        imported,
        skipped,
        messages,
        whole = outcome.is_ok(),
        "imported conversations"
    );
    match outcome {
        Ok(()) => Ok(import.report),
        Err(error) => Err(import.with_import_counts(error)),
    }
}

struct Import<'a> {
    app: &'a AppState,
    actor: &'a Actor,
    options: ImportOptions,
    report: ImportReport,
}

impl Import<'_> {
    async fn run(&mut self, lines: &mut NdjsonBody) -> Result<()> {
        let mut open = None;
        while let Some(line) = self.next(lines).await? {
            open = self.line(line, open).await?;
        }
        self.finish(open).await
    }

    /// Reads the next line. Fails with 503 on shutdown: the client can repeat the import.
    async fn next(&self, lines: &mut NdjsonBody) -> Result<Option<NdjsonLine>> {
        tokio::select! {
            line = lines.next() => line,
            () = self.app.stopping.cancelled() => {
                Err(Error::Unavailable("The server is shutting down"))
            }
        }
    }

    /// Processes a line. Returns the conversation that is open after it.
    async fn line(
        &mut self,
        line: NdjsonLine,
        open: Option<PendingConversation>,
    ) -> Result<Option<PendingConversation>> {
        let (now, config) = (self.app.clock.now(), &self.app.config);
        match line.text("type") {
            // Users are not imported: they register themselves.
            Some("user") => {
                self.finish(open).await?;
                Ok(None)
            }
            Some("conversation") => {
                // The previous conversation is complete, even if this line is invalid.
                self.finish(open).await?;
                let conversation = line.check::<ConversationLine>(now, config).await?;
                self.begin(line, conversation).await.map(Some)
            }
            Some("participants") => {
                let people = line.check::<ParticipantsLine>(now, config).await?;
                let mut open = open.ok_or_else(|| orphan_line(&line))?;
                open.spool_participants(&people).await?;
                Ok(Some(open))
            }
            Some("message") => {
                let message = line.check::<MessageLine>(now, config).await?;
                let mut open = open.ok_or_else(|| orphan_line(&line))?;
                open.messages += 1;
                open.last_message_at = Some(message.created_at);
                open.spool_part(&SpooledPart::Message(message)).await?;
                Ok(Some(open))
            }
            _ => {
                let msg = "Input should be 'conversation', 'participants', 'message' or 'user'";
                Err(line.refusal("type", "enum", msg))
            }
        }
    }

    async fn begin(
        &self,
        line: NdjsonLine,
        mut conversation: ImportedConversation,
    ) -> Result<PendingConversation> {
        let exists_by_external_id =
            repository::exists_by_external_id(&self.app.db, &conversation.external_id).await?;
        let people = std::mem::take(&mut conversation.participants);
        let spool = (!exists_by_external_id).then(|| Spool::new(&self.app.db));
        let mut open =
            PendingConversation { line, conversation, spool, messages: 0, last_message_at: None };
        open.spool_participants(&people).await?;
        Ok(open)
    }

    /// Writes a conversation that has arrived. Fails with 422 if messages are missing.
    async fn finish(&mut self, open: Option<PendingConversation>) -> Result<()> {
        let Some(mut open) = open else { return Ok(()) };
        if open.conversation.message_count.is_some_and(|count| count != open.messages) {
            let msg = format!("Value error, {} messages follow", open.messages);
            return Err(open.line.refusal("message_count", "value_error", msg));
        }
        let Some(spool) = open.spool.take() else {
            self.report.skipped += 1;
            return Ok(());
        };
        match self.write(&open, spool.read().await?).await? {
            None => self.report.skipped += 1,
            Some(matches) => {
                self.report.imported += 1;
                self.report.messages += open.messages.unsigned_abs();
                self.report(matches);
            }
        }
        Ok(())
    }

    /// Writes a conversation and returns its matching results. `None` if a concurrent import was
    /// faster.
    async fn write(
        &self,
        open: &PendingConversation,
        parts: Spooled,
    ) -> Result<Option<UserMatches>> {
        let conversation = &open.conversation;
        let active_at = open.last_message_at.unwrap_or(conversation.created_at);
        let new = NewConversation {
            title: conversation.title.as_deref(),
            metadata: conversation.metadata.as_ref(),
            last_seq: open.messages,
            active_at,
            created_at: conversation.created_at,
            updated_at: conversation.updated_at.unwrap_or(active_at),
        };
        let mut writer =
            Writer::begin(self.app, self.actor, &new, self.options.attach_newer_accounts).await?;
        let outcome = writer.write(parts, &conversation.external_id).await;
        if !matches!(outcome, Ok(Some(_))) {
            writer.abandon().await;
        }
        outcome
    }

    fn report(&mut self, matches: UserMatches) {
        let report = &mut self.report;
        merge(&mut report.unmatched, &mut report.unmatched_truncated, matches.unmatched);
        merge(&mut report.matched, &mut report.matched_truncated, matches.matched);
        merge(&mut report.newer_accounts, &mut report.newer_accounts_truncated, matches.newer);
    }

    /// Adds the numbers of imported conversations to the error of an invalid line.
    fn with_import_counts(&self, error: Error) -> Error {
        let ImportReport { imported, skipped, .. } = self.report;
        let Error::Invalid(mut problems) = error else { return error };
        if imported + skipped > 0 {
            let loc: Vec<Loc> = problems
                .first()
                .map(|first| first.loc.iter().take(2).cloned().collect())
                .unwrap_or_default();
            let msg = format!(
                "Earlier conversations are kept: {imported} imported, {skipped} already present"
            );
            problems.push(FieldError { r#type: "stopped".into(), loc, msg, input: Value::Null });
        }
        Error::Invalid(problems)
    }
}

impl PendingConversation {
    /// Spools participants in parts, because each part is read back completely in a transaction.
    async fn spool_participants(&mut self, people: &[Sought]) -> Result<()> {
        for people in people.chunks(PARTICIPANTS_PER_PART) {
            self.spool_part(&SpooledPart::Participants(people.to_vec())).await?;
        }
        Ok(())
    }

    async fn spool_part(&mut self, part: &SpooledPart) -> Result<()> {
        match &mut self.spool {
            Some(spool) => spool.push(part).await,
            None => Ok(()),
        }
    }
}

/// Adds the entries of `people` that are not in `known`, up to [`REPORTED`].
fn merge<T: PartialEq>(known: &mut Vec<T>, is_truncated: &mut bool, people: Vec<T>) {
    for person in people {
        if known.contains(&person) {
            continue;
        }
        if known.len() == REPORTED {
            *is_truncated = true;
            break;
        }
        known.push(person);
    }
}

/// The error for a line without a preceding conversation.
fn orphan_line(line: &NdjsonLine) -> Error {
    line.refusal("type", "value_error", "Value error, a conversation line must precede it")
}
