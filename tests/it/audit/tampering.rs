//! Attacks on the audit log with write access to the database but without the key.

use super::{
    BEYOND, BROKEN_LINK, CHANGED, CUT_OFF, LOGS, MISSING, MOVED, NO_HEAD, NO_PLACE, OTHER_ANCHOR,
    OTHER_HEAD, UNCHAINED, UNKNOWN_KEY, UNREADABLE, VERIFY, append, broken, bytes, get, intact,
    open, record, verify,
};
use crate::support::{Backend, TestApp};
use octopus::db::{Db, query};
use octopus::state::AppState;
use serde_json::json;

const ROWS: i64 = 6;
const TABLE: &str = "api_key_audit_logs";
const RESTORE: &str = "DELETE FROM api_key_audit_logs; DELETE FROM audit_head;
    INSERT INTO api_key_audit_logs SELECT * FROM saved_rows;
    INSERT INTO audit_head SELECT * FROM saved_head;";

/// Creates an audit log of six rows and a copy to restore it from.
async fn saved(backend: &Backend) -> AppState {
    let app = open(backend, &[]).await;
    append(&app, ROWS).await;
    backend
        .execute(
            "CREATE TABLE saved_rows AS SELECT * FROM api_key_audit_logs;
             CREATE TABLE saved_head AS SELECT * FROM audit_head;",
        )
        .await;
    app
}

/// Runs each attack, asserts the report, and restores the copy.
async fn report(backend: &Backend, app: &AppState, attacks: &[(&str, (i64, &str))]) {
    for (attack, expected) in attacks {
        backend.execute(*attack).await;
        broken(&verify(app, None).await, *expected, attack);
        backend.execute(RESTORE).await;
    }
    intact(app, ROWS, "as it was saved").await;
}

/// Runs `sql` without the CHECK constraints of the schema.
async fn without_checks(backend: &Backend, sql: &str) {
    let first = if backend.is_sqlite() {
        "PRAGMA ignore_check_constraints = ON"
    } else {
        "DO $$ DECLARE c RECORD; BEGIN
            FOR c IN SELECT conname, conrelid::regclass AS t FROM pg_constraint
                WHERE contype = 'c' AND conrelid IN ('api_key_audit_logs'::regclass, 'audit_head'::regclass)
            LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.t, c.conname); END LOOP;
        END $$"
    };
    backend.execute(format!("{first}; {sql}")).await;
}

async fn columns(db: &Db) -> Vec<String> {
    let sql = match db {
        Db::Sqlite { .. } => "SELECT name FROM pragma_table_info('api_key_audit_logs')",
        Db::Postgres { .. } => {
            "SELECT column_name::text FROM information_schema.columns \
             WHERE table_name = 'api_key_audit_logs' AND table_schema = current_schema()"
        }
    };
    let rows: Vec<(String,)> = query(db, sql).all().await.unwrap();
    rows.into_iter().map(|(name,)| name).collect()
}

