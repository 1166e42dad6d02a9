//! The report of an import: a note for each changed, omitted or questionable row, and a summary.

use super::source::is_same_file;
use crate::db;
use crate::db::files::{directory_of, with_suffix};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Notes per kind shown on the terminal; the report has all.
const SHOWN: usize = 20;

/// The result for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It was not imported.
    LeftOut,
    /// It was imported as inactive.
    SwitchedOff,
    /// It was imported with a change.
    Changed,
    /// It was imported unchanged, but needs attention.
    Kept,
}

impl Done {
    /// The text for the terminal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeftOut => "skipped",
            Self::SwitchedOff => "deactivated",
            Self::Changed => "changed",
            Self::Kept => "kept",
        }
    }
}

/// A note about a row. It contains no secret.
#[derive(Clone, Debug, Serialize)]
pub struct Note {
    /// The table of the FastAPI app.
    pub table: &'static str,
    /// The id of the row there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// The name of the row, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The kind of note.
    pub kind: &'static str,
    /// The result.
    pub done: Done,
    /// The reason.
    pub why: String,
}

/// Row counts of a table.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Count {
    /// Rows in the source.
    pub found: u64,
    /// Rows that were imported.
    pub imported: u64,
    /// Rows that existed before.
    pub here: u64,
    /// Rows that were not imported.
    pub left_out: u64,
}

/// The number of notes of a kind.
#[derive(Clone, Debug, Serialize)]
pub struct Tally {
    /// The table of the FastAPI app.
    pub table: &'static str,
    /// The kind of note.
    pub kind: &'static str,
    /// The result for the rows.
    pub done: Done,
    /// The number of notes.
    pub count: u64,
}

/// A step and its duration.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// The name of the step.
    pub step: &'static str,
    /// Duration in seconds.
    pub seconds: f64,
}

/// The result of an import.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The source file.
    pub source: PathBuf,
    /// Its SHA-256.
    pub source_sha256: String,
    /// Its size in bytes.
    pub source_bytes: u64,
    /// Whether it was read from a copy, because it has a write-ahead log or journal.
    pub source_copied: bool,
    /// Tables that no version of the FastAPI app creates.
    pub other_tables: Vec<String>,
    /// `sqlite` or `postgres`.
    pub target: &'static str,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Row counts by table of the FastAPI app.
    pub rows: BTreeMap<&'static str, Count>,
    /// Messages with new ids. In other tables, each such row has a note.
    pub renumbered_messages: u64,
    /// Active keys in the target with scope `admin` and without expiry.
    pub usable_admin_keys: i64,
    /// The number of notes of each kind.
    pub notes_by_kind: Vec<Tally>,
    /// The first notes of each kind.
    #[serde(skip)]
    pub shown: Vec<Note>,
    /// The duration of each step, up to the commit.
    pub timings: Vec<Timing>,
    /// The reason the report could not be renamed to its path, although the import succeeded.
    #[serde(skip)]
    pub unreported: Option<String>,
}

/// Collects notes and writes them to the report, if one is requested.
#[derive(Debug, Default)]
pub struct Notes {
    file: Option<ReportFile>,
    tallies: BTreeMap<(&'static str, Done, &'static str), u64>,
    shown: Vec<Note>,
}

/// A report being written to a temporary file beside its path.
#[derive(Debug)]
struct ReportFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
    is_empty: bool,
}

impl Notes {
    /// Creates the report for `path`, if given. `path` must not be one of the databases `others` or
    /// a file that SQLite or Octopus keeps beside one, whether it exists or not.
    pub fn new(path: Option<&Path>, others: &[&Path]) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let is_linked = |other: &&Path| {
            let files = ["-wal", "-shm", "-journal", ".lock", ".audit-key"];
            files.iter().any(|suffix| is_same_file(path, &with_suffix(other, suffix)))
        };
        if others.iter().any(|other| db::belongs_to(other, path) || is_linked(other)) {
            return Err(io::Error::other("the path belongs to a database"));
        }
        if path.is_dir() {
            return Err(io::Error::other("a directory exists there"));
        }
        // `NamedTempFile` creates it with mode 0600.
        let file = NamedTempFile::new_in(directory_of(path))?;
        let mut file = BufWriter::new(file);
        file.write_all(b"{\"notes\": [")?;
        let file = ReportFile { file, path: path.to_owned(), is_empty: true };
        Ok(Self { file: Some(file), ..Self::default() })
    }

    /// Adds `note`.
    pub fn add(&mut self, note: Note) -> io::Result<()> {
        if let Some(ReportFile { file, is_empty, .. }) = &mut self.file {
            file.write_all(if *is_empty { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut *file, &note)?;
            *is_empty = false;
        }
        let count = self.tallies.entry((note.table, note.done, note.kind)).or_default();
        *count += 1;
        if *count <= SHOWN as u64 {
            self.shown.push(note);
        }
        Ok(())
    }

    /// The number of notes of each kind, and the first notes of each.
    pub fn summarize(&mut self) -> (Vec<Tally>, Vec<Note>) {
        let tallies = self.tallies.iter();
        let tallies = tallies.map(|((table, done, kind), count)| Tally {
            table,
            kind,
            done: *done,
            count: *count,
        });
        (tallies.collect(), std::mem::take(&mut self.shown))
    }

    /// Appends `summary` to the report and syncs the temporary file to disk.
    pub fn complete(&mut self, summary: &Summary) -> io::Result<()> {
        let Some(ReportFile { file, .. }) = &mut self.file else { return Ok(()) };
        file.write_all(b"\n],\n\"summary\": ")?;
        serde_json::to_writer_pretty(&mut *file, summary)?;
        file.write_all(b"}\n")?;
        file.flush()?;
        file.get_ref().as_file().sync_all()
    }

    /// Renames the complete report to its path. The error names the file where it is instead.
    pub fn publish(self) -> Result<(), String> {
        let Some(ReportFile { file, path, .. }) = self.file else { return Ok(()) };
        let failed = |error: &io::Error| {
            format!("the report cannot be renamed to {}: {error}", path.display())
        };
        let file = file.into_inner().map_err(|error| failed(error.error()))?;
        let Err(unmoved) = file.persist(&path) else { return Ok(()) };
        let why = failed(&unmoved.error);
        match unmoved.file.keep() {
            Ok((_, kept)) => Err(format!("{why}; it is in {}", kept.display())),
            Err(_) => Err(why),
        }
    }
}
