//! The report of a check.

use serde::Serialize;
use sqlx::Result;
use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteError;

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// The problems found, each a sentence or the name of a row. Empty if the check passed.
    pub problems: Vec<String>,
}

impl Check {
    /// Reports a problem for each of `rows`, or one problem if the file is too corrupt to be
    /// queried.
    pub(super) fn of<R>(
        name: &'static str,
        rows: Result<Vec<R>>,
        problem: impl Fn(R) -> String,
    ) -> Result<Self> {
        let problems = match rows {
            Err(sqlx::Error::Database(error)) if is_corrupt(&*error) => vec![error.to_string()],
            rows => rows?.into_iter().map(problem).collect(),
        };
        Ok(Self { name, problems })
    }
}

/// Returns whether the error is SQLITE_CORRUPT or one of its extended codes.
fn is_corrupt(error: &dyn DatabaseError) -> bool {
    const CORRUPT: i32 = 11;
    let is_sqlite = error.try_downcast_ref::<SqliteError>().is_some();
    let code = error.code().and_then(|code| code.parse().ok());
    is_sqlite && code.is_some_and(|code: i32| code & 0xff == CORRUPT)
}
