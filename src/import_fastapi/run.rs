//! Runs an import, from opening both databases to the commit.

use super::error::ImportError;
use super::ids::Ids;
use super::importer::Importer;
use super::options::{Options, Progress};
use super::report::{Notes, Summary};
use super::repository;
use super::secrets::Secrets;
use super::source::{Source, is_same_file};
use super::targets::{Conversations, Keys, Users};
use crate::audit::{Action, Operation, Origin, Subject};
use crate::core::clock::Clock;
use crate::core::config::{Config, DatabaseUrl};
use crate::db::files::with_suffix;
use crate::db::{DbOptions, Lock, OpenError, bulk};
use crate::features::api_keys;
use crate::features::conversations::search::{self, BatchSize};
use crate::state::AppState;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Tables that the import writes.
const TABLES: [&str; 5] = ["users", "api_keys", "conversations", "participants", "messages"];
/// Tables whose triggers index each row and record events; the import disables them.
const WITH_TRIGGERS: [&str; 2] = ["participants", "messages"];
/// Messages indexed per statement.
const INDEXED: BatchSize = BatchSize { messages: 20_000, bytes: i64::MAX };

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
    // Dropped after the database and before the lock, also when a signal ends the import.
    let created = CreatedFiles::of(&config.database_url, uses_temporary);
    let kind = if target.is_some() { "sqlite" } else { "postgres" };
    if uses_temporary {
        config.database_url = DatabaseUrl::Sqlite(temporary.path().join("octopus.db"));
    }
    let app = if is_new {
        AppState::open(config, Clock::default()).await?
    } else {
        AppState::open_existing(config, Clock::default()).await?
    };
    let result = import(&app, source, notes, options, progress, kind, began).await;
    progress.begin("closing the database", None);
    app.db.close().await;
    let (mut summary, notes) = result?;
    created.keep();
    drop(lock);
    summary.unreported = notes.publish().err();
    Ok(summary)
}

/// The files of an SQLite database that the import creates. Dropping it removes them.
struct CreatedFiles(Vec<PathBuf>);

impl CreatedFiles {
    /// Lists the files of a database that does not exist yet. If it exists, or `is_temporary`,
    /// nothing is removed.
    fn of(url: &DatabaseUrl, is_temporary: bool) -> Self {
        match url {
            DatabaseUrl::Sqlite(path) if !is_temporary && path.symlink_metadata().is_err() => {
                let suffixes = ["", "-wal", "-shm", "-journal", ".audit-key"];
                let files = suffixes.map(|suffix| with_suffix(path, suffix));
                let is_absent = |file: &PathBuf| file.symlink_metadata().is_err();
                Self(files.into_iter().filter(is_absent).collect())
            }
            _ => Self(vec![]),
        }
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for CreatedFiles {
    fn drop(&mut self) {
        for file in &self.0 {
            let _ = fs::remove_file(file);
        }
    }
}

/// Returns whether the database does not exist or is empty.
async fn is_new(config: &Config) -> Result<bool, ImportError> {
    match DbOptions::new().open(&config.database_url).await {
        Ok(opened) => {
            opened.db.close().await;
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
    target: &'static str,
    began: Instant,
) -> Result<(Summary, Notes), ImportError> {
    let mut tx = app.db.begin_long().await?;
    // Concurrent changes of keys wait, as do inserts that would use the same ids.
    api_keys::lock_installation(&mut tx).await?;
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
        users: Users::default(),
        keys: Keys::default(),
        conversations: Conversations::default(),
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
        let admins = api_keys::count_permanent_admins(&mut self.tx).await?;
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
}
