//! Appending to the audit log, and the contents of its entries.

use super::{KEYS, LOGS, VERIFY, append, bytes, get, intact, open, record, verify};
use crate::support::{Backend, TestApp};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use octopus::db::query;
use octopus::features::api_keys::{bootstrap, service};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The test computes the hash from the design document alone.
#[apply(on_both!)]
async fn a_hash_is_the_hmac_that_the_design_describes(backend: Backend) {
    const STORED: &str = "SELECT seq, hash_key_id, timestamp, payload, hash \
                          FROM api_key_audit_logs ORDER BY seq";
    const COLUMNS: &str = "SELECT seq, api_key_id, api_key_name, action, performed_by, \
        performed_by_key_id, performed_by_key_name, performed_by_ip, request_id, details \
        FROM api_key_audit_logs WHERE seq = 2";
    type Stored = (i64, i64, DateTime<Utc>, String, Vec<u8>);
    type Columns = (i64, i64, String, String, String, i64, String, String, String, String);
    let secret = "a key for this very test: 32 bytes and more";
    let app = open(&backend, &[("AUDIT_KEY", secret)]).await;
    append(&app, 2).await;
    let rows: Vec<Stored> = query(&app.db, STORED).all().await.unwrap();

    let mut id = Sha256::new();
    id.update(b"octopus-audit-key-id\0");
    id.update(secret);
    let id: [u8; 4] = id.finalize()[..4].try_into().unwrap();
    let mut previous = vec![0; 32];
    for (place, (seq, key_id, time, payload, hash)) in (1_u64..).zip(&rows) {
        assert_eq!((u64::try_from(*seq), *key_id), (Ok(place), u32::from_be_bytes(id).into()));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(b"octopus-audit-v1\0");
        mac.update(&id);
        mac.update(&place.to_be_bytes());
        mac.update(&u64::try_from(time.timestamp_micros()).unwrap().to_be_bytes());
        mac.update(&previous);
        mac.update(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        mac.update(payload.as_bytes());
        previous = mac.finalize().into_bytes().to_vec();
        assert_eq!(&previous, hash, "row {seq}");
    }

    // The payload has every other column, in order.
    let row: Columns = query(&app.db, COLUMNS).one().await.unwrap();
    let text = |text: &str| serde_json::to_string(text).unwrap();
    let expected = format!(
        r#"{{"seq":{},"api_key_id":{},"api_key_name":{},"action":{},"performed_by":{},"performed_by_key_id":{},"performed_by_key_name":{},"performed_by_ip":{},"request_id":{},"details":{},"timestamp":"{}"}}"#,
        row.0,
        row.1,
        text(&row.2),
        text(&row.3),
        text(&row.4),
        row.5,
        text(&row.6),
        text(&row.7),
        text(&row.8),
        row.9,
        rows[1].2.format("%Y-%m-%dT%H:%M:%S%.6fZ"),
    );
    assert_eq!(rows[1].3, expected);
}

#[apply(on_both!)]
async fn eight_concurrent_writers_make_one_unbroken_chain(backend: Backend) {
    const EACH: i64 = 300;
    // Two servers with four writers each share one database.
    let apps = [open(&backend, &[]).await, open(&backend, &[]).await];
    let mut writers = JoinSet::new();
    for writer in 0..8_usize {
        let app = apps[writer % 2].clone();
        writers.spawn(async move {
            for n in 0..EACH {
                if n % 7 == 0 {
                    // A transaction that is rolled back when it is ready to commit.
                    let mut tx = app.db.begin().await.unwrap();
                    record(&app, &mut tx, -1).await.unwrap();
                    if n % 2 == 0 { tx.rollback().await.unwrap() } else { drop(tx) }
                }
                let mut tx = app.db.begin().await.unwrap();
                let number = i64::try_from(writer).unwrap() * EACH + n;
                record(&app, &mut tx, number).await.unwrap();
                tx.commit().await.unwrap();
            }
        });
    }
    writers.join_all().await;
    intact(&apps[0], 8 * EACH, "after all of them").await;
    let mut written: Vec<(i64, i64)> =
        query(&apps[0].db, "SELECT seq, api_key_id FROM api_key_audit_logs ORDER BY seq")
            .all()
            .await
            .unwrap();
    assert!(written.iter().map(|row| row.0).eq(1..=8 * EACH), "without gaps");
    written.sort_unstable_by_key(|row| row.1);
    assert!(written.iter().map(|row| row.1).eq(0..8 * EACH), "each once");
}

#[apply(on_both!)]
async fn verifying_while_others_write_raises_no_false_alarm(backend: Backend) {
    let app = open(&backend, &[]).await;
    append(&app, 600).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let (app, stop) = (app.clone(), stop.clone());
        writers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                append(&app, 3).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    let other = open(&backend, &[]).await;
    let (started, mut times, mut rows) = (Instant::now(), 0, 600);
    while started.elapsed() < Duration::from_secs(2) {
        let anchor = other.audit.anchor(&other.db).await.unwrap();
        let found = verify(&other, Some(&anchor)).await;
        assert!(found.intact && found.verified_rows >= rows, "{found:?}");
        assert!(found.head.seq == found.verified_rows, "{found:?}");
        rows = found.verified_rows;
        times += 1;
    }
    stop.store(true, Ordering::Relaxed);
    writers.join_all().await;
    assert!(times > 1 && rows > 600, "verified {times} times, {rows} rows at the end");
}

#[apply(on_both!)]
async fn a_change_whose_entry_cannot_be_appended_is_rolled_back(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    let path = format!("{KEYS}/{id}");
    let swallow = if backend.is_sqlite() {
        "CREATE TRIGGER swallow BEFORE INSERT ON api_key_audit_logs
            BEGIN SELECT RAISE(IGNORE); END;"
    } else {
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER swallow BEFORE INSERT ON api_key_audit_logs
            FOR EACH ROW EXECUTE FUNCTION swallow();"
    };
    let unswallow = if backend.is_sqlite() {
        "DROP TRIGGER swallow"
    } else {
        "DROP TRIGGER swallow ON api_key_audit_logs"
    };
    backend.execute("CREATE TABLE saved_head AS SELECT * FROM audit_head").await;
    let restore = "DELETE FROM audit_head; INSERT INTO audit_head SELECT * FROM saved_head";
    let zeros = bytes(&backend, &"00".repeat(32));
    let reset = format!("UPDATE audit_head SET seq = 0, hash = {zeros}");
    for (change, undo) in [
        (&*reset, restore),
        ("UPDATE audit_head SET seq = 1", restore),
        ("UPDATE audit_head SET seq = -7", restore),
        ("DELETE FROM audit_head", restore),
        (swallow, unswallow),
    ] {
        backend.execute(change).await;
        for call in [
            app.patch(&path, json!({"name": "changed"})),
            app.act(&format!("{path}/deactivate")),
            app.act(&format!("{path}/rotate")),
            app.delete(&path),
            app.post(KEYS, json!({"name": "new"})),
        ] {
            call.key(&admin).send().await.refused(500, "Internal Server Error");
        }
        backend.execute(undo).await;
        let key = get(&app, &admin, &path).await;
        assert_eq!((&key["name"], &key["is_active"]), (&json!("a key to read"), &json!(true)));
        assert_eq!(
            app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await,
            2,
            "{change}"
        );
        intact(&app.state, 2, change).await;
    }
    app.patch(&path, json!({"name": "changed"})).key(&admin).send().await.expect(200);
    intact(&app.state, 3, "it continues").await;
}

/// The newest audit entry.
async fn newest(app: &TestApp, admin: &str) -> Value {
    get(app, admin, &format!("{LOGS}?limit=1")).await[0].take()
}

#[apply(on_both!)]
async fn an_entry_has_the_request_id_and_the_caller(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let answer = app.act("/bootstrap").header("X-Request-Id", "first:of/all+1=.-_").send().await;
    let admin = answer.expect(200)["api_key"].as_str().unwrap().to_owned();
    let who = |log: &Value| -> Map<String, Value> {
        let fields = log.as_object().unwrap().clone().into_iter();
        fields.filter(|(name, _)| name.starts_with("performed") || name == "request_id").collect()
    };
    let by = |kind: &str, id: Option<i64>, ip: Option<&str>, request: Option<&str>| {
        let name = id.map(|_| "Master API Key");
        let fields = json!({"performed_by": kind, "performed_by_key_id": id,
            "performed_by_key_name": name, "performed_by_ip": ip, "request_id": request});
        fields.as_object().unwrap().clone()
    };
    let local = Some("127.0.0.1");
    let expected = by("anonymous", None, local, Some("first:of/all+1=.-_"));
    assert_eq!(who(&newest(&app, &admin).await), expected);

    let end = app.state.clock.now() + TimeDelta::minutes(1);
    let body = json!({"name": "short", "expires_at": end});
    let create = app.post(KEYS, body).key(&admin).header("X-Request-Id", "create-7").send().await;
    assert_eq!(create.header("x-request-id"), Some("create-7"));
    assert_eq!(create.status, 201);
    let expected = by("key", Some(1), local, Some("create-7"));
    assert_eq!(who(&newest(&app, &admin).await), expected);

    // An invalid request id is replaced, in the entry and in the response.
    for id in ["", "two words", "x\"y", &"x".repeat(129)] {
        let patch = app.patch(&format!("{KEYS}/2"), json!({"description": format!("by {id}")}));
        let answer = patch.key(&admin).header("X-Request-Id", id).send().await;
        let given = answer.header("x-request-id").unwrap().to_owned();
        assert!(given.len() == 36 && answer.status == 200, "{given}");
        assert_eq!(newest(&app, &admin).await["request_id"], json!(given));
    }
    // Both entries of a rotation have the same request id.
    let rotate = app.act(&format!("{KEYS}/2/rotate")).key(&admin);
    rotate.header("X-Request-Id", "rotate-9").send().await.expect(200);
    let both = get(&app, &admin, &format!("{LOGS}?limit=2")).await;
    let actions = [&both[0]["action"], &both[1]["action"]];
    assert_eq!(actions, ["create", "rotate"]);
    assert!(both.as_array().unwrap().iter().all(|log| log["request_id"] == "rotate-9"), "{both}");

    app.user("ada").await;
    app.delete("/api/v1/users/1")
        .key(&admin)
        .header("X-Request-Id", "bye")
        .send()
        .await
        .expect(204);
    let log = newest(&app, &admin).await;
    assert_eq!(who(&log), by("key", Some(1), local, Some("bye")));
    assert_eq!((&log["action"], &log["api_key_name"]), (&json!("delete_user"), &json!(null)));

    // Expiry by the background job, and on request of an administrator.
    app.advance(TimeDelta::minutes(2));
    service::cleanup_expired(&app.state, &octopus::audit::Origin::SERVER).await.unwrap();
    assert_eq!(who(&newest(&app, &admin).await), by("server", None, None, None));
    assert_eq!(get(&app, &admin, VERIFY).await["intact"], true);
}

#[apply(on_both!)]
async fn the_names_of_deleted_keys_stay_in_the_audit_log(backend: Backend) {
    let variables = [("MASTER_API_KEY", "a-master-key-of-32-characters-or-more")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = variables[0].1;
    let first = newest(&app, admin).await;
    assert_eq!(
        (&first["performed_by"], &first["api_key_name"]),
        (&json!("server"), &json!("Master API Key"),)
    );
    assert!(bootstrap::from_command_line(&app.state).await.is_err());
    let (second, id) = app.key(admin, "admin").await;
    let (_, made) = app.key(&second, "read").await;
    let rename = |id: i64, name: &str| app.patch(&format!("{KEYS}/{id}"), json!({"name": name}));
    rename(made, "renamed").key(&second).send().await.expect(200);
    rename(id, "the second").key(&second).send().await.expect(200);
    rename(made, "again").key(&second).send().await.expect(200);
    for id in [made, id] {
        app.delete(&format!("{KEYS}/{id}")).key(admin).send().await.expect(204);
    }
    let logs = get(&app, admin, LOGS).await;
    let shown = logs.as_array().unwrap().iter().rev().skip(1).map(|log| {
        let text = |name: &str| log[name].as_str().unwrap();
        (text("action"), text("api_key_name"), text("performed_by_key_name"))
    });
    let (master, key) = ("Master API Key", "a key to admin");
    let expected = [
        ("create", key, master),
        ("create", "a key to read", key),
        ("update", "renamed", key),
        // A key that renames itself is recorded under its old name.
        ("update", "the second", key),
        ("update", "again", "the second"),
        ("delete", "again", master),
        ("delete", "the second", master),
    ];
    assert!(shown.clone().eq(expected), "{:?}", shown.collect::<Vec<_>>());
    intact(&app.state, 8, "with deleted keys").await;
}