#[apply(on_both!)]
async fn a_change_of_any_column_is_reported_with_its_row(backend: Backend) {
    let app = saved(&backend).await;
    let other_hash = bytes(&backend, &"07".repeat(32));
    // Equivalent JSON with another spelling is another text.
    let spaced = "replace(details, ':', ': ')";
    let mut edits = vec![
        ("seq", "77", MISSING),
        ("api_key_id", "99", CHANGED),
        ("api_key_id", "NULL", CHANGED),
        ("api_key_name", "'another key'", CHANGED),
        ("api_key_name", "NULL", CHANGED),
        ("action", "'create'", CHANGED),
        ("performed_by", "'host'", CHANGED),
        ("performed_by_key_id", "8", CHANGED),
        ("performed_by_key_id", "NULL", CHANGED),
        ("performed_by_key_name", "'somebody else'", CHANGED),
        ("performed_by_key_name", "''", CHANGED),
        ("performed_by_ip", "'192.0.2.2'", CHANGED),
        ("request_id", "'another-request'", CHANGED),
        ("details", "'{}'", CHANGED),
        ("details", "'no JSON'", CHANGED),
        ("details", "'\"no JSON\"'", CHANGED),
        ("details", "''", CHANGED),
        ("details", "details || ' '", CHANGED),
        ("details", "' ' || details", CHANGED),
        ("details", spaced, CHANGED),
        ("hash_key_id", "hash_key_id + 1", UNKNOWN_KEY),
        ("hash_key_id", "NULL", UNKNOWN_KEY),
        ("payload", "payload || ' '", CHANGED),
        ("payload", "'no JSON'", CHANGED),
        ("payload", "replace(payload, 'the caller', 'the callee')", CHANGED),
        ("payload", "(SELECT payload FROM saved_rows WHERE seq = 5)", MOVED),
        ("payload", "NULL", UNCHAINED),
        ("hash", &other_hash, BROKEN_LINK),
        ("hash", "(SELECT hash FROM saved_rows WHERE seq = 5)", BROKEN_LINK),
        ("hash", "NULL", UNCHAINED),
    ];
    edits.extend(if backend.is_sqlite() {
        vec![
            ("timestamp", "'2020-01-01T00:00:00.123456+00:00'", CHANGED),
            ("timestamp", "'yesterday'", CHANGED),
            ("timestamp", "''", CHANGED),
            // An equal time that sorts elsewhere: a search by time would not find it.
            ("timestamp", "replace(timestamp, '+00:00', 'Z')", CHANGED),
            ("timestamp", "replace(timestamp, 'T', ' ')", CHANGED),
            ("timestamp", "replace(timestamp, '+00:00', '000+00:00')", CHANGED),
            ("timestamp", "replace(timestamp, '+00:00', '001+00:00')", CHANGED),
            ("action", "CAST(x'ff' AS TEXT)", UNREADABLE),
        ]
    } else {
        vec![
            ("timestamp", "'2020-01-01T00:00:00.123456Z'", CHANGED),
            ("timestamp", "timestamp + interval '1 microsecond'", CHANGED),
            ("timestamp", "'infinity'", CHANGED),
            ("timestamp", "'-infinity'", CHANGED),
            ("timestamp", "'290000-01-01T00:00:00Z'", CHANGED),
        ]
    });
    for column in columns(&app.db).await {
        assert!(edits.iter().any(|edit| edit.0 == column), "no case changes {column}");
    }
    // The first row, one in the middle, and the last.
    let attacks: Vec<_> = edits
        .into_iter()
        .zip([1, 3, ROWS].into_iter().cycle())
        .map(|((column, value, problem), seq)| {
            let attack = format!("UPDATE {TABLE} SET {column} = {value} WHERE seq = {seq}");
            (attack, (seq, problem))
        })
        .collect();
    let attacks: Vec<_> = attacks.iter().map(|(attack, expected)| (&**attack, *expected)).collect();
    report(&backend, &app, &attacks).await;
}

