//! Compares the contents of SQLite files.

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

/// The hash of all rows of each table in order of id, including the search index. Opens the file
/// for writing, because after a kill SQLite may have to roll back first.
pub async fn table_hashes(file: &std::path::Path) -> Vec<(String, String)> {
    const TABLES: &str = "SELECT name FROM sqlite_master WHERE type = 'table' \
        AND name <> 'message_search' AND name <> 'message_terms' ORDER BY name";
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut connection = options.connect().await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&mut connection).await.unwrap();
    let mut hashes = vec![];
    for table in tables {
        let columns = format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid");
        let columns: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(columns)).fetch_all(&mut connection).await.unwrap();
        let quoted: Vec<_> = columns.iter().map(|name| format!("quote(\"{name}\")")).collect();
        let sql = format!("SELECT {} FROM \"{table}\" ORDER BY 1", quoted.join(" || ',' || "));
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        let hash = Sha256::digest(rows.join("\n").as_bytes());
        hashes.push((table, format!("{} rows {}", rows.len(), hex::encode(hash))));
    }
    connection.close().await.unwrap();
    hashes
}
