//! What was found and what became of it: each row that is not as it was, with the reason.

use super::source::{beside, is_same_file};
use crate::db;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Notes of a kind that are shown to people; a report has all.
const SHOWN: usize = 20;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It is not here.
    LeftOut,
    /// It is here, and does not work.
    SwitchedOff,
    /// It is here, with something changed.
    Changed,
    /// It is here as it was, and worth a look.
    Kept,
}

impl Done {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeftOut => "left out",
            Self::SwitchedOff => "switched off",
            Self::Changed => "changed",
            Self::Kept => "kept",
        }
    }
}

/// What is to be said of a row. It names no secret.
#[derive(Clone, Debug, Serialize)]
pub struct Note {
    /// The table of the original.
    pub table: &'static str,
    /// Its id there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// What it is called, where it has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is to be said, in a word.
    pub kind: &'static str,
    /// What became of it.
    pub done: Done,
    /// Why.
    pub why: String,
}

/// Rows of a table.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Count {
    /// In the original.
    pub found: u64,
    /// That are here now and were not before.
    pub imported: u64,
    /// That were here already.
    pub here: u64,
    /// That are not here.
    pub left_out: u64,
}

/// How many notes of a kind there are.
#[derive(Clone, Debug, Serialize)]
pub struct Tally {
    /// The table of the original.
    pub table: &'static str,
    /// What is said.
    pub kind: &'static str,
    /// What became of the rows.
    pub done: Done,
    /// How many.
    pub count: u64,
}

/// A step, and how long it took.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// Which.
    pub step: &'static str,
    /// How long.
    pub seconds: f64,
}

/// How an import went.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The file.
    pub source: PathBuf,
    /// Its SHA-256.
    pub source_sha256: String,
    /// Its size.
    pub source_bytes: u64,
    /// Whether it was read from a copy, as it has a log beside it.
    pub source_copied: bool,
    /// Tables that no version of the original makes.
    pub other_tables: Vec<String>,
    /// `sqlite` or `postgres`.
    pub target: &'static str,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Rows, by the tables of the original.
    pub rows: BTreeMap<&'static str, Count>,
    /// Messages whose ids are others here; of other tables each row has a note.
    pub renumbered_messages: u64,
    /// Keys here that can manage keys, have no end and are switched on.
    pub usable_admin_keys: i64,
    /// The notes, counted.
    pub notes_by_kind: Vec<Tally>,
    /// The first notes of each kind.
    #[serde(skip)]
    pub shown: Vec<Note>,
    /// How long each step took, up to the commit.
    pub timings: Vec<Timing>,
    /// Why the report is not in its place, though everything else was done.
    #[serde(skip)]
    pub unreported: Option<String>,
}

/// Collects notes, and writes them where a report is asked for.
#[derive(Debug, Default)]
pub struct Notes {
    file: Option<ReportFile>,
    tallies: BTreeMap<(&'static str, Done, &'static str), u64>,
    shown: Vec<Note>,
}

/// A report that is being written beside its place.
#[derive(Debug)]
struct ReportFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
    is_empty: bool,
}

impl Notes {
    /// For a report at `path`, if there is to be one, which may be none of `others` nor a file
    /// beside one, whether that is there already or not.
    pub fn new(path: Option<&Path>, others: &[&Path]) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let is_linked = |other: &&Path| {
            let files = ["-wal", "-shm", "-journal", ".lock", ".audit-key"];
            files.iter().any(|suffix| is_same_file(path, &beside(other, suffix)))
        };
        if others.iter().any(|other| db::belongs_to(other, path) || is_linked(other)) {
            return Err(io::Error::other("a database is there, or will be"));
        }
        if path.is_dir() {
            return Err(io::Error::other("a folder is there"));
        }
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        // For its owner alone, as all such files.
        let file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
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

    /// The notes, counted, and the first of each kind.
    pub fn summed_up(&mut self) -> (Vec<Tally>, Vec<Note>) {
        let tallies = self.tallies.iter();
        let tallies = tallies.map(|((table, done, kind), count)| Tally {
            table,
            kind,
            done: *done,
            count: *count,
        });
        (tallies.collect(), std::mem::take(&mut self.shown))
    }

    /// Completes the report with `summary`, on the disk, beside its place.
    pub fn complete(&mut self, summary: &Summary) -> io::Result<()> {
        let Some(ReportFile { file, .. }) = &mut self.file else { return Ok(()) };
        file.write_all(b"\n],\n\"summary\": ")?;
        serde_json::to_writer_pretty(&mut *file, summary)?;
        file.write_all(b"}\n")?;
        file.flush()?;
        file.get_ref().as_file().sync_all()
    }

    /// Puts the complete report in its place, or says where it is instead.
    pub fn publish(self) -> Result<(), String> {
        let Some(ReportFile { file, path, .. }) = self.file else { return Ok(()) };
        let failed = |error: &io::Error| {
            format!("the report cannot be put in its place, {}: {error}", path.display())
        };
        let file = file.into_inner().map_err(|error| failed(error.error()))?;
        let Err(unmoved) = file.persist(&path) else { return Ok(()) };
        let why = failed(&unmoved.error);
        match unmoved.file.keep() {
            Ok((_, kept)) => Err(format!("{why}; it is {}", kept.display())),
            Err(_) => Err(why),
        }
    }
}