#[apply(on_both!)]
async fn a_removed_moved_or_inserted_row_is_reported(backend: Backend) {
    const ALL: &str = "api_key_id, api_key_name, action, performed_by, performed_by_key_id, \
        performed_by_key_name, performed_by_ip, request_id, details, timestamp";
    let app = saved(&backend).await;
    let swap = |columns: &str, values: &str| {
        format!(
            "UPDATE {TABLE} SET ({columns}) = (SELECT {values} FROM saved_rows s \
             WHERE s.seq = 6 - {TABLE}.seq) WHERE seq IN (2, 4)"
        )
    };
    let (hashes, renumbered) = (
        format!("{ALL}, hash_key_id, payload, hash"),
        format!(
            "{ALL}, hash_key_id, replace(payload, '\"seq\":' || seq, '\"seq\":' || (6 - seq)), hash"
        ),
    );
    let shift = "UPDATE api_key_audit_logs SET seq = seq + 100 WHERE seq >= 3;
                 UPDATE api_key_audit_logs SET seq = seq - 99 WHERE seq >= 100;";
    let copy = |from: i64, to: i64, hashes: &str| {
        format!(
            "INSERT INTO {TABLE} (seq, {ALL}, hash_key_id, payload, hash) \
             SELECT {to}, {ALL}, {hashes} FROM saved_rows WHERE seq = {from};"
        )
    };
    let (hash_columns, none) = ("hash_key_id, payload, hash", "NULL, NULL, NULL");
    let longer = "UPDATE audit_head SET seq = 7;";
    let closed = "DELETE FROM api_key_audit_logs WHERE seq = 3;
                  UPDATE api_key_audit_logs SET seq = seq + 100 WHERE seq > 3;
                  UPDATE api_key_audit_logs SET seq = seq - 101 WHERE seq > 3;";
    let attacks = [
        ("DELETE FROM api_key_audit_logs WHERE seq = 1".to_owned(), (1, MISSING)),
        ("DELETE FROM api_key_audit_logs WHERE seq = 3".to_owned(), (3, MISSING)),
        ("DELETE FROM api_key_audit_logs WHERE seq IN (2, 5)".to_owned(), (2, MISSING)),
        (closed.to_owned(), (3, MOVED)),
        (format!("{closed} UPDATE audit_head SET seq = 5"), (3, MOVED)),
        (swap(ALL, ALL), (2, CHANGED)),
        (swap(&hashes, &hashes), (2, MOVED)),
        (swap(&hashes, &renumbered), (2, BROKEN_LINK)),
        (shift.to_owned(), (3, MISSING)),
        (format!("{shift} {}", copy(2, 3, none)), (3, UNCHAINED)),
        (format!("{shift} {}", copy(2, 3, hash_columns)), (3, MOVED)),
        (format!("{shift} {} {longer}", copy(2, 3, hash_columns)), (3, MOVED)),
        (copy(6, 7, hash_columns), (7, BEYOND)),
        (copy(6, 7, none), (7, BEYOND)),
        (copy(6, 9, hash_columns), (7, BEYOND)),
        (copy(6, 9_223_372_036_854_775_807, none), (7, BEYOND)),
        (format!("{} {longer}", copy(6, 7, hash_columns)), (7, MOVED)),
        (format!("{} {longer}", copy(6, 7, none)), (7, UNCHAINED)),
    ];
    let attacks: Vec<_> = attacks.iter().map(|(attack, expected)| (&**attack, *expected)).collect();
    report(&backend, &app, &attacks).await;
}

#[apply(on_both!)]
async fn a_row_at_an_impossible_place_is_reported(backend: Backend) {
    let app = saved(&backend).await;
    for seq in ["0", "-5", "-9223372036854775808"] {
        let hide = format!(
            "UPDATE saved_rows SET seq = {seq} WHERE seq = 6;
             INSERT INTO api_key_audit_logs SELECT * FROM saved_rows WHERE seq = {seq};
             UPDATE saved_rows SET seq = 6 WHERE seq = {seq};"
        );
        without_checks(&backend, &hide).await;
        broken(&verify(&app, None).await, (seq.parse().unwrap(), NO_PLACE), seq);
        backend.execute(RESTORE).await;
    }
    intact(&app, ROWS, "as it was saved").await;
}

/// Without its primary key, the table can have two rows with one `seq`.
#[apply(on_both!)]
async fn a_second_row_in_a_place_is_reported(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 1001).await;
    backend
        .execute(
            "CREATE TABLE forged AS SELECT * FROM api_key_audit_logs;
             DROP TABLE api_key_audit_logs;
             ALTER TABLE forged RENAME TO api_key_audit_logs;",
        )
        .await;
    intact(&app, 1001, "a table without a key").await;
    // Verification reads in batches: also the last row of a batch and the last of all.
    for seq in [1, 499, 500, 501, 1000, 1001] {
        let second = format!(
            "CREATE TABLE second AS SELECT * FROM {TABLE} WHERE seq = {seq};
             UPDATE second SET performed_by_ip = '192.0.2.66';
             INSERT INTO {TABLE} SELECT * FROM second; DROP TABLE second"
        );
        backend.execute(second).await;
        let fault = verify(&app, None).await.first_bad.expect("a row too many");
        assert_eq!(fault.seq, seq);
        assert!([NO_PLACE, CHANGED].contains(&fault.problem), "{}", fault.problem);
        backend.execute(format!("DELETE FROM {TABLE} WHERE performed_by_ip = '192.0.2.66'")).await;
    }
    intact(&app, 1001, "without the second rows").await;
}

/// Queries on a table include the rows of its child tables, which bypass its primary key.
#[apply(on_postgres!)]
async fn a_table_that_inherits_hides_no_row(backend: Backend) {
    let app = saved(&backend).await;
    let attack = "CREATE TABLE more () INHERITS (api_key_audit_logs);
                INSERT INTO more SELECT * FROM saved_rows WHERE seq = 6;";
    backend.execute(attack).await;
    broken(&verify(&app, None).await, (6, NO_PLACE), attack);
}

