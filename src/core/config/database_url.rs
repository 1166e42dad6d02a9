//! Parses `DATABASE_URL` in the syntax of SQLAlchemy or sqlx.

use secrecy::SecretString;
use std::path::PathBuf;
use std::str::FromStr;

/// The database to open.
#[derive(Clone, Debug)]
pub enum DatabaseUrl {
    /// An SQLite file. Relative paths are relative to the working directory.
    Sqlite(PathBuf),
    /// A `postgres://` URL. It is secret, because it may contain a password.
    Postgres(SecretString),
}

/// An invalid `DATABASE_URL`. The message completes "DATABASE_URL …".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// The scheme is neither that of SQLite nor that of Postgres.
    #[error("must begin with sqlite:// or postgres://")]
    Scheme,
    /// The SQLite URL names no file.
    #[error("must name a file, such as sqlite:///./chat_conversations.db")]
    NoFile,
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    /// Interprets three slashes as SQLAlchemy does: `sqlite:///x.db` is `x.db` in the working
    /// directory, `sqlite:////x.db` is `/x.db`. Ignores a driver after `+`.
    fn from_str(url: &str) -> Result<Self, DatabaseUrlError> {
        let (scheme, rest) = url.trim().split_once(':').ok_or(DatabaseUrlError::Scheme)?;
        let dialect = scheme.split('+').next().unwrap_or_default();
        match dialect.to_ascii_lowercase().as_str() {
            "sqlite" => sqlite_path(rest).map(Self::Sqlite),
            "postgres" | "postgresql" => Ok(Self::Postgres(format!("postgres:{rest}").into())),
            _ => Err(DatabaseUrlError::Scheme),
        }
    }
}

fn sqlite_path(rest: &str) -> Result<PathBuf, DatabaseUrlError> {
    let rest = rest.split_once('?').map_or(rest, |(path, _)| path);
    let path = match rest.strip_prefix("//") {
        Some(path) => path.strip_prefix('/').unwrap_or(path),
        None => rest,
    };
    if path.is_empty() || path.ends_with('/') || path.contains(":memory:") {
        return Err(DatabaseUrlError::NoFile);
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn every_form_of_an_sqlite_url_is_accepted() {
        for (url, path) in [
            ("sqlite:///./chat.db", "./chat.db"),
            ("sqlite:///chat.db", "chat.db"),
            ("sqlite:////data/chat.db", "/data/chat.db"),
            ("sqlite://chat.db", "chat.db"),
            ("sqlite://./chat.db?mode=rwc", "./chat.db"),
            ("sqlite:chat.db", "chat.db"),
            ("sqlite+aiosqlite:///./chat.db", "./chat.db"),
        ] {
            match url.parse() {
                Ok(DatabaseUrl::Sqlite(found)) => assert_eq!(found, PathBuf::from(path), "{url}"),
                other => panic!("{url}: {other:?}"),
            }
        }
    }

    #[test]
    fn every_form_of_a_postgres_url_is_accepted_and_kept_secret() {
        for url in ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"] {
            let parsed = format!("{url}://me:hunter2@db:5432/octopus?sslmode=require").parse();
            let Ok(DatabaseUrl::Postgres(secret)) = &parsed else { panic!("{url}: {parsed:?}") };
            let expected = "postgres://me:hunter2@db:5432/octopus?sslmode=require";
            assert_eq!(secret.expose_secret(), expected);
            assert!(!format!("{parsed:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_url_that_names_no_database_is_refused() {
        for url in ["", "mysql://x/y", "chat.db", "sqlite://", "sqlite::memory:", "sqlite:///data/"]
        {
            assert!(url.parse::<DatabaseUrl>().is_err(), "{url}");
        }
    }
}
