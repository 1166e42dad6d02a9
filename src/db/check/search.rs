//! Whether SQLite's index finds exactly what the messages say.

use super::Check;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, Result};

/// FTS5 compares its index with the texts in a statement that writes, and so would make every writer
/// wait. It does so here on a copy of the index, among what belongs to the connection alone, while
/// the texts are read where they are.
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
const NAME: &str = "what messages are found by";

/// Compares them on a connection of its own: where they differ, SQLite calls it malformed.
pub(super) async fn check(options: &SqliteConnectOptions) -> Result<Check> {
    let mut connection = options.clone().disable_statement_logging().connect().await?;
    let mut reading = connection.begin().await?; // both as they are at one moment
    let compared = match reading.execute(COPY).await {
        Ok(_) => reading.execute(COMPARE).await,
        failed => failed,
    };
    reading.rollback().await?;
    connection.close().await?;
    Check::of(NAME, compared.map(|_| vec![]), |()| String::new())
}
