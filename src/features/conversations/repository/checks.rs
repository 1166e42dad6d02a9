//! The checks of `octopus verify` for conversations and their search index.

use crate::db::{SearchIndex, TableChecks, TableRule, TimeColumns};

/// The checks of conversations. Those that are imported or deleted in several transactions
/// (`retired_at`) are left out.
pub const CHECKS: TableChecks = TableChecks {
    id_tables: &["conversations", "messages", "conversation_events"],
    rules: &[
        TableRule {
            name: "message sequence numbers",
            row_kind: "conversation",
            sql: "SELECT c.id FROM conversations c WHERE c.retired_at IS NULL AND (c.last_seq <> \
                  (SELECT CAST(COUNT(*) AS BIGINT) FROM messages m \
                  WHERE m.conversation_id = c.id) OR \
                  c.last_seq <> COALESCE((SELECT MAX(m.seq) FROM messages m \
                  WHERE m.conversation_id = c.id), 0)) ORDER BY c.id LIMIT $1",
        },
        TableRule {
            name: "conversation timestamps",
            row_kind: "conversation",
            sql: "SELECT c.id FROM conversations c WHERE c.retired_at IS NULL AND \
                  ((c.last_seq = 0 AND c.active_at <> c.created_at) OR EXISTS \
                  (SELECT 1 FROM messages m WHERE m.conversation_id = c.id AND m.seq = c.last_seq \
                  AND m.created_at <> c.active_at)) ORDER BY c.id LIMIT $1",
        },
        TableRule {
            name: "conversation external ids",
            row_kind: "conversation",
            sql: "SELECT c.id FROM conversations c WHERE c.retired_at IS NULL \
                  AND c.external_id IS NULL ORDER BY c.id LIMIT $1",
        },
        TableRule {
            name: "deleted messages",
            row_kind: "message",
            sql: "SELECT m.id FROM messages m WHERE m.deleted_at IS NOT NULL \
                  AND (m.content <> '' OR m.metadata IS NOT NULL) ORDER BY m.id LIMIT $1",
        },
    ],
    times: &[
        TimeColumns {
            table: "conversations",
            row_kind: "conversation",
            columns: &["created_at", "updated_at", "active_at", "retired_at"],
        },
        TimeColumns {
            table: "messages",
            row_kind: "message",
            columns: &["created_at", "edited_at", "deleted_at"],
        },
        TimeColumns { table: "conversation_events", row_kind: "event", columns: &["created_at"] },
    ],
    search_indexes: &[SEARCH_INDEX],
    ..TableChecks::NONE
};

/// The index of the messages. The texts are read in place.
const SEARCH_INDEX: SearchIndex = SearchIndex {
    name: "search index",
    copy: "
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
    INSERT INTO temp.message_search_config SELECT * FROM main.message_search_config;",
    compare: "INSERT INTO temp.message_search (message_search, rank) VALUES ('integrity-check', 1)",
};
