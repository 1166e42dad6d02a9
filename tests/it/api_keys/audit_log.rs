//! The audit log of API keys, and the time of their last use.

use super::{KEYS, at, create, get, id, keys_and_logs, time};
use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use serde_json::{Value, json};

#[apply(on_both!)]
async fn the_audit_log_lists_operations_and_their_keys_newest_first(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (second, second_id) = app.key(&admin, "admin").await;
    let body = json!({"name": "n", "allowed_ips": "127.0.0.1"});
    let made = id(&create(&app, &second, body).await);
    app.patch(&at(made), json!({"name": "m"})).key(&second).send().await.expect(200);
    app.act(&format!("{}/rotate", at(made))).key(&admin).send().await.expect(200);
    app.act(&format!("{}/deactivate", at(made + 1))).key(&second).send().await.expect(200);
    app.delete(&at(made + 1)).key(&admin).send().await.expect(204);

    let logs = get(&app, &admin, &format!("{KEYS}/audit-logs/")).await;
    let logs = logs.as_array().unwrap();
    let (first, null) = (json!(1), json!(null));
    let (second, made, new) = (json!(second_id), json!(made), json!(made + 1));
    // Each entry has the names that both keys had at the time.
    let (master, other) = ("Master API Key", "a key to admin");
    let expected = [
        ("delete", &new, "m", &first, json!(master)),
        ("deactivate", &new, "m", &second, json!(other)),
        ("create", &new, "m", &first, json!(master)),
        ("rotate", &made, "m", &first, json!(master)),
        ("update", &made, "m", &second, json!(other)),
        ("create", &made, "n", &second, json!(other)),
        ("create", &second, other, &first, json!(master)),
        ("bootstrap", &first, master, &null, json!(null)),
    ];
    let shown: Vec<_> = logs
        .iter()
        .map(|log| {
            let text = |name: &str| log[name].as_str().unwrap();
            let by = (&log["performed_by_key_id"], log["performed_by_key_name"].clone());
            (text("action"), &log["api_key_id"], text("api_key_name"), by.0, by.1)
        })
        .collect();
    assert_eq!(shown, expected);
    let fields = [
        "action",
        "api_key_id",
        "api_key_name",
        "details",
        "hash",
        "id",
        "performed_by",
        "performed_by_ip",
        "performed_by_key_id",
        "performed_by_key_name",
        "request_id",
        "timestamp",
    ];
    let later = |a: &Value, b: &Value| a["timestamp"].as_str() >= b["timestamp"].as_str();
    for (log, before) in logs.iter().zip(&logs[1..]) {
        assert!(log["details"].is_object(), "{log}");
        assert_eq!(
            (&log["performed_by"], &log["performed_by_ip"]),
            (&json!("key"), &json!("127.0.0.1"))
        );
        assert_eq!(log["request_id"].as_str().map(str::len), Some(36), "{log}");
        assert_eq!(log["hash"].as_str().map(str::len), Some(64), "{log}");
        assert!(id(log) == id(before) + 1 && later(log, before), "{log} {before}");
        let mut names: Vec<_> = log.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, fields);
        let time = log["timestamp"].as_str().unwrap();
        assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
    }
    let first = logs.last().unwrap();
    assert_eq!((&first["performed_by"], &first["request_id"]), (&json!("host"), &null));
    assert_eq!(logs[4]["details"], json!({"name": {"from": "n", "to": "m"}}));
    assert_eq!(logs[3]["details"]["rotated_to_id"], new);
}

