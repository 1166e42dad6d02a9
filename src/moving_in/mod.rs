//! Takes over a database of the Python original: its keys, users, conversations and audit log.
//!
//! All of it is one transaction: whatever fails, nothing has happened. What was taken over before
//! is known again, keys by their hashes, conversations by names made of what does not change in
//! them, users by their names and the time they registered; so a second time changes nothing.
//!
//! It stands above the features, as it writes tables of several of them.

mod conversations;
mod ids;
mod keys;
mod messages;
mod report;
mod repository;
mod secrets;
mod source;
mod trail;
mod users;
mod values;

pub use report::{Count, Done, Note, Summary, Tally, Timing};

use crate::audit::{Action, Deed, Origin, Subject};
use crate::core::clock::Clock;
use crate::core::config::{Config, DatabaseUrl};
use crate::core::error::Error;
use crate::db::{self, Lock, OpenError, Tx, bulk};
use crate::features::conversations::search::{self, IndexPart};
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

/// Tables that are written to.
const TABLES: [&str; 5] = ["users", "api_keys", "conversations", "participants", "messages"];
/// Those of them whose rows are told of and indexed one by one otherwise.
const WITH_TRIGGERS: [&str; 2] = ["participants", "messages"];
/// Messages that are indexed in one statement.
const INDEXED: IndexPart = IndexPart { messages: 20_000, bytes: i64::MAX };

/// What to do about what is doubtful.
#[derive(Debug, Default)]
pub struct Options {
    /// Keys that could be guessed stay switched on, unless everybody knows them.
    pub accept_weak: bool,
    /// Keys may go on doing what the original let every key do.
    pub keep_effective_access: bool,
    /// Nothing is written.
    pub dry_run: bool,
    /// Where to write what became of each row.
    pub report: Option<PathBuf>,
}

