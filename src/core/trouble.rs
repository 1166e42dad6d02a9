//! Why a database does not do what it should although nothing is wrong with what it is asked: the
//! one place that knows what drivers say.

use std::io;

/// What is in the way. The same statement may work when it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no room on the disk.
    Full,
    /// The file, its disk or the server takes no writes.
    ReadOnly,
    /// Another process writes, and has for as long as we wait.
    Locked,
    /// The disk cannot be read or written.
    Failing,
    /// The file cannot be opened.
    Unopened,
    /// All connections are in use.
    Crowded,
    /// Two transactions were in each other's way.
    Collision,
    /// Nobody answers.
    Away,
    /// The audit log continues with another key than this process has.
    OtherAuditKey,
}

/// What a write fails with that would add to the audit log with an outdated key.
pub const NOT_CURRENT_AUDIT_KEY: &str =
    "The audit log has changed to another AUDIT_KEY: restart this server with that key";

/// Whether Postgres ended the statement because it took longer than its `statement_timeout`.
pub fn is_statement_timeout(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some("57014")
}

impl Trouble {
    /// What is in the way of what failed with `error`; `None` when that would fail again.
    pub fn of(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::Io(error) => Some(Self::of_io(error)),
            sqlx::Error::PoolTimedOut => Some(Self::Crowded),
            sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
            | sqlx::Error::Tls(_)
            // What a Postgres says whose first process has just died is no protocol.
            | sqlx::Error::Protocol(_) => Some(Self::Away),
            // Nothing else fails with it once the database is open.
            sqlx::Error::Configuration(_) => Some(Self::OtherAuditKey),
            sqlx::Error::Database(error) => error.code().and_then(|code| Self::of_code(&code)),
            _ => None,
        }
    }

    /// What is in the way of what failed with `error`.
    pub fn of_io(error: &io::Error) -> Self {
        // The process, or the system, has as many files open as it may: EMFILE and ENFILE.
        if matches!(error.raw_os_error(), Some(23 | 24)) {
            return Self::Crowded;
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Away,
        }
    }

    fn of_code(code: &str) -> Option<Self> {
        if code.len() == 5 { Self::of_sqlstate(code) } else { Self::of_sqlite(code.parse().ok()?) }
    }

    /// SQLite's primary codes are the low byte of its extended ones.
    fn of_sqlite(code: u32) -> Option<Self> {
        /// `SQLITE_IOERR_SHMSIZE`: the index of the log found no room to grow.
        const NO_ROOM_FOR_INDEX: u32 = 4874;
        Some(match (code, code & 0xff) {
            (NO_ROOM_FOR_INDEX, _) | (_, 13) => Self::Full,
            (_, 5 | 6) => Self::Locked,
            (_, 8) => Self::ReadOnly,
            (_, 10) => Self::Failing,
            (_, 14) => Self::Unopened,
            _ => return None,
        })
    }

    /// Postgres names its classes: 08 connection, 53 resources, 57P operator intervention.
    fn of_sqlstate(code: &str) -> Option<Self> {
        Some(match code {
            "53100" => Self::Full,
            "53300" => Self::Crowded,
            "25006" => Self::ReadOnly,
            "55P03" => Self::Locked,
            "58030" => Self::Failing,
            "40001" | "40P01" => Self::Collision,
            _ if ["08", "53", "57P"].iter().any(|class| code.starts_with(class)) => Self::Away,
            _ => return None,
        })
    }

    /// What a request is told that it is in the way of.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Full => {
                "The disk of the database is full: nothing can be stored until there is room"
            }
            Self::ReadOnly => "The database can only be read: nothing can be stored for now",
            Self::Locked => "The database is locked by another process; try again in a moment",
            Self::Failing => "The disk of the database fails: it could not be read or written",
            Self::Unopened => "The database cannot be opened; try again in a moment",
            Self::Crowded => "The database has no time for this request; try again in a moment",
            Self::Collision => "Another request was in the way; try again in a moment",
            Self::Away => "The database is unavailable; try again in a moment",
            Self::OtherAuditKey => NOT_CURRENT_AUDIT_KEY,
        }
    }

    /// The same for whoever watches the server.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Full => "database disk full",
            Self::ReadOnly => "database read-only",
            Self::Locked => "database locked",
            Self::Failing => "database disk failing",
            Self::Unopened => "database cannot be opened",
            Self::Crowded | Self::Collision => "database busy",
            Self::Away => "database unreachable",
            Self::OtherAuditKey => "audit key outdated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sqlite_and_postgres_say_is_understood() {
        for (code, expected) in [
            ("13", Some(Trouble::Full)),
            ("4874", Some(Trouble::Full)),
            ("53100", Some(Trouble::Full)),
            ("8", Some(Trouble::ReadOnly)),
            ("1032", Some(Trouble::ReadOnly)),
            ("25006", Some(Trouble::ReadOnly)),
            ("5", Some(Trouble::Locked)),
            ("517", Some(Trouble::Locked)),
            ("55P03", Some(Trouble::Locked)),
            ("778", Some(Trouble::Failing)),
            ("14", Some(Trouble::Unopened)),
            ("53300", Some(Trouble::Crowded)),
            ("40P01", Some(Trouble::Collision)),
            ("57P01", Some(Trouble::Away)),
            ("08006", Some(Trouble::Away)),
            ("1", None),
            ("2067", None),
            ("23505", None),
            ("", None),
        ] {
            assert_eq!(Trouble::of_code(code), expected, "{code}");
        }
    }

    #[test]
    fn what_the_system_says_is_understood() {
        let of = |kind: io::ErrorKind| Trouble::of(&sqlx::Error::Io(kind.into()));
        assert_eq!(of(io::ErrorKind::StorageFull), Some(Trouble::Full));
        assert_eq!(of(io::ErrorKind::ReadOnlyFilesystem), Some(Trouble::ReadOnly));
        assert_eq!(of(io::ErrorKind::ConnectionReset), Some(Trouble::Away));
        assert_eq!(Trouble::of(&sqlx::Error::PoolTimedOut), Some(Trouble::Crowded));
        assert_eq!(Trouble::of(&sqlx::Error::RowNotFound), None);
    }
}