#[apply(on_both!)]
async fn the_audit_log_can_be_filtered(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, a) = app.key(&admin, "read").await;
    let (_, b) = app.key(&admin, "read").await;
    app.advance(TimeDelta::hours(2));
    let noon = time(&app, TimeDelta::hours(-1));
    app.patch(&at(a), json!({"name": "x"})).key(&admin).send().await.expect(200);
    app.patch(&at(b), json!({"name": "x"})).key(&admin).send().await.expect(200);

    let all = get(&app, &admin, &format!("{KEYS}/audit-logs")).await;
    let [updated_b, updated_a, created_b, created_a, bootstrapped] = &all.as_array().unwrap()[..]
    else {
        panic!("{all}")
    };
    let at_update = updated_b["timestamp"].as_str().unwrap();
    let local = noon.replace('Z', "");
    for (query, expected) in [
        (format!("api_key_id={a}"), vec![updated_a, created_a]),
        ("action=create".to_owned(), vec![created_b, created_a]),
        (format!("action=update&api_key_id={b}"), vec![updated_b]),
        (format!("since={noon}"), vec![updated_b, updated_a]),
        (format!("until={noon}"), vec![created_b, created_a, bootstrapped]),
        (format!("since={local}%2B00:00&until=2099-01-01T00:00:00Z"), vec![updated_b, updated_a]),
        (format!("until={local}"), vec![created_b, created_a, bootstrapped]),
        (format!("since={at_update}"), vec![updated_b]),
        ("action=bootstrap".to_owned(), vec![bootstrapped]),
        ("action=delete".to_owned(), vec![]),
        ("api_key_id=999".to_owned(), vec![]),
        ("skip=1&limit=2".to_owned(), vec![updated_a, created_b]),
    ] {
        let logs = get(&app, &admin, &format!("{KEYS}/audit-logs?{query}")).await;
        assert_eq!(logs.as_array().unwrap().iter().collect::<Vec<_>>(), expected, "{query}");
    }
    let broken = "api_key_id=0&action=nonsense&since=yesterday&until=x&skip=-1&limit=0";
    let answer = app.get(&format!("{KEYS}/audit-logs?{broken}")).key(&admin).send().await;
    let places = ["api_key_id", "action", "since", "until", "skip", "limit"];
    let places = places.map(|place| format!("query.{place}"));
    answer.invalid(&places.each_ref().map(String::as_str));
}

#[apply(on_both!)]
async fn the_last_use_is_shown_immediately_and_stored_at_shutdown(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, made) = app.key(&admin, "read").await;
    assert_eq!(get(&app, &admin, &at(made)).await["last_used_at"], json!(null));
    let path = format!("{KEYS}/me");
    for _ in 0..3 {
        app.advance(TimeDelta::hours(1));
        let before = time(&app, TimeDelta::zero());
        let me = get(&app, &key, &path).await;
        let used = me["last_used_at"].as_str().unwrap();
        assert!(used >= &*before && used <= &*time(&app, TimeDelta::zero()), "{before} {used}");
        assert_eq!(me["last_used_ip"], "127.0.0.1");
    }
    // Lists show it too. A request refused for a missing scope counts as a use.
    app.advance(TimeDelta::hours(1));
    let before = time(&app, TimeDelta::zero());
    app.get(KEYS).key(&key).send().await.expect(403);
    let shown = get(&app, &admin, KEYS).await[1].clone();
    assert!(id(&shown) == made && shown["last_used_at"].as_str().unwrap() >= &*before, "{shown}");
    assert_eq!(get(&app, &admin, &at(made)).await, shown);

    app.stop().await.unwrap();
    let app = TestApp::new(&backend).await;
    // The restarted server has the stored times only. Its clock is four hours behind: the stored
    // time is from a wrong clock, and the next use replaces it.
    assert_eq!(get(&app, &admin, &at(made)).await, shown);
    get(&app, &key, &path).await;
    app.stop().await.unwrap();
    let app = TestApp::new(&backend).await;
    let replaced = get(&app, &admin, &at(made)).await;
    let used = |key: &Value| key["last_used_at"].as_str().unwrap().to_owned();
    assert!(used(&replaced) < used(&shown), "{replaced}");
}

#[apply(on_both!)]
async fn a_change_whose_audit_entry_fails_is_rolled_back(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, made) = app.key(&admin, "read").await;
    let end = time(&app, TimeDelta::minutes(5));
    create(&app, &admin, json!({"name": "short-lived", "expires_at": end})).await;
    app.advance(TimeDelta::minutes(10));
    let path = format!("{KEYS}?include_inactive=true");
    let keys = async || {
        let mut keys = get(&app, &admin, &path).await;
        keys.as_array_mut().unwrap().iter_mut().for_each(|key| key["last_used_at"] = json!(null));
        keys
    };
    get(&app, &key, &format!("{KEYS}/me")).await;
    let before = keys().await;
    assert_eq!(keys_and_logs(&app).await, (3, 3));
    backend.execute("DROP TABLE api_key_audit_logs").await;
    for call in [
        app.post(KEYS, json!({"name": "new"})),
        app.patch(&at(made), json!({"name": "changed"})),
        app.act(&format!("{}/deactivate", at(made))),
        app.act(&format!("{}/rotate", at(made))),
        app.act(&format!("{}/rotate", at(1))),
        app.delete(&at(made)),
        app.act(&format!("{KEYS}/cleanup-expired")),
    ] {
        call.key(&admin).send().await.refused(500, "Internal Server Error");
        assert_eq!(keys().await, before);
    }
    app.get("/api/v1/users").key(&key).send().await.expect(200);
    // The bootstrap key is not created without its audit entry either.
    backend.execute("DELETE FROM api_keys").await;
    app.act("/bootstrap").send().await.refused(500, "Internal Server Error");
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 0);
}
