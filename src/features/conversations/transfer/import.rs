//! Imports: what arrives is checked line by line and put aside until a conversation is whole. It is
//! then written as a whole or not at all; no transaction waits for a client.

use super::model::{
    ConversationLine, ImportOptions, ImportReport, ImportedConversation, MessageLine, Part,
    ParticipantsLine, People, REPORTED, Sought,
};
use super::repository::{self, NewConversation};
use super::spool::{Spool, Spooled};
use super::writer::Writer;
use crate::core::error::{Error, FieldError, Loc, Result};
use crate::http::{Line, Lines};
use crate::security::Actor;
use crate::state::AppState;
use chrono::{DateTime, Utc};
use serde_json::Value;

/// People who are put aside together.
const PEOPLE: usize = 1000;

/// A conversation that has not arrived as a whole.
struct Arriving {
    line: Line,
    conversation: ImportedConversation,
    /// `None` where it is here already.
    spool: Option<Spool>,
    messages: i64,
    last_message_at: Option<DateTime<Utc>>,
}

/// Takes in every conversation of `lines` that is not here yet. When a line is bad, those before
/// its conversation stay.
pub async fn import(
    app: &AppState,
    actor: &Actor,
    options: ImportOptions,
    mut lines: Lines,
) -> Result<ImportReport> {
    let mut import = Import { app, actor, options, report: ImportReport::default() };
    let outcome = import.take_in(&mut lines).await;
    let ImportReport { imported, skipped, messages, .. } = import.report;
    tracing::info!(
        event = "conversations.imported",
        imported,
        skipped,
        messages,
        whole = outcome.is_ok(),
        "took in conversations"
    );
    match outcome {
        Ok(()) => Ok(import.report),
        Err(error) => Err(import.with_what_stays(error)),
    }
}

struct Import<'a> {
    app: &'a AppState,
    actor: &'a Actor,
    options: ImportOptions,
    report: ImportReport,
}

impl Import<'_> {
    async fn take_in(&mut self, lines: &mut Lines) -> Result<()> {
        let mut open = None;
        while let Some(line) = self.next(lines).await? {
            open = self.line(line, open).await?;
        }
        self.finish(open).await
    }

    /// The next line, unless the server stops: what is not finished can be sent again.
    async fn next(&self, lines: &mut Lines) -> Result<Option<Line>> {
        tokio::select! {
            line = lines.next() => line,
            () = self.app.stopping.cancelled() => {
                Err(Error::Unavailable("The server is shutting down"))
            }
        }
    }

    /// Takes in a line; what is open after it.
    async fn line(&mut self, line: Line, open: Option<Arriving>) -> Result<Option<Arriving>> {
        let (now, config) = (self.app.clock.now(), &self.app.config);
        match line.text("type") {
            // Users are made by registering.
            Some("user") => {
                self.finish(open).await?;
                Ok(None)
            }
            Some("conversation") => {
                // The one before ends here, whatever this line says.
                self.finish(open).await?;
                let conversation = line.check::<ConversationLine>(now, config).await?;
                self.begin(line, conversation).await.map(Some)
            }
            Some("participants") => {
                let people = line.check::<ParticipantsLine>(now, config).await?;
                let mut open = open.ok_or_else(|| stray(&line))?;
                open.put_people_aside(&people).await?;
                Ok(Some(open))
            }
            Some("message") => {
                let message = line.check::<MessageLine>(now, config).await?;
                let mut open = open.ok_or_else(|| stray(&line))?;
                open.messages += 1;
                open.last_message_at = Some(message.created_at);
                open.put_aside(&Part::Message(message)).await?;
                Ok(Some(open))
            }
            _ => {
                let msg = "Input should be 'conversation', 'participants', 'message' or 'user'";
                Err(line.refusal("type", "enum", msg))
            }
        }
    }

    async fn begin(&self, line: Line, mut conversation: ImportedConversation) -> Result<Arriving> {
        let is_here = repository::is_here(&self.app.db, &conversation.external_id).await?;
        let people = std::mem::take(&mut conversation.participants);
        let spool = (!is_here).then(|| Spool::new(&self.app.db));
        let mut open = Arriving { line, conversation, spool, messages: 0, last_message_at: None };
        open.put_people_aside(&people).await?;
        Ok(open)
    }

    /// Writes a conversation that has arrived, if it is a whole one.
    async fn finish(&mut self, open: Option<Arriving>) -> Result<()> {
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
            Some(people) => {
                self.report.imported += 1;
                self.report.messages += open.messages.unsigned_abs();
                self.report(people);
            }
        }
        Ok(())
    }

    /// The people in it; `None` where somebody else was quicker.
    async fn write(&self, open: &Arriving, parts: Spooled) -> Result<Option<People>> {
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

    fn report(&mut self, people: People) {
        let report = &mut self.report;
        merge(&mut report.unmatched, &mut report.unmatched_truncated, people.unmatched);
        merge(&mut report.matched, &mut report.matched_truncated, people.matched);
        merge(&mut report.newer_accounts, &mut report.newer_accounts_truncated, people.newer);
    }

    /// Adds to the refusal of a line what is here all the same.
    fn with_what_stays(&self, error: Error) -> Error {
        let ImportReport { imported, skipped, .. } = self.report;
        let Error::Invalid(mut problems) = error else { return error };
        if imported + skipped > 0 {
            let loc: Vec<Loc> = problems
                .first()
                .map(|first| first.loc.iter().take(2).cloned().collect())
                .unwrap_or_default();
            let msg = format!(
                "The conversations before this one stay: {imported} imported, {skipped} were here"
            );
            problems.push(FieldError { r#type: "stopped".into(), loc, msg, input: Value::Null });
        }
        Error::Invalid(problems)
    }
}

impl Arriving {
    /// In parts: each is read back as a whole, in the transaction that writes it.
    async fn put_people_aside(&mut self, people: &[Sought]) -> Result<()> {
        for people in people.chunks(PEOPLE) {
            self.put_aside(&Part::Participants(people.to_vec())).await?;
        }
        Ok(())
    }

    async fn put_aside(&mut self, part: &Part) -> Result<()> {
        match &mut self.spool {
            Some(spool) => spool.push(part).await,
            None => Ok(()),
        }
    }
}

/// Adds those of `people` who are not `known`, as many as are reported at most.
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

/// The refusal of what belongs to no conversation.
fn stray(line: &Line) -> Error {
    line.refusal("type", "value_error", "Value error, no conversation stands before it")
}
