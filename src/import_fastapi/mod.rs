//! Import from FastAPI: reads a database of the FastAPI app and writes its API keys, users,
//! conversations and audit log into the Octopus database.
//!
//! The import is one transaction: if it fails, nothing is changed. It is idempotent: it recognizes
//! imported keys by their hash, conversations by an external id derived from immutable fields, and
//! users by email or username and registration time.
//!
//! The module is above the features, as it writes tables of several of them.

mod audit_log;
mod conversations;
mod ids;
mod keys;
mod messages;
mod report;
mod repository;
mod secrets;
mod source;
mod users;
mod values;

pub use report::{Count, Done, Note, Summary, Tally, Timing};

use crate::audit::{Action, Operation, Origin, Subject};
use crate::core::clock::Clock;
use crate::core::config::{Config, DatabaseUrl};
use crate::core::error::Error;
use crate::db::{self, Lock, OpenError, Tx, bulk};
use crate::features::conversations::search::{self, BatchSize};
use crate::state::{AppState, StartError};
use chrono::{DateTime, Utc};
use ids::Ids;
use report::Notes;
use secrets::Secrets;
use serde_json::json;
use source::{Source, is_same_file};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Tables that the import writes.
const TABLES: [&str; 5] = ["users", "api_keys", "conversations", "participants", "messages"];
/// Tables whose triggers index each row and record events; the import disables them.
const WITH_TRIGGERS: [&str; 2] = ["participants", "messages"];
/// Messages indexed per statement.
const INDEXED: BatchSize = BatchSize { messages: 20_000, bytes: i64::MAX };

/// Options of an import.
#[derive(Debug, Default)]
pub struct Options {
    /// Keep keys active that are too short, except known placeholders.
    pub accept_weak: bool,
    /// Give active keys the scopes read and write, which the FastAPI app granted to every key.
    pub keep_effective_access: bool,
    /// Write nothing but the report.
    pub dry_run: bool,
    /// Path of the report.
    pub report: Option<PathBuf>,
}

