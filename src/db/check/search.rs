//! Checks that SQLite's full-text index matches the messages.

use super::report::Check;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, Result};

/// Copies the index into the temporary database of the connection. FTS5 compares an index with its
/// texts in a statement that writes, which would block every writer of the main database. The texts
/// are read in place.
const COPY: &str = "
    CREATE TEMP VIEW message_texts AS
        SELECT id, content || char(10, 10) AS content FROM main.messages
        WHERE id <= (SELECT up_to FROM main.message_search_progress);
    CREATE VIRTUAL TABLE temp.message_search USING fts5 (
        content, content = 'message_texts', content_rowid = 'id', tokenize = 'trigram', columnsize = 0
    );
    DELETE FROM temp.message_search_data;
    DELETE FROM temp.message_search_idx;
    DELETE FROM temp.message_search_config;
    INSERT INTO temp.message_search_data SELECT * FROM main.message_search_data;
    INSERT INTO temp.message_search_idx SELECT * FROM main.message_search_idx;
    INSERT INTO temp.message_search_config SELECT * FROM main.message_search_config;";
const COMPARE: &str =
    "INSERT INTO temp.message_search (message_search, rank) VALUES ('integrity-check', 1)";
const NAME: &str = "search index";

/// Compares the index with the messages on a separate connection. SQLite reports a difference as a
/// malformed database.
pub(super) async fn check(options: &SqliteConnectOptions) -> Result<Check> {
    let mut connection = options.clone().disable_statement_logging().connect().await?;
    let mut reading = connection.begin().await?; // one state of both
    let compared = match reading.execute(COPY).await {
        Ok(_) => reading.execute(COMPARE).await,
        failed => failed,
    };
    reading.rollback().await?;
    connection.close().await?;
    Check::of(NAME, compared.map(|_| vec![]), |()| String::new())
}
