//! Classifies transient database errors by the codes of the drivers.

use std::io;

/// A file of the open SQLite database that was removed or replaced. As the payload of an
/// [`io::Error`], it is the cause of refused writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostFile {
    /// The database file.
    #[error("the database file was removed or replaced")]
    Database,
    /// The write-ahead log (`-wal`).
    #[error("the write-ahead log of the database was removed or replaced")]
    WriteAheadLog,
    /// The index of the write-ahead log (`-shm`).
    #[error("the index of the write-ahead log was removed or replaced")]
    LogIndex,
}

impl LostFile {
    /// Returns the lost file that caused `error`, if one did.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<LostFile> for io::Error {
    fn from(lost: LostFile) -> Self {
        Self::other(lost)
    }
}

/// A database error that may pass: the same statement may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransientError {
    /// The disk is full.
    DiskFull,
    /// The file, its file system or the server is read-only.
    ReadOnly,
    /// Another process held a lock for longer than the timeout.
    Locked,
    /// Reading from or writing to the disk failed.
    DiskFailure,
    /// The database file cannot be opened.
    CannotOpen,
    /// No connection or file descriptor was available in time.
    Busy,
    /// Two transactions conflicted: a serialization failure or a deadlock.
    Conflict,
    /// The database does not respond, or the connection to it failed.
    Unreachable,
    /// A file of the database was removed or replaced.
    FileLost(LostFile),
    /// The audit log continues with another key than the `AUDIT_KEY` of this process.
    OutdatedAuditKey,
}

/// The error text of a write that would add an audit entry with an outdated key.
pub const NOT_CURRENT_AUDIT_KEY: &str =
    "The audit log has changed to another AUDIT_KEY: restart this server with that key";

/// Returns whether Postgres cancelled the statement after its `statement_timeout`.
pub fn is_statement_timeout(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some("57014")
}