#[apply(on_both!)]
async fn a_tail_cut_off_is_reported_where_it_was_cut(backend: Backend) {
    let app = saved(&backend).await;
    let attacks = [
        ("DELETE FROM api_key_audit_logs WHERE seq > 5", (6, CUT_OFF)),
        ("DELETE FROM api_key_audit_logs WHERE seq > 4", (5, CUT_OFF)),
        ("DELETE FROM api_key_audit_logs", (1, CUT_OFF)),
    ];
    report(&backend, &app, &attacks).await;
}

#[apply(on_both!)]
async fn a_tail_cut_off_with_its_head_shows_against_an_anchor(backend: Backend) {
    let app = saved(&backend).await;
    let anchor = intact(&app, ROWS, "as it was made").await;
    let earlier = format!("4:{}", "00".repeat(32)).parse().unwrap();
    broken(&verify(&app, Some(&earlier)).await, (4, OTHER_ANCHOR), "another hash");
    let cut = |at: i64| {
        format!(
            "DELETE FROM api_key_audit_logs WHERE seq > {at}; UPDATE audit_head \
             SET seq = {at}, hash = (SELECT hash FROM saved_rows WHERE seq = {at})"
        )
    };
    backend.execute(cut(4)).await;
    intact(&app, 4, "the database alone does not show it").await;
    broken(&verify(&app, Some(&anchor)).await, (5, CUT_OFF), "cut off");
    append(&app, 1).await;
    broken(&verify(&app, Some(&anchor)).await, (6, CUT_OFF), "truncated and continued");
    append(&app, 5).await;
    intact(&app, 10, "the database alone does not show it").await;
    broken(&verify(&app, Some(&anchor)).await, (6, OTHER_ANCHOR), "longer than before");

    backend.execute(RESTORE).await;
    assert!(verify(&app, Some(&anchor)).await.intact);
    append(&app, 2).await;
    assert!(verify(&app, Some(&anchor)).await.intact, "the chain went on");
    let zeros = bytes(&backend, &"00".repeat(32));
    backend
        .execute(format!("DELETE FROM {TABLE}; UPDATE audit_head SET seq = 0, hash = {zeros}"))
        .await;
    intact(&app, 0, "as if nothing had ever been").await;
    broken(&verify(&app, Some(&anchor)).await, (1, CUT_OFF), "emptied");
    let nowhere = format!("0:{}", "07".repeat(32)).parse().unwrap();
    broken(&verify(&app, Some(&nowhere)).await, (0, OTHER_ANCHOR), "before the first row");
}

#[apply(on_both!)]
async fn a_head_that_was_changed_or_removed_is_reported(backend: Backend) {
    let app = saved(&backend).await;
    let other = bytes(&backend, &"07".repeat(32));
    let changed = format!("UPDATE audit_head SET hash = {other}");
    let emptied = format!("DELETE FROM {TABLE}; UPDATE audit_head SET seq = 0, hash = {other}");
    let below = "DELETE FROM api_key_audit_logs; UPDATE audit_head SET seq = -1";
    let attacks = [
        (&*changed, (6, OTHER_HEAD)),
        ("UPDATE audit_head SET seq = 5", (5, OTHER_HEAD)),
        (
            "UPDATE audit_head SET seq = 3, hash = (SELECT hash FROM saved_rows WHERE seq = 3)",
            (4, BEYOND),
        ),
        ("UPDATE audit_head SET seq = 0", (0, OTHER_HEAD)),
        ("UPDATE audit_head SET seq = -1", (1, BEYOND)),
        ("UPDATE audit_head SET seq = 7", (7, CUT_OFF)),
        ("UPDATE audit_head SET seq = 9223372036854775807", (7, CUT_OFF)),
        ("DELETE FROM audit_head", (7, NO_HEAD)),
        ("DELETE FROM audit_head; DELETE FROM api_key_audit_logs", (1, NO_HEAD)),
        // A fault before the end is reported first.
        ("DELETE FROM audit_head; DELETE FROM api_key_audit_logs WHERE seq = 2", (2, MISSING)),
        (&*emptied, (0, OTHER_HEAD)),
        (below, (1, OTHER_HEAD)),
    ];
    report(&backend, &app, &attacks).await;
    let short = bytes(&backend, &"07".repeat(31));
    without_checks(&backend, &format!("UPDATE audit_head SET hash = {short}")).await;
    broken(&verify(&app, None).await, (7, NO_HEAD), "31 bytes");
}

