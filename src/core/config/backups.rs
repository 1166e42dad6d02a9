//! Scheduled backups of SQLite (`BACKUP_…`).

use super::database_url::DatabaseUrl;
use super::reader::Reader;
use chrono::TimeDelta;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Maximum interval: one year.
const MAX_HOURS: i64 = 8760;

/// The schedule of backups.
#[derive(Clone, Debug)]
pub struct BackupSchedule {
    /// `BACKUP_DIR`: the folder of the backups.
    pub folder: PathBuf,
    /// `BACKUP_INTERVAL_HOURS`: the time between two backups.
    pub interval: TimeDelta,
    /// `BACKUP_KEEP`: the number of backups to keep.
    pub keep: NonZeroUsize,
}

/// Returns `None` if `BACKUP_DIR` is not set.
pub(super) fn read(r: &mut Reader, database: &DatabaseUrl) -> Option<BackupSchedule> {
    const FOLDER: &str = "BACKUP_DIR";
    const INTERVAL: &str = "BACKUP_INTERVAL_HOURS";
    let hours = r.parsed(INTERVAL, 24, "a whole number of hours");
    if !(1..=MAX_HOURS).contains(&hours) {
        r.problem(INTERVAL, format_args!("must be from 1 to {MAX_HOURS} hours"));
    }
    let week = NonZeroUsize::new(7).unwrap_or(NonZeroUsize::MIN);
    let keep = r.parsed("BACKUP_KEEP", week, "a whole number from 1");
    let folder = r.text(FOLDER)?.into();
    if let DatabaseUrl::Postgres(_) = database {
        let what = "works only with SQLite; for Postgres, see docs/BACKUP.md";
        r.problem(FOLDER, what);
    }
    Some(BackupSchedule { folder, interval: TimeDelta::hours(hours.clamp(1, MAX_HOURS)), keep })
}