/// Is told how far it is.
pub trait Progress: Sync {
    /// A step begins, of `total` rows if that is known.
    fn begin(&self, step: &'static str, total: Option<u64>);
    /// So many rows of it are done.
    fn advance(&self, rows: u64);
}

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The file cannot be taken over.
    #[error("cannot take over {}: {why}", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// It is the database that it would be taken over into.
    #[error(
        "{} is the database that DATABASE_URL names: set DATABASE_URL to a new file, which the \
         original's is taken over into",
        .0.display()
    )]
    SameFile(PathBuf),
    /// The database cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A database failed; nothing was changed.
    #[error("nothing was taken over: {0}")]
    Database(#[from] sqlx::Error),
    /// The report cannot be written; nothing was changed.
    #[error("cannot write the report: {0}")]
    Report(#[from] io::Error),
    /// Something else; nothing was changed.
    #[error("nothing was taken over: {0}")]
    Other(#[from] Error),
}

impl MoveError {
    fn source(path: &Path, why: &str) -> Self {
        Self::Source { path: path.to_owned(), why: why.to_owned() }
    }
}

impl From<OpenError> for MoveError {
    fn from(error: OpenError) -> Self {
        StartError::from(error).into()
    }
}

/// An import that is under way.
struct Mover<'a> {
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

/// Takes over the database in the file at `path` into the one that `config` names.
pub async fn run(
    mut config: Config,
    path: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary, MoveError> {
    let target = match &config.database_url {
        DatabaseUrl::Sqlite(target) => Some(target.clone()),
        DatabaseUrl::Postgres(_) => None,
    };
    if target.as_deref().is_some_and(|target| is_same_file(path, target)) {
        return Err(MoveError::SameFile(path.to_owned()));
    }
    let others: Vec<&Path> = target.iter().map(PathBuf::as_path).chain([path]).collect();
    let notes = Notes::new(options.report.as_deref(), &others)?;
    progress.begin("reading the original", None);
    let began = Instant::now();
    let source = Source::open(path).await?;
    // Where nothing is to be written, something else stands in for a database that is not there.
    let stand_in = tempfile::tempdir()?;
    let is_new = is_new(&config).await?;
    // A server could not write meanwhile. On Postgres nothing tells that there is one.
    let stays_as_it_is = is_new && options.dry_run;
    let lock = if stays_as_it_is { None } else { Lock::take(&config.database_url)? };
    let kind = if target.is_some() { "sqlite" } else { "postgres" };
    if stays_as_it_is {
        config.database_url = DatabaseUrl::Sqlite(stand_in.path().join("octopus.db"));
    }
    let app = if is_new {
        AppState::open(config, Clock::default()).await?
    } else {
        AppState::open_existing(config, Clock::default()).await?
    };
    let done = take_over(&app, source, notes, options, progress, (kind, began)).await;
    progress.begin("closing the database", None);
    app.db.close().await;
    drop(lock);
    let (mut summary, notes) = done?;
    summary.unreported = notes.publish().err();
    Ok(summary)
}

/// Whether there is no database yet, or an empty one.
async fn is_new(config: &Config) -> Result<bool, MoveError> {
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

async fn take_over(
    app: &AppState,
    mut source: Source,
    notes: Notes,
    options: &Options,
    progress: &dyn Progress,
    (target, began): (&'static str, Instant),
) -> Result<(Summary, Notes), MoveError> {
    let mut tx = app.db.begin_long().await?;
    // Everybody else who makes keys waits, and so does who would take the ids that are given here.
    repository::lock_installation(&mut tx).await?;
    bulk::lock_tables(&mut tx, &TABLES).await?;
    let ids = Ids::new(&mut tx, &mut source).await?;
    let mover = Mover {
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
    mover.run().await
}

impl Mover<'_> {
    async fn run(mut self) -> Result<(Summary, Notes), MoveError> {
        self.collect_secrets().await?;
        self.timed("reading the original");
        self.take_users().await?;
        self.timed("users");
        self.take_keys().await?;
        self.timed("api_keys");
        bulk::make_room(&mut self.tx).await?;
        let is_new = !repository::has_messages(&mut self.tx).await?;
        let aside = bulk::set_aside(&mut self.tx, &WITH_TRIGGERS, is_new).await?;
        self.take_conversations().await?;
        self.take_participants().await?;
        self.timed("conversations");
        self.place_messages().await?;
        self.timed("sorting messages");
        self.take_messages().await?;
        self.timed("messages");
        if !self.options.dry_run {
            self.index(is_new).await?;
        }
        self.begin("putting indexes back", None);
        aside.put_back(&mut self.tx).await?;
        self.timed("indexing messages");
        self.ids.reserve(&mut self.tx).await?;
        self.take_trail().await?;
        let admins = repository::usable_admins(&mut self.tx).await?;
        self.timed("api_key_audit_logs");
        self.complete(admins).await
    }

    /// Lets what was said be found.
    async fn index(&mut self, is_new: bool) -> Result<(), MoveError> {
        let total = self.rows.get("messages").map(|count| count.imported);
        self.begin("indexing messages", total);
        repository::begin_index(&mut self.tx, is_new).await?;
        while let indexed @ 1.. = search::index_part(&mut self.tx, INDEXED).await?.messages {
            self.progress.advance(indexed.unsigned_abs());
        }
        self.begin("putting the index together", None);
        Ok(repository::end_index(&mut self.tx, is_new).await?)
    }

    /// Commits, if anything was taken over and it is meant. The report is on the disk before that,
    /// as nobody could say again what it says: a second import changes nothing.
    async fn complete(mut self, usable_admin_keys: i64) -> Result<(Summary, Notes), MoveError> {
        self.begin("writing everything to disk", None);
        let (notes_by_kind, shown) = self.notes.summed_up();
        let other_tables = self.source.schema.strangers();
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
        let has_news = summary.rows.values().any(|count| count.imported > 0);
        if has_news && !self.options.dry_run {
            let imported: BTreeMap<_, _> =
                summary.rows.iter().map(|(table, count)| (*table, count.imported)).collect();
            let details = json!({ "sha256": self.source.sha256, "imported": imported });
            let subject = Subject::Installation;
            let deed = Deed { action: Action::Import, subject, details: &details };
            let audit = &self.app.audit;
            audit.record_all(&mut self.tx, &Origin::HOST, self.now, &[deed]).await?;
            self.tx.commit().await?;
        } else {
            self.tx.rollback().await?;
        }
        Ok((summary, self.notes))
    }

    fn begin(&self, step: &'static str, total: Option<u64>) {
        self.progress.begin(step, total);
    }

    /// Notes how long the step took that ends now.
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
    ) -> Result<(), MoveError> {
        let why = self.secrets.taken_out(why.into());
        Ok(self.notes.add(Note { table, id: Some(id), name: None, kind, done, why })?)
    }

    /// The id that row `original` of `table` has here, which is noted where it is another.
    fn renumbered(&mut self, table: &'static str, original: i64, id: i64) -> Result<(), MoveError> {
        if original == id {
            return Ok(());
        }
        let why = format!("its id here is {id}: {original} is or was another's, or is none");
        self.note((table, original), "renumbered", Done::Changed, why)
    }

    /// When a row was made: the first of `times` that can be read. Otherwise the beginning of 1970,
    /// which is the same each time it is taken over.
    fn since(
        &mut self,
        row: (&'static str, i64),
        times: &[&Option<Vec<u8>>],
    ) -> Result<DateTime<Utc>, MoveError> {
        let mut read = times.iter().map(|raw| raw.as_deref().and_then(values::time));
        let first = read.next().flatten();
        if let Some(time) = first {
            return Ok(time);
        }
        let time = read.flatten().next().unwrap_or(DateTime::UNIX_EPOCH);
        let why = format!("when it was made cannot be read; {} stands in", time.to_rfc3339());
        self.note(row, "time_unreadable", Done::Changed, why)?;
        Ok(time)
    }

    /// A short text, which is noted where it had to be mended.
    fn text(
        &mut self,
        row: (&'static str, i64),
        column: &str,
        raw: Option<Vec<u8>>,
    ) -> Result<Option<String>, MoveError> {
        let Some(raw) = raw else { return Ok(None) };
        let (text, is_mended) = values::text(raw);
        if is_mended {
            let why = format!("its {column} had bytes that are no text");
            self.note(row, "text_mended", Done::Changed, why)?;
        }
        Ok(Some(text))
    }

    /// The same for one that nobody logs in with, without secrets.
    fn clean_text(
        &mut self,
        row: (&'static str, i64),
        column: &str,
        raw: Option<Vec<u8>>,
    ) -> Result<Option<String>, MoveError> {
        let Some(text) = self.text(row, column, raw)? else { return Ok(None) };
        if !self.secrets.stand_in(&text) {
            return Ok(Some(text));
        }
        let why = format!("an API key stood in its {column}: '[key]' stands in, rotate that key");
        self.note(row, "key_inside", Done::Changed, why)?;
        Ok(Some(self.secrets.taken_out(text)))
    }
}