/// Receives progress reports.
pub trait Progress: Sync {
    /// A step begins; `total` is its number of rows, if known.
    fn begin(&self, step: &'static str, total: Option<u64>);
    /// `rows` more rows of the step are done.
    fn advance(&self, rows: u64);
}

/// The reason an import failed; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be imported.
    #[error("cannot import {}: {why}", path.display())]
    Source {
        /// The path of the file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The file is the target database.
    #[error(
        "{} is the database that DATABASE_URL names: set DATABASE_URL to a new file, the target of \
         the import",
        .0.display()
    )]
    SameFile(PathBuf),
    /// The target database cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A database operation failed.
    #[error("nothing was imported: {0}")]
    Database(#[from] sqlx::Error),
    /// The report cannot be written.
    #[error("cannot write the report: {0}")]
    Report(#[from] io::Error),
    /// Any other error.
    #[error("nothing was imported: {0}")]
    Other(#[from] Error),
}

impl ImportError {
    fn source(path: &Path, why: &str) -> Self {
        Self::Source { path: path.to_owned(), why: why.to_owned() }
    }
}

impl From<OpenError> for ImportError {
    fn from(error: OpenError) -> Self {
        StartError::from(error).into()
    }
}

/// The state of a running import.
struct Importer<'a> {
    app: &'a AppState,
    tx: Tx,
    source: Source,
    options: &'a Options,
    progress: &'a dyn Progress,
    now: DateTime<Utc>,
    /// `sqlite` or `postgres`.
    target: &'static str,
    notes: Notes,
    secrets: Secrets,
    rows: BTreeMap<&'static str, Count>,
    ids: Ids,
    users: users::Users,
    keys: keys::Keys,
    conversations: conversations::Conversations,
    timings: Vec<Timing>,
    began: Instant,
}

/// Imports the database at `path` into the database that `config` names.
///
/// # Errors
///
/// If either database cannot be read or written; nothing is changed then.
pub async fn run(
    mut config: Config,
    path: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary, ImportError> {
    let target = match &config.database_url {
        DatabaseUrl::Sqlite(target) => Some(target.clone()),
        DatabaseUrl::Postgres(_) => None,
    };
    if target.as_deref().is_some_and(|target| is_same_file(path, target)) {
        return Err(ImportError::SameFile(path.to_owned()));
    }
    let others: Vec<&Path> = target.iter().map(PathBuf::as_path).chain([path]).collect();
    let notes = Notes::new(options.report.as_deref(), &others)?;
    progress.begin("reading the source", None);
    let began = Instant::now();
    let source = Source::open(path).await?;
    // A dry run must not create the target: without one, it uses a temporary database.
    let temporary = tempfile::tempdir()?;
    let is_new = is_new(&config).await?;
    // The lock keeps servers away, which would wait for the transaction. Postgres has no such lock.
    let uses_temporary = is_new && options.dry_run;
    let lock = if uses_temporary { None } else { Lock::take(&config.database_url)? };
    let kind = if target.is_some() { "sqlite" } else { "postgres" };
    if uses_temporary {
        config.database_url = DatabaseUrl::Sqlite(temporary.path().join("octopus.db"));
    }
    let app = if is_new {
        AppState::open(config, Clock::default()).await?
    } else {
        AppState::open_existing(config, Clock::default()).await?
    };
    let result = import(&app, source, notes, options, progress, (kind, began)).await;
    progress.begin("closing the database", None);
    app.db.close().await;
    drop(lock);
    let (mut summary, notes) = result?;
    summary.unreported = notes.publish().err();
    Ok(summary)
}

/// Returns whether the database does not exist or is empty.
async fn is_new(config: &Config) -> Result<bool, ImportError> {
    match db::open_existing(&config.database_url).await {
        Ok(db) => {
            db.close().await;
            Ok(false)
        }
        Err(OpenError::Empty) => Ok(true),
        Err(OpenError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error.into()),
    }
}

async fn import(
    app: &AppState,
    mut source: Source,
    notes: Notes,
    options: &Options,
    progress: &dyn Progress,
    (target, began): (&'static str, Instant),
) -> Result<(Summary, Notes), ImportError> {
    let mut tx = app.db.begin_long().await?;
    // Concurrent changes of keys wait, as do inserts that would use the same ids.
    repository::lock_installation(&mut tx).await?;
    bulk::lock_tables(&mut tx, &TABLES).await?;
    let ids = Ids::new(&mut tx, &mut source).await?;
    let importer = Importer {
        app,
        tx,
        source,
        options,
        progress,
        now: app.clock.now(),
        target,
        notes,
        secrets: Secrets::default(),
        rows: BTreeMap::new(),
        ids,
        users: users::Users::default(),
        keys: keys::Keys::default(),
        conversations: conversations::Conversations::default(),
        timings: vec![],
        began,
    };
    importer.run().await
}

impl Importer<'_> {
    async fn run(mut self) -> Result<(Summary, Notes), ImportError> {
        self.collect_secrets().await?;
        self.timed("reading the source");
        self.import_users().await?;
        self.timed("users");
        self.import_keys().await?;
        self.timed("api_keys");
        bulk::raise_memory_limits(&mut self.tx).await?;
        let is_new = !repository::has_messages(&mut self.tx).await?;
        let disabled = bulk::disable_triggers(&mut self.tx, &WITH_TRIGGERS, is_new).await?;
        self.import_conversations().await?;
        self.import_participants().await?;
        self.timed("conversations");
        self.assign_positions().await?;
        self.timed("sorting messages");
        self.import_messages().await?;
        self.timed("messages");
        if !self.options.dry_run {
            self.index(is_new).await?;
        }
        self.begin("restoring indexes", None);
        disabled.restore_triggers(&mut self.tx).await?;
        self.timed("indexing messages");
        self.ids.reserve(&mut self.tx).await?;
        self.import_audit_log().await?;
        let admins = repository::count_permanent_admins(&mut self.tx).await?;
        self.timed("api_key_audit_logs");
        self.complete(admins).await
    }

    /// Adds the imported messages to the search index.
    async fn index(&mut self, is_new: bool) -> Result<(), ImportError> {
        let total = self.rows.get("messages").map(|count| count.imported);
        self.begin("indexing messages", total);
        repository::begin_index(&mut self.tx, is_new).await?;
        while let indexed @ 1.. = search::index_part(&mut self.tx, INDEXED).await?.messages {
            self.progress.advance(indexed.unsigned_abs());
        }
        self.begin("merging the search index", None);
        Ok(repository::end_index(&mut self.tx, is_new).await?)
    }

    /// Completes the report and commits; rolls back if nothing was imported or on a dry run. The
    /// report is on disk before the commit, as a second import could not reproduce it.
    async fn complete(mut self, usable_admin_keys: i64) -> Result<(Summary, Notes), ImportError> {
        self.begin("writing everything to disk", None);
        let (notes_by_kind, shown) = self.notes.summarize();
        let other_tables = self.source.schema.unknown_tables();
        let summary = Summary {
            source: self.source.path.clone(),
            source_sha256: self.source.sha256.clone(),
            source_bytes: self.source.bytes,
            source_copied: self.source.is_copied,
            other_tables: other_tables.into_iter().map(str::to_owned).collect(),
            target: self.target,
            dry_run: self.options.dry_run,
            rows: self.rows,
            renumbered_messages: self.ids.messages.renumbered,
            usable_admin_keys,
            notes_by_kind,
            shown,
            timings: self.timings,
            unreported: None,
        };
        self.notes.complete(&summary)?;
        let has_imported = summary.rows.values().any(|count| count.imported > 0);
        if has_imported && !self.options.dry_run {
            let imported: BTreeMap<_, _> =
                summary.rows.iter().map(|(table, count)| (*table, count.imported)).collect();
            let details = json!({ "sha256": self.source.sha256, "imported": imported });
            let subject = Subject::Installation;
            let operation = Operation { action: Action::Import, subject, details: &details };
            let audit = &self.app.audit;
            audit.record_all(&mut self.tx, &Origin::HOST, self.now, &[operation]).await?;
            self.tx.commit().await?;
        } else {
            self.tx.rollback().await?;
        }
        Ok((summary, self.notes))
    }

    fn begin(&self, step: &'static str, total: Option<u64>) {
        self.progress.begin(step, total);
    }

    /// Records the duration of the step that ends now.
    fn timed(&mut self, step: &'static str) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.began = Instant::now();
        self.timings.push(Timing { step, seconds });
    }

    fn count(&mut self, table: &'static str) -> &mut Count {
        self.rows.entry(table).or_default()
    }

    fn note(
        &mut self,
        (table, id): (&'static str, i64),
        kind: &'static str,
        done: Done,
        why: impl Into<String>,
    ) -> Result<(), ImportError> {
        let why = self.secrets.redact(why.into());
        Ok(self.notes.add(Note { table, id: Some(id), name: None, kind, done, why })?)
    }

    /// Adds a note if the row `original` of `table` got another id.
    fn renumbered(
        &mut self,
        table: &'static str,
        original: i64,
        id: i64,
    ) -> Result<(), ImportError> {
        if original == id {
            return Ok(());
        }
        let why = format!("its new id is {id}: {original} is or was in use, or is not a valid id");
        self.note((table, original), "renumbered", Done::Changed, why)
    }

    /// The creation time of a row: the first of `times` that can be parsed, otherwise the Unix
    /// epoch, which is the same in each import.
    fn since(
        &mut self,
        row: (&'static str, i64),
        times: &[&Option<Vec<u8>>],
    ) -> Result<DateTime<Utc>, ImportError> {
        let mut read = times.iter().map(|raw| raw.as_deref().and_then(values::time));
        let first = read.next().flatten();
        if let Some(time) = first {
            return Ok(time);
        }
        let time = read.flatten().next().unwrap_or(DateTime::UNIX_EPOCH);
        let why = format!("its creation time cannot be parsed; it is set to {}", time.to_rfc3339());
        self.note(row, "time_unreadable", Done::Changed, why)?;
        Ok(time)
    }

    /// Decodes a short text; adds a note if invalid bytes were replaced.
    fn text(
        &mut self,
        row: (&'static str, i64),
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
    fn clean_text(
        &mut self,
        row: (&'static str, i64),
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
