//! Backups that the server makes by itself.

use super::DatabaseUrl;
use super::reader::Reader;
use chrono::TimeDelta;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// A year.
const MAX_HOURS: i64 = 8760;

/// `BACKUP_…`.
#[derive(Clone, Debug)]
pub struct Backups {
    /// `BACKUP_DIR`.
    pub folder: PathBuf,
    /// `BACKUP_INTERVAL_HOURS`.
    pub interval: TimeDelta,
    /// `BACKUP_KEEP`.
    pub keep: NonZeroUsize,
}

/// `None` where `BACKUP_DIR` is not set.
pub(super) fn read(r: &mut Reader, database: &DatabaseUrl) -> Option<Backups> {
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
        let what = "is for SQLite only: for Postgres, docs/BACKUP.md says what to use instead";
        r.problem(FOLDER, what);
    }
    Some(Backups { folder, interval: TimeDelta::hours(hours.clamp(1, MAX_HOURS)), keep })
}
