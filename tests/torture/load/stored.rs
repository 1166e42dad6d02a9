//! Reads the stored rows as the facts that [`model`](super::model) defines.

use super::model::{Facts, KeyRow, Message, idempotency_fact, user_fact};
use octopus::db::{Db, query};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The facts about every entity of the writers.
pub async fn facts(db: &Db) -> Facts {
    let mut facts = Facts::new();
    keys(db, &mut facts).await;
    users(db, &mut facts).await;
    audit_entries(db, &mut facts).await;
    conversations(db, &mut facts).await;
    idempotency_records(db, &mut facts).await;
    facts
}

/// Appends `more` to the fact called `name`.
fn add(facts: &mut Facts, name: String, between: &str, more: &str) {
    let fact = facts.entry(name).or_default();
    if !fact.is_empty() {
        fact.push_str(between);
    }
    fact.push_str(more);
}

async fn keys(db: &Db, facts: &mut Facts) {
    const SQL: &str = "SELECT name, scopes, description, is_active, rotated_at IS NOT NULL \
        FROM api_keys WHERE id > 1 ORDER BY id";
    type Row = (String, String, Option<String>, bool, bool);
    let keys: Vec<Row> = query(db, SQL).all().await.unwrap();
    for (name, scopes, description, is_active, is_rotated) in keys {
        let description = description.unwrap_or_default();
        let row = KeyRow { scopes, description, is_active, is_rotated };
        add(facts, format!("key {name}"), " | ", &row.fact());
    }
}

async fn users(db: &Db, facts: &mut Facts) {
    const SQL: &str = "SELECT u.username, COALESCE(u.full_name, ''), u.is_active, \
        (SELECT CAST(COUNT(*) AS BIGINT) FROM sessions s WHERE s.user_id = u.id) FROM users u";
    let users: Vec<(String, String, bool, i64)> = query(db, SQL).all().await.unwrap();
    for (name, full_name, is_active, sessions) in users {
        let fact = user_fact(&full_name, is_active, usize::try_from(sessions).unwrap());
        facts.insert(format!("user {name}"), fact);
    }
}

async fn audit_entries(db: &Db, facts: &mut Facts) {
    // Refusals, registrations and sign-ins are written by a job, not by the request. Entries about
    // conversations are not modelled here; audit::users checks them.
    const SQL: &str = "SELECT api_key_name, action, details FROM api_key_audit_logs \
        WHERE action NOT IN ('bootstrap', 'auth_failed', 'register', 'sign_in', 'edit_message', \
        'delete_message', 'delete_conversation', 'import_conversation', 'export') ORDER BY seq";
    let rows: Vec<(Option<String>, String, String)> = query(db, SQL).all().await.unwrap();
    for (key, action, details) in rows {
        let whose = key.map_or_else(
            || {
                let details: Value = serde_json::from_str(&details).unwrap();
                format!("user {}", details["username"].as_str().unwrap_or(&action))
            },
            |name| format!("key {name}"),
        );
        add(facts, format!("audit entries of {whose}"), " ", &action);
    }
}

/// Conversation id, number, author, content, version, and whether the message is deleted.
type MessageRow = (i64, i64, Option<String>, String, i64, bool);

async fn conversations(db: &Db, facts: &mut Facts) {
    const CONVERSATIONS: &str = "SELECT id, COALESCE(title, ''), COALESCE(metadata, '{}'), last_seq \
        FROM conversations WHERE retired_at IS NULL";
    const PARTICIPANTS: &str = "SELECT p.conversation_id, u.username FROM participants p \
        JOIN users u ON u.id = p.user_id ORDER BY u.username";
    const EVENTS: &str = "SELECT conversation_id, kind, CAST(COUNT(*) AS BIGINT) \
        FROM conversation_events GROUP BY conversation_id, kind";
    const MESSAGES: &str = "SELECT m.conversation_id, m.seq, u.username, m.content, m.version, \
        m.deleted_at IS NOT NULL FROM messages m LEFT JOIN users u ON u.id = m.user_id";
    let mut names = BTreeMap::new();
    let conversations: Vec<(i64, String, String, i64)> =
        query(db, CONVERSATIONS).all().await.unwrap();
    for (id, title, metadata, last_seq) in conversations {
        let metadata: Value = serde_json::from_str(&metadata).unwrap();
        let name = metadata["name"].as_str().unwrap_or("nameless").to_owned();
        facts.insert(format!("conversation {name}"), format!("{title:?} last_seq={last_seq}"));
        names.insert(id, name);
    }
    let name = |id: i64| names.get(&id).map_or("a hidden conversation", String::as_str);
    let participants: Vec<(i64, String)> = query(db, PARTICIPANTS).all().await.unwrap();
    // SQLite and Postgres collate letters and digits differently.
    let mut participants: Vec<_> =
        participants.into_iter().map(|(id, who)| (name(id), who)).collect();
    participants.sort_unstable();
    for (conversation, who) in participants {
        add(facts, format!("participants of {conversation}"), " ", &who);
    }
    let events: Vec<(i64, String, i64)> = query(db, EVENTS).all().await.unwrap();
    let events: BTreeMap<_, _> =
        events.into_iter().map(|(id, kind, n)| ((name(id), kind), n)).collect();
    for ((conversation, kind), n) in events {
        add(facts, format!("events of {conversation}"), " ", &format!("{kind}×{n}"));
    }
    let messages: Vec<MessageRow> = query(db, MESSAGES).all().await.unwrap();
    for (id, seq, author, content, version, is_deleted) in messages {
        let message = Message { id: 0, author, content, version, is_deleted };
        facts.insert(format!("message in {}, {seq}", name(id)), message.fact());
    }
}

