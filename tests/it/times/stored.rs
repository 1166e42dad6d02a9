//! Stored times out of range do not break reads, and `octopus verify` reports them.

use super::{CONVERSATIONS, KEYS};
use crate::support::process::octopus_on;
use crate::support::{Backend, TestApp};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

const FIRST: &str = "0001-01-01T00:00:00.000000Z";
const LAST: &str = "9999-12-31T23:59:59.999999Z";

/// Times that an earlier version or manual SQL could store, and how responses show them.
fn out_of_range(backend: &Backend) -> Vec<(&'static str, &'static str)> {
    if backend.is_sqlite() {
        return vec![
            ("0000-01-01T00:00:00+00:00", FIRST),
            ("-0044-03-15T00:00:00+00:00", FIRST),
            ("+10000-01-01T00:00:00+00:00", LAST),
            ("infinity", LAST),
            ("-infinity", FIRST),
        ];
    }
    vec![
        ("0001-01-01 00:00:00+00 BC", FIRST),
        ("0044-03-15 00:00:00+00 BC", FIRST),
        ("4713-11-24 00:00:00+00 BC", FIRST),
        ("10000-01-01 00:00:00+00", LAST),
        ("294276-12-31 23:59:59.999999+00", LAST),
        ("infinity", LAST),
        ("-infinity", FIRST),
    ]
}

/// A server with a row of each kind, and its admin key. Key 2 was used and rotated with a grace
/// period; user 1 has a session and a conversation with two messages.
async fn filled(backend: &Backend) -> (TestApp, String) {
    let app = TestApp::new(backend).await;
    let admin = app.admin().await;
    app.key(&admin, "read").await;
    let rotation = json!({"grace_period_seconds": 3600});
    app.post(&format!("{KEYS}/2/rotate"), rotation).key(&admin).send().await.expect(200);
    let user = app.user("ada").await;
    app.session_of(user).await;
    let id = app.conversation(&admin, &[user]).await;
    for _ in 0..2 {
        let body = json!({"role": "user", "content": "hello there", "user_id": user});
        let path = format!("{CONVERSATIONS}/{id}/messages");
        app.post(&path, body).key(&admin).send().await.expect(201);
    }
    (app, admin)
}

/// Sets each time of these rows to `time`.
async fn set_times(backend: &Backend, time: &str) {
    let sql = format!(
        "UPDATE api_keys SET created_at = '{time}', expires_at = '{time}', last_used_at = '{time}', \
         rotated_at = '{time}', grace_expires_at = '{time}' WHERE id = 2; \
         UPDATE users SET created_at = '{time}', updated_at = '{time}'; \
         UPDATE sessions SET created_at = '{time}', last_used_at = '{time}', expires_at = '{time}'; \
         UPDATE conversations SET created_at = '{time}', updated_at = '{time}', \
         active_at = '{time}'; \
         UPDATE messages SET created_at = '{time}', edited_at = '{time}'; \
         UPDATE conversation_events SET created_at = '{time}'"
    );
    backend.execute(sql).await;
}

/// The routes that read these rows.
const READS: [&str; 18] = [
    "/api/v1/api-keys?include_inactive=true",
    "/api/v1/api-keys?include_inactive=true&unused_for_days=1",
    "/api/v1/api-keys/2",
    "/api/v1/api-keys/2/usage",
    "/api/v1/api-keys/expiring?days=3650",
    "/api/v1/api-keys/audit-logs",
    "/api/v1/users",
    "/api/v1/users/1",
    "/api/v1/users/username/ada",
    "/api/v1/users/1/export",
    "/api/v1/conversations",
    "/api/v1/conversations?order=recent",
    "/api/v1/conversations/user/1",
    "/api/v1/conversations/1",
    "/api/v1/conversations/1/messages",
    "/api/v1/conversations/1/messages/1",
    "/api/v1/conversations/1/export",
    "/api/v1/conversations/search?q=hello",
];

#[apply(on_both!)]
async fn a_stored_time_out_of_range_is_read_as_the_nearest_one_in_it(backend: Backend) {
    let (app, admin) = filled(&backend).await;
    for (stored, shown) in out_of_range(&backend) {
        set_times(&backend, stored).await;
        for path in READS {
            let answer = app.get(path).key(&admin).send().await;
            assert_eq!(answer.status, 200, "{stored} {path}: {}", answer.text);
        }
        let read = async |path: &str| app.get(path).key(&admin).send().await.expect(200);
        let key = read("/api/v1/api-keys/2").await;
        assert_eq!((&key["created_at"], &key["expires_at"]), (&json!(shown), &json!(shown)));
        let user = read("/api/v1/users/1").await;
        assert_eq!((&user["created_at"], &user["updated_at"]), (&json!(shown), &json!(shown)));
        let listed = read("/api/v1/conversations?order=recent").await;
        let conversation = &listed[0];
        for field in ["created_at", "updated_at", "last_message_at"] {
            assert_eq!(conversation[field], shown, "{stored} {field}");
        }
        let message = &conversation["messages"][0];
        assert_eq!((&message["created_at"], &message["edited_at"]), (&json!(shown), &json!(shown)));
        // A change works, and gives the current time.
        let path = format!("{CONVERSATIONS}/1/messages");
        let body = json!({"role": "user", "content": "hello again"});
        let posted = app.post(&path, body).key(&admin).send().await.expect(201);
        let now = app.state.clock.now();
        let time: DateTime<Utc> = posted["created_at"].as_str().unwrap().parse().unwrap();
        assert!((now - time).num_seconds().abs() < 60, "{stored}: {posted}");
    }
}

