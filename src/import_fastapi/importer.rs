//! The state of a running import, and what the steps of the import share.

use super::error::ImportError;
use super::ids::Ids;
use super::options::{Options, Progress};
use super::report::{Count, Done, Note, Notes, Timing};
use super::secrets::Secrets;
use super::source::Source;
use super::targets::{Conversations, Keys, Users};
use super::values;
use crate::db::Tx;
use crate::state::AppState;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::time::Instant;

/// A row of the source.
#[derive(Clone, Copy)]
pub(super) struct SourceRow {
    pub(super) table: &'static str,
    pub(super) id: i64,
}

/// The state of a running import.
pub(super) struct Importer<'a> {
    pub(super) app: &'a AppState,
    pub(super) tx: Tx,
    pub(super) source: Source,
    pub(super) options: &'a Options,
    pub(super) progress: &'a dyn Progress,
    pub(super) now: DateTime<Utc>,
    /// `sqlite` or `postgres`.
    pub(super) target: &'static str,
    pub(super) notes: Notes,
    pub(super) secrets: Secrets,
    pub(super) rows: BTreeMap<&'static str, Count>,
    pub(super) ids: Ids,
    pub(super) users: Users,
    pub(super) keys: Keys,
    pub(super) conversations: Conversations,
    pub(super) timings: Vec<Timing>,
    pub(super) began: Instant,
}

impl Importer<'_> {
    pub(super) fn begin(&self, step: &'static str, total: Option<u64>) {
        self.progress.begin(step, total);
    }

    /// Records the duration of the step that ends now.
    pub(super) fn timed(&mut self, step: &'static str) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.began = Instant::now();
        self.timings.push(Timing { step, seconds });
    }

    pub(super) fn count(&mut self, table: &'static str) -> &mut Count {
        self.rows.entry(table).or_default()
    }

    pub(super) fn note(
        &mut self,
        row: SourceRow,
        kind: &'static str,
        done: Done,
        why: impl Into<String>,
    ) -> Result<(), ImportError> {
        let SourceRow { table, id } = row;
        let why = self.secrets.redact(why.into());
        Ok(self.notes.add(Note { table, id: Some(id), name: None, kind, done, why })?)
    }

    /// Adds a note if the row `original` of `table` got another id.
    pub(super) fn renumbered(
        &mut self,
        table: &'static str,
        original: i64,
        id: i64,
    ) -> Result<(), ImportError> {
        if original == id {
            return Ok(());
        }
        let why = format!("its new id is {id}: {original} is or was in use, or is not a valid id");
        self.note(SourceRow { table, id: original }, "renumbered", Done::Changed, why)
    }

    /// The creation time of a row: the first of `times` that can be parsed and is in the past,
    /// otherwise the Unix epoch, which is the same in each import.
    pub(super) fn since(
        &mut self,
        row: SourceRow,
        times: &[&Option<Vec<u8>>],
    ) -> Result<DateTime<Utc>, ImportError> {
        let now = self.now;
        let mut read = times.iter().map(|raw| values::past(raw.as_deref()?, now));
        let first = read.next().flatten();
        if let Some(time) = first {
            return Ok(time);
        }
        let time = read.flatten().next().unwrap_or(DateTime::UNIX_EPOCH);
        let why = format!(
            "its creation time cannot be parsed, is before 1970 or in the future; it is set to {}",
            time.to_rfc3339()
        );
        self.note(row, "time_unreadable", Done::Changed, why)?;
        Ok(time)
    }

    /// Decodes a short text; adds a note if invalid bytes were replaced.
    pub(super) fn text(
        &mut self,
        row: SourceRow,
        column: &str,
        raw: Option<Vec<u8>>,
    ) -> Result<Option<String>, ImportError> {
        let Some(raw) = raw else { return Ok(None) };
        let (text, is_mended) = values::text(raw);
        if is_mended {
            let why = format!("its {column} had bytes that are not valid text; they are replaced");
            self.note(row, "text_mended", Done::Changed, why)?;
        }
        Ok(Some(text))
    }

    /// Decodes a text like [`Self::text`] and removes secrets. Not for sign-in names.
    pub(super) fn clean_text(
        &mut self,
        row: SourceRow,
        column: &str,
        raw: Option<Vec<u8>>,
    ) -> Result<Option<String>, ImportError> {
        let Some(text) = self.text(row, column, raw)? else { return Ok(None) };
        if !self.secrets.found_in(&text) {
            return Ok(Some(text));
        }
        let why = format!("its {column} contained an API key, now replaced by '[key]': rotate it");
        self.note(row, "key_inside", Done::Changed, why)?;
        Ok(Some(self.secrets.redact(text)))
    }
}
