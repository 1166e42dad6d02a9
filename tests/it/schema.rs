//! Constraints of the schema, transactions of the database handle, and services without HTTP.

use crate::support::Backend;
use chrono::{DateTime, TimeDelta, Utc};
use octopus::audit::{Audit, AuditKeys, Origin};
use octopus::core::clock::Clock;
use octopus::core::error::Error;
use octopus::db::{Db, Tx, query};
use octopus::features::api_keys;
use octopus::features::conversations::model::{CreateMessage, NewMessage};
use octopus::features::conversations::service::messages::{self, Author};
use octopus::http::{Checked, Fields, Page, Rules};
use octopus::security::Visibility;
use octopus::state::AppState;
use serde_json::{Value, json};
use sqlx::error::ErrorKind;
use tokio::task::JoinSet;

/// Users 1 and 2 in conversation 1, user 1 in conversation 2, and their messages.
const ROWS: &str = "
    INSERT INTO users (email, email_key, username, username_key, password_hash, created_at, updated_at)
    VALUES ('A@example.com', 'a@example.com', 'A', 'a', 'x', '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00'),
           ('B@example.com', 'b@example.com', 'B', 'b', 'x', '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00');
    INSERT INTO conversations (last_seq, created_at, updated_at)
    VALUES (2, '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00'),
           (1, '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00');
    INSERT INTO participants (conversation_id, user_id) VALUES (1, 1), (1, 2), (2, 1);
    INSERT INTO messages (conversation_id, seq, role, content, user_id, created_at)
    VALUES (1, 1, 'user', 'one', 1, '2026-01-01T00:00:00+00:00'),
           (1, 2, 'user', 'two', 2, '2026-01-01T00:00:00+00:00'),
           (2, 1, 'user', 'three', 1, '2026-01-01T00:00:00+00:00');
    INSERT INTO api_key_audit_logs (seq, action, performed_by, details, timestamp)
    VALUES (1, 'bootstrap', 'host', '{}', '2026-01-01T00:00:00+00:00');";

const INSERT_USER: &str = "INSERT INTO users \
    (email, email_key, username, username_key, password_hash, created_at, updated_at) \
    VALUES ('c', 'c', 'c', 'c', 'x', '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00') \
    RETURNING id";
const COUNT_USERS: &str = "SELECT COUNT(*) FROM users";

/// The database with [`ROWS`].
async fn filled(backend: &Backend) -> Db {
    let db = backend.open().await;
    backend.execute(ROWS).await;
    db
}

async fn number(db: &Db, sql: &'static str) -> i64 {
    let (number,): (i64,) = query(db, sql).one().await.unwrap();
    number
}

/// Runs and commits one statement.
async fn write(db: &Db, sql: &'static str) -> sqlx::Result<u64> {
    let mut tx = db.begin().await?;
    let touched = query(&mut tx, sql).execute().await?;
    tx.commit().await?;
    Ok(touched)
}

/// The kind of constraint that refused a write.
#[track_caller]
fn violated<T: std::fmt::Debug>(result: sqlx::Result<T>, what: &str) -> ErrorKind {
    match result {
        Err(sqlx::Error::Database(error)) => error.kind(),
        other => panic!("no constraint refused it: {what}: {other:?}"),
    }
}

async fn insert_key(
    tx: &mut Tx,
    hash: Vec<u8>,
    expires_at: Option<DateTime<Utc>>,
) -> sqlx::Result<i64> {
    const SQL: &str = "INSERT INTO api_keys (key_hash, key_prefix, name, scopes, expires_at, \
                       created_by_user_id, rotated_from_id, created_at) \
                       VALUES ($1, 'octopus_xxxx', 'k', 'read', $2, (SELECT MIN(id) FROM users), \
                       (SELECT MAX(id) FROM api_keys), '2026-01-01T00:00:00+00:00') RETURNING id";
    let (id,): (i64,) = query(tx, SQL).bind(hash).bind(expires_at).one().await?;
    Ok(id)
}