/// Rows that were hashed with the same key in another database, or in this one before a reset.
#[apply(on_both!)]
async fn an_audit_log_cannot_be_spliced_from_rows_of_another(backend: Backend) {
    let app = saved(&backend).await;
    let zeros = bytes(&backend, &"00".repeat(32));
    backend
        .execute(format!("DELETE FROM {TABLE}; UPDATE audit_head SET seq = 0, hash = {zeros}"))
        .await;
    append(&app, ROWS).await;
    intact(&app, ROWS, "another life").await;
    for (attack, expected) in [
        ("seq = 3", (3, BROKEN_LINK)),
        ("seq <= 3", (4, BROKEN_LINK)),
        ("seq > 3", (4, BROKEN_LINK)),
        ("seq = 6", (6, BROKEN_LINK)),
    ] {
        backend
            .execute(format!(
                "CREATE TABLE now_rows AS SELECT * FROM {TABLE};
                 DELETE FROM {TABLE} WHERE {attack};
                 INSERT INTO {TABLE} SELECT * FROM saved_rows WHERE {attack};"
            ))
            .await;
        broken(&verify(&app, None).await, expected, attack);
        backend
            .execute(format!(
                "DELETE FROM {TABLE}; INSERT INTO {TABLE} SELECT * FROM now_rows;
                 DROP TABLE now_rows"
            ))
            .await;
    }
    intact(&app, ROWS, "another life").await;
}

#[apply(on_both!)]
async fn the_api_reports_the_findings(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let mut tx = app.state.db.begin().await.unwrap();
    record(&app.state, &mut tx, 1).await.unwrap();
    tx.commit().await.unwrap();
    let logs = get(&app, &admin, LOGS).await;
    let head = format!("2:{}", logs[0]["hash"].as_str().unwrap());
    let found = get(&app, &admin, VERIFY).await;
    let expected = json!({"intact": true, "verified_rows": 2, "head": head, "removed_through": null, "first_bad": null, "key_differences": []});
    assert_eq!(found, expected);
    assert_eq!(get(&app, &admin, &format!("{VERIFY}?anchor={head}")).await, expected);

    let other = format!("{VERIFY}?anchor=2:{}", "0".repeat(64));
    let found = get(&app, &admin, &other).await;
    let fault = json!({"seq": 2, "problem": OTHER_ANCHOR});
    let expected = json!({"intact": false, "verified_rows": 1, "head": head, "removed_through": null, "first_bad": fault, "key_differences": []});
    assert_eq!(found, expected);

    backend.execute("UPDATE api_key_audit_logs SET action = 'create' WHERE seq = 1").await;
    let found = get(&app, &admin, VERIFY).await;
    let fault = json!({"seq": 1, "problem": CHANGED});
    let expected = json!({"intact": false, "verified_rows": 0, "head": head, "removed_through": null, "first_bad": fault, "key_differences": []});
    assert_eq!(found, expected, "a report repairs nothing");
    assert_eq!(get(&app, &admin, VERIFY).await, expected, "a report repairs nothing");
    for anchor in ["", "2", "2:00", "-1:00", &format!("x:{}", "0".repeat(64))] {
        let answer = app.get(&format!("{VERIFY}?anchor={anchor}")).key(&admin).send().await;
        answer.invalid(&["query.anchor"]);
    }
}

#[apply(on_both!)]
async fn audit_read_may_verify_and_read_and_users_read_may_not(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (auditor, _) = app.key(&admin, "audit:read").await;
    let (reader, _) = app.key(&admin, "users:read").await;
    assert_eq!(get(&app, &auditor, VERIFY).await["intact"], true);
    assert_eq!(get(&app, &auditor, LOGS).await.as_array().unwrap().len(), 3);
    for path in [VERIFY, LOGS] {
        app.get(path).key(&reader).send().await.expect(403);
        app.get(path).send().await.expect(401);
    }
}
