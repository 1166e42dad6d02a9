//! The tables and columns of the source. The versions of the FastAPI app have different schemas, so
//! the import reads the columns that exist.

use crate::db::{Snapshot, query};
use std::collections::HashSet;

/// Required tables and columns.
const REQUIRED: [(&str, &[&str]); 3] = [
    ("users", &["id", "email", "username", "hashed_password"]),
    ("conversations", &["id"]),
    ("messages", &["id", "conversation_id", "role", "content"]),
];
/// Required columns of optional tables: early versions have no keys, others no audit log.
const OPTIONAL: [(&str, &[&str]); 3] = [
    ("conversation_participants", &["user_id", "conversation_id"]),
    ("api_keys", &["id", "key"]),
    ("api_key_audit_logs", &["id", "action"]),
];
/// Internal tables of Alembic and SQLite.
const NOT_DATA: [&str; 2] = ["alembic_version", "sqlite_sequence"];

/// The existing tables and columns.
#[derive(Debug)]
pub struct Schema {
    columns: HashSet<(String, String)>,
    tables: Vec<String>,
}

impl Schema {
    /// Reads the schema; the inner error is the reason why it is not a database of the FastAPI app.
    pub async fn read(snapshot: &mut Snapshot) -> sqlx::Result<Result<Self, String>> {
        const ENCODING: &str = "SELECT encoding FROM pragma_encoding";
        const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
        const COLUMNS: &str = "SELECT name FROM pragma_table_info($1)";
        let (encoding,): (String,) = query(&mut *snapshot, ENCODING).one().await?;
        if encoding != "UTF-8" {
            return Ok(Err(format!("its text encoding is {encoding}, not UTF-8")));
        }
        let names: Vec<(String,)> = query(&mut *snapshot, TABLES).all().await?;
        let tables: Vec<String> = names.into_iter().map(|(name,)| name).collect();
        let mut columns = HashSet::new();
        for table in &tables {
            let names: Vec<(String,)> =
                query(&mut *snapshot, COLUMNS).bind(table.as_str()).all().await?;
            columns.extend(names.into_iter().map(|(name,)| (table.clone(), name)));
        }
        let schema = Self { columns, tables };
        Ok(schema.check().map(|()| schema))
    }

    fn check(&self) -> Result<(), String> {
        if self.has_table("_sqlx_migrations") {
            return Err("it is already an Octopus database, not one of the FastAPI app; \
                        copy the file, or export and import its conversations"
                .into());
        }
        for (table, columns) in REQUIRED {
            if !self.has_table(table) {
                return Err(format!(
                    "it is not a database of the FastAPI app: it has no table {table}"
                ));
            }
            self.check_columns(table, columns)?;
        }
        for (table, columns) in OPTIONAL {
            if self.has_table(table) {
                self.check_columns(table, columns)?;
            }
        }
        Ok(())
    }

    fn check_columns(&self, table: &str, columns: &[&str]) -> Result<(), String> {
        match columns.iter().find(|column| !self.has(table, column)) {
            None => Ok(()),
            Some(column) => Err(format!("its table {table} has no column {column}")),
        }
    }

    pub fn has_table(&self, table: &str) -> bool {
        self.tables.iter().any(|name| name == table)
    }

    pub fn has(&self, table: &str, column: &str) -> bool {
        self.columns.contains(&(table.to_owned(), column.to_owned()))
    }

    /// Tables that the FastAPI app does not create.
    pub fn unknown_tables(&self) -> Vec<&str> {
        let known = REQUIRED.iter().chain(&OPTIONAL).map(|(table, _)| *table).chain(NOT_DATA);
        let known: HashSet<&str> = known.collect();
        self.tables.iter().map(String::as_str).filter(|name| !known.contains(name)).collect()
    }
}