#[apply(on_both!)]
async fn rows_that_break_a_constraint_are_refused(backend: Backend) {
    let db = filled(&backend).await;
    for (kind, sql) in [
        (ErrorKind::UniqueViolation, "UPDATE users SET email_key = 'a@example.com' WHERE id = 2"),
        (ErrorKind::UniqueViolation, "UPDATE users SET username_key = 'a' WHERE id = 2"),
        (ErrorKind::UniqueViolation, "UPDATE messages SET seq = 1 WHERE id = 2"),
        (ErrorKind::UniqueViolation, "INSERT INTO participants VALUES (1, 1)"),
        (ErrorKind::CheckViolation, "UPDATE messages SET role = 'tool'"),
        (ErrorKind::CheckViolation, "UPDATE messages SET role = 'User'"),
        (ErrorKind::CheckViolation, "UPDATE messages SET seq = 0 WHERE id = 1"),
        (ErrorKind::CheckViolation, "INSERT INTO installation (id) VALUES (2)"),
        (ErrorKind::NotNullViolation, "UPDATE messages SET content = NULL"),
        (ErrorKind::NotNullViolation, "UPDATE users SET password_hash = NULL"),
        (ErrorKind::NotNullViolation, "UPDATE api_key_audit_logs SET details = NULL"),
        (ErrorKind::NotNullViolation, "UPDATE api_key_audit_logs SET performed_by = NULL"),
        (ErrorKind::CheckViolation, "UPDATE api_key_audit_logs SET seq = 0"),
        (
            ErrorKind::CheckViolation,
            "INSERT INTO audit_head (id, seq, hash) SELECT 2, 0, hash FROM audit_head",
        ),
        (ErrorKind::ForeignKeyViolation, "INSERT INTO participants VALUES (1, 99)"),
        (ErrorKind::ForeignKeyViolation, "INSERT INTO participants VALUES (99, 1)"),
        (ErrorKind::ForeignKeyViolation, "UPDATE messages SET user_id = 99"),
        (ErrorKind::ForeignKeyViolation, "UPDATE messages SET conversation_id = 99 WHERE id = 1"),
    ] {
        let found = violated(write(&db, sql).await, sql);
        assert_eq!(format!("{found:?}"), format!("{kind:?}"), "{sql}");
    }
    // The same sequence number in another conversation is allowed.
    assert_eq!(number(&db, "SELECT COUNT(*) FROM messages WHERE seq = 1").await, 2);
}

#[apply(on_both!)]
async fn a_key_hash_has_32_bytes_and_is_unique(backend: Backend) {
    let db = backend.open().await;
    let mut tx = db.begin().await.unwrap();
    insert_key(&mut tx, vec![7; 32], None).await.unwrap();
    tx.commit().await.unwrap();
    for (hash, kind) in [
        (vec![7; 32], ErrorKind::UniqueViolation),
        (vec![8; 31], ErrorKind::CheckViolation),
        (vec![8; 33], ErrorKind::CheckViolation),
        (vec![], ErrorKind::CheckViolation),
    ] {
        let mut tx = db.begin().await.unwrap();
        let found = violated(insert_key(&mut tx, hash, None).await, "key");
        assert_eq!(format!("{found:?}"), format!("{kind:?}"));
    }
    // Hashes are compared by every byte, including those after a zero.
    let mut tx = db.begin().await.unwrap();
    for last in [0, 1] {
        let mut hash = vec![0; 32];
        hash[31] = last;
        insert_key(&mut tx, hash, None).await.unwrap();
    }
}

#[apply(on_both!)]
async fn deleting_a_conversation_deletes_its_messages_and_participants(backend: Backend) {
    let db = filled(&backend).await;
    assert_eq!(write(&db, "DELETE FROM conversations WHERE id = 1").await.unwrap(), 1);
    assert_eq!(number(&db, "SELECT COUNT(*) FROM messages WHERE conversation_id = 1").await, 0);
    assert_eq!(number(&db, "SELECT COUNT(*) FROM participants WHERE conversation_id = 1").await, 0);
    assert_eq!(number(&db, "SELECT COUNT(*) FROM messages").await, 1);
    assert_eq!(number(&db, "SELECT COUNT(*) FROM participants").await, 1);
    assert_eq!(number(&db, COUNT_USERS).await, 2);
}

