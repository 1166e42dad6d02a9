//! Backs up the database to `BACKUP_DIR` every `BACKUP_INTERVAL_HOURS` and deletes old backups.

use super::schedule::Schedule;
use crate::audit;
use crate::core::config::{BackupSchedule, DatabaseUrl};
use crate::core::metrics::{BACKUP_TIME, BACKUPS};
use crate::db::files::with_suffix;
use crate::db::{self, BackupError, CopyError, DbOptions};
use crate::state::AppState;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the job checks whether a backup is due.
const PERIOD: Duration = Duration::from_secs(1);
/// How long after a failure the job retries.
const RETRY: TimeDelta = TimeDelta::minutes(10);
/// File name of a backup. Sorting by name sorts by time.
const NAME: &str = "octopus-%Y%m%dT%H%M%SZ.db";

pub(super) async fn run(app: AppState, stop: CancellationToken) {
    let (Some(backups), DatabaseUrl::Sqlite(database)) =
        (&app.config.backups, &app.config.database_url)
    else {
        // A job that returns early counts as crashed.
        return stop.cancelled().await;
    };
    let mut schedule = Schedule::every(PERIOD, stop.clone());
    let mut next = None;
    while schedule.due().await {
        let now = app.clock.now();
        // A time more than one interval away was computed while the clock was ahead.
        if next.is_some_and(|next| now < next && next <= now + backups.interval) {
            continue;
        }
        // `database` may now name another file, whose backup would replace an older, good one.
        if app.db.check_files().is_err() {
            continue;
        }
        next = match back_up_if_due(backups, database, now, &stop).await {
            Ok(next) => Some(next),
            Err(BackupError::Stopped) => None,
            Err(error) => {
                metrics::counter!(BACKUPS, "outcome" => "failed").increment(1);
                tracing::error!(
                    event = "backup.failed",
                    %error,
                    "cannot make a backup; will retry in 10 minutes"
                );
                Some(now + RETRY)
            }
        };
    }
}

/// Makes a backup, unless a recent one exists. Returns when the next one is due.
async fn back_up_if_due(
    backups: &BackupSchedule,
    database: &Path,
    now: DateTime<Utc>,
    stop: &CancellationToken,
) -> Result<DateTime<Utc>, BackupError> {
    let found = Found::in_folder(&backups.folder, database)?;
    // A backup from the future was made while the clock was wrong; ignore it.
    let newest = found.made.iter().map(|(time, _)| *time).filter(|time| *time <= now).max();
    set_backup_time(newest);
    if let Some(next) = newest.map(|newest| newest + backups.interval).filter(|next| now < *next) {
        return Ok(next);
    }
    found.remove_leftovers();
    let file = backups.folder.join(now.format(NAME).to_string());
    let bytes = db::back_up(database, &file, false, stop).await?;
    metrics::counter!(BACKUPS, "outcome" => "created").increment(1);
    set_backup_time(Some(now));
    let anchor = anchor_of(&file).await.unwrap_or_default();
    let file = file.display();
    tracing::info!(event = "backup.created", %file, bytes, anchor, "made a backup");
    found.remove_old(backups.keep.get());
    Ok(now + backups.interval)
}

/// The end of the audit chain in a backup: the anchor to verify the backup with.
async fn anchor_of(file: &Path) -> Option<String> {
    let copy = DbOptions::open_file(file, false).await.ok()?.db;
    let end = audit::end(&copy).await;
    copy.close().await;
    end.ok().map(|end| end.to_string())
}

fn set_backup_time(newest: Option<DateTime<Utc>>) {
    let seconds = newest.and_then(|time| u32::try_from(time.timestamp()).ok());
    if let Some(seconds) = seconds {
        metrics::gauge!(BACKUP_TIME).set(f64::from(seconds));
    }
}

/// Backups and unfinished copies found in the folder.
struct Found {
    made: Vec<(DateTime<Utc>, PathBuf)>,
    /// Unfinished copies of interrupted backups.
    unfinished: Vec<PathBuf>,
}

impl Found {
    fn in_folder(folder: &Path, database: &Path) -> Result<Self, BackupError> {
        let failed = |cause| CopyError::File { path: folder.to_owned(), cause };
        let mut found = Self { made: vec![], unfinished: vec![] };
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (name, path) = (entry.file_name(), entry.path());
            let Some(name) = name.to_str() else { continue };
            let part =
                [".unfinished", ".unfinished-journal"].iter().find_map(|e| name.strip_suffix(e));
            match (time_of(part.unwrap_or(name)), part) {
                (Some(_), Some(_)) => found.unfinished.push(path),
                // If a server uses the file as its database, it is no longer a backup.
                (Some(time), None) if !is_in_use(&path, database) => found.made.push((time, path)),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Removes unfinished copies that no process is writing.
    fn remove_leftovers(&self) {
        for path in &self.unfinished {
            match db::remove_leftover(path) {
                Ok(()) | Err(CopyError::Busy(_)) => {}
                Err(error) => {
                    tracing::warn!(
                        event = "backup.remove_failed",
                        %error,
                        "cannot remove an unfinished copy"
                    );
                }
            }
        }
    }

    /// Removes all but the newest `keep` backups. The backup just made counts and is not in `made`.
    fn remove_old(mut self, keep: usize) {
        self.made.sort_unstable();
        self.made.truncate(self.made.len().saturating_sub(keep.saturating_sub(1)));
        for (_, path) in &self.made {
            remove(path);
        }
    }
}

/// The time in the name of a backup; `None` for other files.
fn time_of(name: &str) -> Option<DateTime<Utc>> {
    let time = NaiveDateTime::parse_from_str(name, NAME).ok()?.and_utc();
    (time.format(NAME).to_string() == name).then_some(time)
}

/// Returns whether the file is the database of this or of another server.
fn is_in_use(path: &Path, database: &Path) -> bool {
    let has = |suffix: &&str| with_suffix(path, suffix).exists();
    db::belongs_to(database, path) || ["-wal", "-journal", ".lock"].iter().any(has)
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let file = path.display();
            tracing::warn!(event = "backup.remove_failed", %file, %error, "cannot remove old backup");
        }
        _ => {}
    }
}