async fn idempotency_records(db: &Db, facts: &mut Facts) {
    const SQL: &str = "SELECT idempotency_key, resource_count FROM idempotency_keys";
    let records: Vec<(Vec<u8>, i64)> = query(db, SQL).all().await.unwrap();
    facts.extend(records.into_iter().map(|(hash, n)| (idempotency_fact(&hash), n.to_string())));
}

/// Kinds of inconsistency, each with the statement that counts its rows; every count must be 0.
const CONTRADICTIONS: [(&str, &str); 8] = [
    (
        "conversations whose messages are not numbered 1, 2, 3 …",
        "SELECT CAST(COUNT(*) AS BIGINT) FROM conversations c WHERE retired_at IS NULL AND last_seq <> \
         (SELECT COUNT(*) FROM messages m WHERE m.conversation_id = c.id AND m.seq <= c.last_seq)",
    ),
    (
        "messages beyond the last one",
        "SELECT CAST(COUNT(*) AS BIGINT) FROM messages m JOIN conversations c \
         ON c.id = m.conversation_id WHERE m.seq > c.last_seq",
    ),
    (
        "messages without exactly one creation event",
        // Imported messages have no event: no subscriber could have received it.
        "SELECT CAST(COUNT(*) AS BIGINT) FROM messages m JOIN conversations c \
         ON c.id = m.conversation_id LEFT JOIN (SELECT conversation_id, message_id, COUNT(*) AS times \
         FROM conversation_events WHERE kind = 'message.created' \
         GROUP BY conversation_id, message_id) e \
         ON e.conversation_id = m.conversation_id AND e.message_id = m.id \
         WHERE LENGTH(c.external_id) = 32 AND COALESCE(e.times, 0) <> 1",
    ),
    (
        "messages without exactly one event for each change",
        "SELECT CAST(COUNT(*) AS BIGINT) FROM messages m LEFT JOIN (SELECT conversation_id, \
         message_id, COUNT(*) AS times FROM conversation_events WHERE kind <> 'message.created' \
         GROUP BY conversation_id, message_id) e \
         ON e.conversation_id = m.conversation_id AND e.message_id = m.id \
         WHERE COALESCE(e.times, 0) <> m.version - 1",
    ),
    (
        "keys without exactly one audit entry of their creation",
        "SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys k WHERE (SELECT COUNT(*) FROM \
         api_key_audit_logs l WHERE l.api_key_id = k.id AND l.action IN ('create', 'bootstrap')) <> 1",
    ),
    (
        "keys whose rotation has no successor, or no audit entry",
        "SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys k WHERE rotated_at IS NOT NULL AND (SELECT \
         COUNT(*) FROM api_key_audit_logs l WHERE l.api_key_id = k.id AND l.action = 'rotate') <> 1",
    ),
    (
        "Idempotency-Keys that are claimed and created nothing",
        "SELECT CAST(COUNT(*) AS BIGINT) FROM idempotency_keys WHERE resource_count = 0",
    ),
    (
        "audit entries that the head of the chain does not count",
        "SELECT CAST(COUNT(*) AS BIGINT) FROM audit_head WHERE seq <> (SELECT COUNT(*) FROM \
         api_key_audit_logs) OR seq <> (SELECT COALESCE(MAX(seq), 0) FROM api_key_audit_logs)",
    ),
];

/// Asserts that the tables are consistent with each other.
pub async fn is_sound(db: &Db) {
    let mut found = String::new();
    for (what, sql) in CONTRADICTIONS {
        let (n,): (i64,) = query(db, sql).one().await.unwrap();
        if n != 0 {
            let _ = writeln!(found, "{n} {what}");
        }
    }
    assert!(found.is_empty(), "the database contradicts itself:\n{found}");
    if matches!(db, Db::Sqlite { .. }) {
        sqlite_is_sound(db).await;
    }
}

async fn sqlite_is_sound(db: &Db) {
    // With a rank other than 0, FTS5 also compares the index with the messages.
    const SEARCH: &str =
        "INSERT INTO message_search (message_search, rank) VALUES ('integrity-check', 1)";
    let found: Vec<(String,)> = query(db, "PRAGMA integrity_check").all().await.unwrap();
    assert_eq!(found, [("ok".to_owned(),)]);
    let strays: Vec<(String,)> =
        query(db, "SELECT \"table\" FROM pragma_foreign_key_check").all().await.unwrap();
    assert_eq!(strays, [], "rows refer to rows that are not there");
    let mut tx = db.begin().await.unwrap();
    query(&mut tx, SEARCH).execute().await.expect("the search index matches the messages");
    tx.rollback().await.unwrap();
}