#[apply(on_both!)]
async fn deleting_a_user_keeps_messages_and_removes_participation(backend: Backend) {
    let db = filled(&backend).await;
    assert_eq!(write(&db, "DELETE FROM users WHERE id = 1").await.unwrap(), 1);
    let messages: Vec<(String, Option<i64>)> =
        query(&db, "SELECT content, user_id FROM messages ORDER BY id").all().await.unwrap();
    let expected = [("one", None), ("two", Some(2)), ("three", None)];
    assert_eq!(messages, expected.map(|(content, user)| (content.to_owned(), user)));
    let memberships: Vec<(i64, i64)> =
        query(&db, "SELECT conversation_id, user_id FROM participants").all().await.unwrap();
    assert_eq!(memberships, [(1, 2)]);
    assert_eq!(number(&db, "SELECT COUNT(*) FROM conversations").await, 2);
}

#[apply(on_both!)]
async fn references_to_a_deleted_key_or_user_are_cleared(backend: Backend) {
    const REFERENCES: &str =
        "SELECT created_by_user_id, rotated_from_id FROM api_keys ORDER BY id DESC LIMIT 1";
    let db = filled(&backend).await;
    let mut tx = db.begin().await.unwrap();
    let old = insert_key(&mut tx, vec![1; 32], None).await.unwrap();
    insert_key(&mut tx, vec![2; 32], None).await.unwrap();
    tx.commit().await.unwrap();
    let references = async || query(&db, REFERENCES).one::<(Option<i64>, Option<i64>)>().await;
    assert_eq!(references().await.unwrap(), (Some(1), Some(old)));
    write(&db, "DELETE FROM users WHERE id = 1").await.unwrap();
    assert_eq!(references().await.unwrap(), (None, Some(old)));
    write(&db, "DELETE FROM api_keys WHERE id = 1").await.unwrap();
    assert_eq!(references().await.unwrap(), (None, None));
}

