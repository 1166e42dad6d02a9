//! `DATABASE_URL` in all the spellings people have: SQLAlchemy's and sqlx's.

use secrecy::SecretString;
use std::path::PathBuf;
use std::str::FromStr;

/// Which database to open, and where.
#[derive(Clone, Debug)]
pub enum DatabaseUrl {
    /// A file; relative paths are relative to the working directory.
    Sqlite(PathBuf),
    /// A `postgres://` URL. It may hold a password, so it is a secret.
    Postgres(SecretString),
}

/// A `DATABASE_URL` nobody can open; the text says what is understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Neither database's scheme.
    #[error("must begin with sqlite:// or postgres://")]
    Scheme,
    /// An SQLite URL that names no file.
    #[error("must name a file, such as sqlite:///./chat_conversations.db")]
    NoFile,
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    /// Three slashes are read as SQLAlchemy reads them: `sqlite:///x.db` is `x.db` in the working
    /// directory, `sqlite:////x.db` is `/x.db`. A driver after `+` is ignored.
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
    fn every_spelling_of_an_sqlite_file_is_understood() {
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
    fn every_spelling_of_a_postgres_url_is_understood_and_kept_secret() {
        for url in ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"] {
            let parsed = format!("{url}://me:hunter2@db:5432/octopus?sslmode=require").parse();
            let Ok(DatabaseUrl::Postgres(secret)) = &parsed else { panic!("{url}: {parsed:?}") };
            let expected = "postgres://me:hunter2@db:5432/octopus?sslmode=require";
            assert_eq!(secret.expose_secret(), expected);
            assert!(!format!("{parsed:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_url_that_names_no_database_says_what_would() {
        for url in ["", "mysql://x/y", "chat.db", "sqlite://", "sqlite::memory:", "sqlite:///data/"]
        {
            assert!(url.parse::<DatabaseUrl>().is_err(), "{url}");
        }
    }
}