impl TransientError {
    /// Classifies `error`. Returns `None` if the same statement would fail again.
    pub fn of(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::Io(error) => Some(Self::of_io(error)),
            sqlx::Error::PoolTimedOut => Some(Self::Busy),
            sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
            | sqlx::Error::Tls(_)
            // A Postgres whose main process has just died sends replies that break the protocol.
            | sqlx::Error::Protocol(_) => Some(Self::Unreachable),
            // Once the database is open, only the check of the audit key returns this error.
            sqlx::Error::Configuration(_) => Some(Self::OutdatedAuditKey),
            sqlx::Error::Database(error) => error.code().and_then(|code| Self::of_code(&code)),
            _ => None,
        }
    }

    /// Classifies an I/O error.
    pub fn of_io(error: &io::Error) -> Self {
        if let Some(lost) = LostFile::of(error) {
            return Self::FileLost(lost);
        }
        // ENFILE and EMFILE: the system or the process has reached its limit of open files.
        if matches!(error.raw_os_error(), Some(23 | 24)) {
            return Self::Busy;
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Unreachable,
        }
    }

    fn of_code(code: &str) -> Option<Self> {
        if code.len() == 5 { Self::of_sqlstate(code) } else { Self::of_sqlite(code.parse().ok()?) }
    }

    /// Classifies an SQLite result code. The low byte of an extended code is the primary code.
    fn of_sqlite(code: u32) -> Option<Self> {
        /// `SQLITE_IOERR_SHMSIZE`: the disk has no space for the index of the write-ahead log.
        const IOERR_SHMSIZE: u32 = 4874;
        Some(match (code, code & 0xff) {
            (IOERR_SHMSIZE, _) | (_, 13) => Self::DiskFull,
            (_, 5 | 6) => Self::Locked,
            (_, 8) => Self::ReadOnly,
            (_, 10) => Self::DiskFailure,
            (_, 14) => Self::CannotOpen,
            _ => return None,
        })
    }

    /// Classifies an SQLSTATE of Postgres. Classes: 08 connection, 53 resources, 57P operator
    /// intervention.
    fn of_sqlstate(code: &str) -> Option<Self> {
        Some(match code {
            "53100" => Self::DiskFull,
            "53300" => Self::Busy,
            "25006" => Self::ReadOnly,
            "55P03" => Self::Locked,
            "58030" => Self::DiskFailure,
            "40001" | "40P01" => Self::Conflict,
            _ if ["08", "53", "57P"].iter().any(|class| code.starts_with(class)) => {
                Self::Unreachable
            }
            _ => return None,
        })
    }

    /// Returns the `detail` of the response.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::DiskFull => "The disk of the database is full: writes fail until space is freed",
            Self::ReadOnly => "The database is read-only: writes fail until it is writable again",
            Self::Locked => "The database is locked by another process; try again in a moment",
            Self::DiskFailure => "The disk of the database is failing: a read or write failed",
            Self::CannotOpen => "The database cannot be opened; try again in a moment",
            Self::Busy => "The database is busy; try again in a moment",
            Self::Conflict => "This request conflicted with another one; try again in a moment",
            Self::Unreachable => "The database is unavailable; try again in a moment",
            Self::FileLost(LostFile::Database) => {
                "The database file was removed or replaced: writes fail until it is restored"
            }
            Self::FileLost(LostFile::WriteAheadLog) => {
                "The write-ahead log of the database (-wal) was removed or replaced: writes fail \
                 until it is restored or the server is restarted"
            }
            Self::FileLost(LostFile::LogIndex) => {
                "The index of the write-ahead log (-shm) was removed or replaced: writes fail \
                 until it is restored or the server is restarted"
            }
            Self::OutdatedAuditKey => NOT_CURRENT_AUDIT_KEY,
        }
    }

    /// Returns the reason that `/ready` reports.
    pub fn reason(self) -> &'static str {
        match self {
            Self::DiskFull => "database disk full",
            Self::ReadOnly => "database read-only",
            Self::Locked => "database locked",
            Self::DiskFailure => "database disk failing",
            Self::CannotOpen => "database cannot be opened",
            Self::Busy | Self::Conflict => "database busy",
            Self::Unreachable => "database unreachable",
            Self::FileLost(LostFile::Database) => "database file removed or replaced",
            Self::FileLost(LostFile::WriteAheadLog) => {
                "write-ahead log of the database (-wal) removed or replaced"
            }
            Self::FileLost(LostFile::LogIndex) => {
                "index of the write-ahead log (-shm) removed or replaced"
            }
            Self::OutdatedAuditKey => "audit key outdated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_sqlite_and_postgres_are_classified() {
        for (code, expected) in [
            ("13", Some(TransientError::DiskFull)),
            ("4874", Some(TransientError::DiskFull)),
            ("53100", Some(TransientError::DiskFull)),
            ("8", Some(TransientError::ReadOnly)),
            ("1032", Some(TransientError::ReadOnly)),
            ("25006", Some(TransientError::ReadOnly)),
            ("5", Some(TransientError::Locked)),
            ("517", Some(TransientError::Locked)),
            ("55P03", Some(TransientError::Locked)),
            ("778", Some(TransientError::DiskFailure)),
            ("14", Some(TransientError::CannotOpen)),
            ("53300", Some(TransientError::Busy)),
            ("40P01", Some(TransientError::Conflict)),
            ("57P01", Some(TransientError::Unreachable)),
            ("08006", Some(TransientError::Unreachable)),
            ("1", None),
            ("2067", None),
            ("23505", None),
            ("", None),
        ] {
            assert_eq!(TransientError::of_code(code), expected, "{code}");
        }
    }

    #[test]
    fn io_and_pool_errors_are_classified() {
        let of = |kind: io::ErrorKind| TransientError::of(&sqlx::Error::Io(kind.into()));
        assert_eq!(of(io::ErrorKind::StorageFull), Some(TransientError::DiskFull));
        assert_eq!(of(io::ErrorKind::ReadOnlyFilesystem), Some(TransientError::ReadOnly));
        let lost = sqlx::Error::Io(LostFile::Database.into());
        let expected = TransientError::FileLost(LostFile::Database);
        assert_eq!(TransientError::of(&lost), Some(expected));
        assert_eq!(of(io::ErrorKind::ConnectionReset), Some(TransientError::Unreachable));
        assert_eq!(TransientError::of(&sqlx::Error::PoolTimedOut), Some(TransientError::Busy));
        assert_eq!(TransientError::of(&sqlx::Error::RowNotFound), None);
    }
}