#[apply(on_both!)]
async fn a_session_with_a_time_out_of_range_is_listed(backend: Backend) {
    let (app, _) = filled(&backend).await;
    let token = app.session_of(1).await;
    for (stored, shown) in out_of_range(&backend) {
        // An early last use would end the session. SQLite compares texts: `+` is before digits.
        let is_late = shown == LAST && !stored.starts_with('+');
        let column = if is_late { "last_used_at" } else { "created_at" };
        let sql = format!("UPDATE sessions SET {column} = '{stored}'");
        backend.execute(sql).await;
        let listed = app.get("/api/v1/users/me/sessions").session(&token).send().await.expect(200);
        assert!(listed.as_array().unwrap().iter().all(|s| s["created_at"].is_string()), "{listed}");
        backend.execute("UPDATE sessions SET created_at = '2026-01-01T00:00:00+00:00'").await;
    }
}

#[apply(on_both!)]
async fn a_key_with_an_expiry_before_every_time_has_expired(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for (stored, shown) in out_of_range(&backend) {
        // A key that no server has cached.
        let (key, id) = app.key(&admin, "read").await;
        let sql = format!("UPDATE api_keys SET expires_at = '{stored}' WHERE id = {id}");
        backend.execute(sql).await;
        let path = format!("{KEYS}/verify");
        let answer = app.post(&path, json!({"key": key})).key(&admin).send().await.expect(200);
        assert_eq!(answer["valid"], shown == LAST, "{stored}: {answer}");
    }
}

#[apply(on_both!)]
async fn an_audit_entry_with_a_time_out_of_range_is_listed_and_reported(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for (stored, shown) in out_of_range(&backend) {
        let sql = format!("UPDATE api_key_audit_logs SET timestamp = '{stored}' WHERE seq = 1");
        backend.execute(sql).await;
        let path = format!("{KEYS}/audit-logs?order=asc");
        let listed = app.get(&path).key(&admin).send().await.expect(200);
        assert_eq!(listed[0]["timestamp"], shown, "{stored}");
        let verification = app.get("/api/v1/admin/audit/verify").key(&admin).send().await;
        assert_eq!(verification.expect(200)["intact"], false, "{stored}");
    }
}

#[apply(on_both!)]
async fn a_list_with_times_out_of_range_is_read_to_its_end(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for _ in 0..4 {
        app.conversation(&admin, &[]).await;
    }
    let times = if backend.is_sqlite() {
        vec!["0000-01-01T00:00:00+00:00"]
    } else {
        vec!["infinity", "-infinity", "0044-03-15 00:00:00+00 BC", "20000-01-01 00:00:00+00"]
    };
    for time in times {
        // One row has another time.
        backend
            .execute(format!("UPDATE conversations SET active_at = '{time}' WHERE id < 4"))
            .await;
        let (mut ids, mut path) = (vec![], format!("{CONVERSATIONS}?order=recent&limit=1"));
        loop {
            let answer = app.get(&path).key(&admin).send().await;
            let next = answer.link("next");
            let page = answer.expect(200);
            ids.extend(page.as_array().unwrap().iter().map(|one| one["id"].as_i64().unwrap()));
            assert!(ids.len() <= 4, "{time}: {ids:?}");
            match next {
                Some(next) => path = next,
                None => break,
            }
        }
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3, 4], "{time}");
    }
}

#[apply(on_both!)]
async fn verify_reports_rows_with_times_out_of_range(backend: Backend) {
    let (app, _) = filled(&backend).await;
    app.stop().await.unwrap();
    let problems = async || -> Vec<String> {
        let output = octopus_on(&backend).await.args(["verify", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
        let checks = report["checks"].as_array().unwrap();
        let times = checks.iter().find(|check| check["name"] == "times").expect("the check");
        let problems = times["problems"].as_array().unwrap().iter();
        problems.map(|problem| problem.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(problems().await, [""; 0]);
    let early = "1969-12-31T23:59:59.999999+00:00";
    let mut cases = vec![
        ("messages", "created_at", "message 2", early),
        ("conversations", "updated_at", "conversation 1", early),
        ("conversation_events", "created_at", "event 2", early),
        ("users", "updated_at", "user 1", early),
        ("sessions", "expires_at", "session 1", early),
        ("api_keys", "last_used_at", "API key 2", early),
    ];
    let stored = out_of_range(&backend).into_iter();
    cases.extend(stored.map(|(stored, _)| ("messages", "edited_at", "message 2", stored)));
    for (table, column, row, time) in cases {
        let (_, id) = row.rsplit_once(' ').unwrap();
        let set = |time: &str| format!("UPDATE {table} SET {column} = '{time}' WHERE id = {id}");
        backend.execute(set(time)).await;
        assert_eq!(problems().await, [row], "{table} {column} {time}");
        backend.execute(set("2026-01-31T09:30:00.5+00:00")).await;
    }
    assert_eq!(problems().await, [""; 0]);
}