#[apply(on_both!)]
async fn ids_are_not_reused_after_the_newest_row_is_deleted(backend: Backend) {
    let db = filled(&backend).await;
    for (insert, delete) in [
        (INSERT_USER, "DELETE FROM users WHERE username = 'c'"),
        (
            "INSERT INTO conversations (title, created_at, updated_at) \
             VALUES ('c', '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00') RETURNING id",
            "DELETE FROM conversations WHERE title = 'c'",
        ),
        (
            "INSERT INTO messages (conversation_id, seq, role, content, created_at) \
             VALUES (2, 2, 'user', 'c', '2026-01-01T00:00:00+00:00') RETURNING id",
            "DELETE FROM messages WHERE content = 'c'",
        ),
    ] {
        let mut ids = vec![];
        for _ in 0..3 {
            let mut tx = db.begin().await.unwrap();
            let (id,): (i64,) = query(&mut tx, insert).one().await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(write(&db, delete).await.unwrap(), 1);
            ids.push(id);
        }
        assert!(ids.is_sorted_by(|a, b| a < b), "{insert}: {ids:?}");
    }
    let mut ids = vec![];
    for byte in 1..4 {
        let mut tx = db.begin().await.unwrap();
        ids.push(insert_key(&mut tx, vec![byte; 32], None).await.unwrap());
        tx.commit().await.unwrap();
        write(&db, "DELETE FROM api_keys").await.unwrap();
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[apply(on_both!)]
async fn a_snapshot_sees_one_state_while_others_write(backend: Backend) {
    const COUNT_MESSAGES: &str = "SELECT COUNT(*) FROM messages";
    let db = filled(&backend).await;
    let mut snapshot = db.snapshot().await.unwrap();
    let (users,): (i64,) = query(&mut snapshot, COUNT_USERS).one().await.unwrap();
    assert_eq!(users, 2);
    write(&db, INSERT_USER).await.unwrap();
    // Another connection, as another process would have.
    backend.execute("DELETE FROM messages WHERE id = 1").await;
    assert_eq!((number(&db, COUNT_USERS).await, number(&db, COUNT_MESSAGES).await), (3, 2));
    // A table that the snapshot has not read yet shows the same state.
    for (sql, expected) in [(COUNT_USERS, 2), (COUNT_MESSAGES, 3)] {
        let (seen,): (i64,) = query(&mut snapshot, sql).one().await.unwrap();
        assert_eq!(seen, expected, "{sql}");
    }
    drop(snapshot);
    let mut snapshot = db.snapshot().await.unwrap();
    let (users,): (i64,) = query(&mut snapshot, COUNT_USERS).one().await.unwrap();
    assert_eq!(users, 3);
}

#[apply(on_both!)]
async fn a_snapshot_cannot_write(backend: Backend) {
    let db = filled(&backend).await;
    let mut snapshot = db.snapshot().await.unwrap();
    assert!(query(&mut snapshot, INSERT_USER).execute().await.is_err());
    drop(snapshot);
    assert_eq!(number(&db, COUNT_USERS).await, 2);
}

#[apply(on_both!)]
async fn an_uncommitted_transaction_changes_nothing(backend: Backend) {
    let db = filled(&backend).await;
    let mut tx = db.begin().await.unwrap();
    query(&mut tx, INSERT_USER).execute().await.unwrap();
    // The row is visible inside the transaction and not outside.
    let (inside,): (i64,) = query(&mut tx, COUNT_USERS).one().await.unwrap();
    assert_eq!((inside, number(&db, COUNT_USERS).await), (3, 2));
    drop(tx);
    assert_eq!(number(&db, COUNT_USERS).await, 2);

    let mut tx = db.begin().await.unwrap();
    query(&mut tx, INSERT_USER).execute().await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(number(&db, COUNT_USERS).await, 2);

    write(&db, INSERT_USER).await.unwrap();
    assert_eq!(number(&db, COUNT_USERS).await, 3);
}

#[apply(on_both!)]
async fn a_failed_commit_of_one_writer_does_not_block_the_next(backend: Backend) {
    let db = filled(&backend).await;
    for _ in 0..40 {
        let mut tx = db.begin().await.unwrap();
        let failed = query(&mut tx, "INSERT INTO participants VALUES (1, 1)").execute().await;
        violated(failed, "a membership twice");
    }
    write(&db, INSERT_USER).await.unwrap();
    assert_eq!(number(&db, COUNT_USERS).await, 3);
}

#[apply(on_both!)]
async fn times_are_returned_as_they_were_stored(backend: Backend) {
    const LATER: &str = "SELECT COUNT(*) FROM users WHERE updated_at > $1";
    let db = filled(&backend).await;
    let early = "1969-07-20T20:17:40.000001Z".parse::<DateTime<Utc>>().unwrap();
    for time in [Clock::default().now(), early, early + TimeDelta::days(365 * 2000)] {
        let mut tx = db.begin().await.unwrap();
        query(&mut tx, "UPDATE users SET updated_at = $1").bind(time).execute().await.unwrap();
        tx.commit().await.unwrap();
        let (stored,): (DateTime<Utc>,) =
            query(&db, "SELECT updated_at FROM users WHERE id = 1").one().await.unwrap();
        assert_eq!(stored, time);
    }
    // Times are ordered chronologically, whatever their fractions.
    for (stored, asked, later) in [
        ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00Z", 2),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", 0),
        ("2026-01-01T00:00:00.123456Z", "2026-01-01T00:00:00.123Z", 2),
        ("2026-01-01T00:00:00.123Z", "2026-01-01T00:00:00.123456Z", 0),
    ] {
        let [stored, asked] = [stored, asked].map(|text| text.parse::<DateTime<Utc>>().unwrap());
        let mut tx = db.begin().await.unwrap();
        query(&mut tx, "UPDATE users SET updated_at = $1").bind(stored).execute().await.unwrap();
        tx.commit().await.unwrap();
        let (found,): (i64,) = query(&db, LATER).bind(asked).one().await.unwrap();
        assert_eq!(found, later, "{stored} > {asked}");
    }
}

/// The application state without a running server.
async fn parts(backend: &Backend) -> AppState {
    let (db, config) = (filled(backend).await, backend.config(&[]).await);
    // Its audit entry is one from before the hash chain.
    let audit = Audit::new(AuditKeys::load(&config).unwrap());
    audit.adopt(&db, Clock::default().now()).await.unwrap();
    db.close().await;
    AppState::open(config, Clock::default()).await.unwrap()
}

fn message(app: &AppState, body: Value) -> NewMessage {
    let sent: CreateMessage = serde_json::from_value(body).unwrap();
    let mut fields = Fields::new("body");
    let message = sent.check(&mut fields, &Rules { now: app.clock.now(), config: &app.config });
    fields.finish().unwrap();
    message
}

/// A key that may read and write every conversation.
const KEY: Author = Author { visibility: Visibility::All, may_read: true };

#[apply(on_both!)]
async fn concurrent_appends_number_messages_without_gaps(backend: Backend) {
    let app = parts(&backend).await;
    let mut tasks = JoinSet::new();
    for n in 0..64 {
        let app = app.clone();
        tasks.spawn(async move {
            let body = json!({"role": "user", "content": n.to_string(), "user_id": 1 + n % 2});
            let new = message(&app, body);
            messages::append(&app, 1, KEY, new, None).await.unwrap()
        });
    }
    assert_eq!(tasks.join_all().await.len(), 64);
    let seqs: Vec<(i64,)> =
        query(&app.db, "SELECT seq FROM messages WHERE conversation_id = 1 ORDER BY id")
            .all()
            .await
            .unwrap();
    // Ids are assigned while the conversation is locked, so they have the same order.
    assert_eq!(seqs, (1..=66).map(|seq| (seq,)).collect::<Vec<_>>());
    let page = Page { skip: 0, limit: 1000 };
    let listed = messages::numbers(&app.db, 1, Visibility::All, page.into()).await.unwrap();
    assert_eq!(listed.entries, (1..=66).collect::<Vec<_>>());
}

#[apply(on_both!)]
async fn a_refused_append_uses_no_sequence_number(backend: Backend) {
    let app = parts(&backend).await;
    let non_participant = message(&app, json!({"role": "user", "content": "x", "user_id": 2}));
    let refused = messages::append(&app, 2, KEY, non_participant, None).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    let unknown = message(&app, json!({"role": "tool", "content": "x"}));
    let refused = messages::append(&app, 2, KEY, unknown, None).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    let nowhere = message(&app, json!({"role": "user", "content": "x"}));
    let refused = messages::append(&app, 99, KEY, nowhere, None).await;
    assert!(matches!(refused, Err(Error::NotFound("Conversation"))), "{refused:?}");
    assert_eq!(number(&app.db, "SELECT last_seq FROM conversations WHERE id = 2").await, 1);
}

#[apply(on_both!)]
async fn cleaning_up_deactivates_expired_keys_once_and_audits_each(backend: Backend) {
    let app = parts(&backend).await;
    let soon = app.clock.now() + TimeDelta::hours(1);
    let mut tx = app.db.begin().await.unwrap();
    for (byte, end) in [(1, Some(soon)), (2, None), (3, Some(soon + TimeDelta::days(1)))] {
        insert_key(&mut tx, vec![byte; 32], end).await.unwrap();
    }
    let expired = insert_key(&mut tx, vec![4; 32], Some(soon)).await.unwrap();
    tx.commit().await.unwrap();
    let cleaned = async || {
        let report = api_keys::service::cleanup_expired(&app, &Origin::SERVER).await.unwrap();
        serde_json::to_value(report).unwrap()
    };
    let nothing = json!({"deactivated_count": 0, "message": "Deactivated 0 expired key(s)"});
    assert_eq!(cleaned().await, nothing);

    app.clock.advance(TimeDelta::hours(2));
    let reports = tokio::join!(cleaned(), cleaned(), cleaned(), cleaned());
    let reports = [reports.0, reports.1, reports.2, reports.3];
    let counts: i64 = reports.iter().map(|r| r["deactivated_count"].as_i64().unwrap()).sum();
    assert_eq!(counts, 2, "{reports:?}");
    assert_eq!(cleaned().await, nothing);
    let active: Vec<(i64,)> =
        query(&app.db, "SELECT id FROM api_keys WHERE is_active = TRUE ORDER BY id")
            .all()
            .await
            .unwrap();
    assert_eq!(active, [(2,), (3,)]);
    let recorded: Vec<(i64, String, Option<i64>)> = query(
        &app.db,
        "SELECT api_key_id, action, performed_by_key_id FROM api_key_audit_logs \
         WHERE api_key_id IS NOT NULL ORDER BY api_key_id",
    )
    .all()
    .await
    .unwrap();
    assert_eq!(recorded, [(1, "expire".to_owned(), None), (expired, "expire".to_owned(), None)]);
}
