//! The tables of a database, and those that its migrations create. Both without the search index of
//! SQLite.

use octopus::db::{Db, query};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The tables of `db`.
pub async fn of(db: &Db) -> BTreeSet<String> {
    let sql = match db {
        Db::Sqlite { .. } => {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
             AND name NOT LIKE 'message_search%' AND name <> 'message_terms'"
        }
        Db::Postgres { .. } => {
            "SELECT table_name::text FROM information_schema.tables \
             WHERE table_schema = current_schema()"
        }
    };
    let rows: Vec<(String,)> = query(db, sql).all().await.unwrap();
    rows.into_iter().map(|(name,)| name).collect()
}

/// The tables that the migrations for `sqlite` or `postgres` leave, read from their text.
pub fn of_migrations(kind: &str) -> BTreeSet<String> {
    let statement = r"(?m)^(CREATE|DROP|ALTER) TABLE (\w+)(?: RENAME TO (\w+))?";
    let statement = regex::Regex::new(statement).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(kind);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut tables = BTreeSet::from(["_sqlx_migrations".to_owned()]);
    for file in files {
        for found in statement.captures_iter(&fs::read_to_string(file).unwrap()) {
            let table = found[2].to_owned();
            match (&found[1], found.get(3)) {
                ("CREATE", _) => assert!(tables.insert(table.clone()), "{table} exists twice"),
                ("DROP", _) => assert!(tables.remove(&table), "{table} does not exist"),
                (_, Some(name)) => {
                    assert!(tables.remove(&table), "{table} does not exist");
                    tables.insert(name.as_str().to_owned());
                }
                _ => {} // Changes the columns.
            }
        }
    }
    tables.retain(|table| !table.starts_with("message_search"));
    assert!(tables.len() > 15, "{tables:?}");
    tables
}
