//! API keys over HTTP: creation, retrieval and changes. The submodules test expiry, deletion and
//! the audit log.

mod audit_log;
mod ending;

use crate::support::{Backend, TestApp};
use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const KEYS: &str = "/api/v1/api-keys";
fn at(id: i64) -> String {
    format!("{KEYS}/{id}")
}

/// Creates a key from `body`; returns the response.
async fn create(app: &TestApp, admin: &str, body: Value) -> Value {
    app.post(KEYS, body).key(admin).send().await.expect(201)
}

async fn get(app: &TestApp, admin: &str, path: &str) -> Value {
    app.get(path).key(admin).send().await.expect(200)
}

/// The time in `by` from now, in the format of responses.
fn time(app: &TestApp, by: TimeDelta) -> String {
    (app.state.clock.now() + by).to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn id(key: &Value) -> i64 {
    key["id"].as_i64().unwrap()
}

fn ids(keys: &Value) -> Vec<i64> {
    keys.as_array().unwrap().iter().map(id).collect()
}

/// `key` without its secret.
fn without_secret(mut key: Value) -> Value {
    key.as_object_mut().unwrap().remove("key").expect("a secret");
    key
}

async fn keys_and_logs(app: &TestApp) -> (i64, i64) {
    let keys = app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await;
    (keys, app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_key_audit_logs").await)
}

#[apply(on_both!)]
async fn a_key_has_defaults_for_all_fields_except_its_name(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let before = time(&app, TimeDelta::zero());
    let answer = app.post(&format!("{KEYS}/"), json!({"name": "plain"})).key(&admin).send().await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let mut key = answer.expect(201);
    let created = key["created_at"].take();
    let (created, after) = (created.as_str().unwrap(), time(&app, TimeDelta::zero()));
    assert!(*before <= *created && *created <= *after, "{before} {created} {after}");
    let secret = key["key"].take();
    assert_eq!(secret.as_str().unwrap().len(), 57);
    let expected = json!({
        "id": 2, "name": "plain", "description": null, "scopes": "read", "is_active": true,
        "created_at": null, "expires_at": null, "last_used_at": null, "last_used_ip": null,
        "allowed_ips": null, "created_by_user_id": null, "rate_limit_per_minute": null,
        "rotated_from_id": null, "rotated_to_id": null, "grace_expires_at": null, "key": null,
    });
    assert_eq!(key, expected);
}

#[apply(on_both!)]
async fn a_key_can_be_created_with_every_field(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let name = "ä".repeat(255);
    let body = json!({
        "name": name, "description": "for everything", "scopes": " write, admin,read,write",
        "expires_at": "2099-01-01T02:00:00.1234567+02:00", "allowed_ips": "127.0.0.1, 10.0.0.0/8",
    });
    let key = create(&app, &admin, body).await;
    assert_eq!((&key["name"], &key["description"]), (&name.into(), &"for everything".into()));
    assert_eq!(key["scopes"], "admin,read,write");
    assert_eq!(key["expires_at"], "2099-01-01T00:00:00.123456Z");
    assert_eq!(key["allowed_ips"], "127.0.0.1,10.0.0.0/8");
    assert_eq!(get(&app, &admin, &at(id(&key))).await, without_secret(key));
    // A time without an offset is UTC; null means the default.
    let body = json!({"name": "x", "description": null, "expires_at": "2099-01-01T00:00:00",
        "allowed_ips": null});
    let key = create(&app, &admin, body).await;
    assert_eq!(key["expires_at"], "2099-01-01T00:00:00.000000Z");
}

#[apply(on_both!)]
async fn a_secret_is_shown_once_and_stored_only_as_its_hash(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (secret, made) = app.key(&admin, "admin").await;
    let rotated = app.act(&format!("{}/rotate", at(made))).key(&admin).send().await.expect(200);
    let second = rotated["key"].as_str().unwrap();
    app.patch(&at(id(&rotated)), json!({"name": "b"})).key(&admin).send().await.expect(200);

    for path in [
        at(made),
        at(id(&rotated)),
        format!("{KEYS}/me"),
        format!("{KEYS}?include_inactive=true"),
        format!("{KEYS}/audit-logs"),
    ] {
        let answer = app.get(&path).key(second).send().await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let text = answer.expect(200).to_string();
        assert!(![&admin, &secret, second].into_iter().any(|s| text.contains(&s[12..])), "{text}");
        assert!(!text.contains(r#""key":"#), "{text}");
        // The hashes of audit entries are not hashes of keys.
        assert!(!text.contains("key_hash"), "{text}");
        for key in [&admin, &secret, second] {
            assert!(!text.contains(&hex::encode(Sha256::digest(key))), "{text}");
        }
    }
    let hashes = app.rows::<(Vec<u8>,)>("SELECT key_hash FROM api_keys ORDER BY id").await;
    let expected = [&admin, &secret, second].map(|key| (Sha256::digest(key).to_vec(),));
    assert_eq!(hashes, expected);

    // The secrets are in no row of any kind and in no file.
    let stored: String = if backend.is_sqlite() {
        let files = std::fs::read_dir(backend.folder()).unwrap();
        let bytes = files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        String::from_utf8_lossy(&Vec::from_iter::<Vec<u8>>(bytes)).into_owned()
    } else {
        let rows = app
            .rows::<(String,)>(
                "SELECT CAST(k AS TEXT) FROM api_keys k \
            UNION ALL SELECT CAST(a AS TEXT) FROM api_key_audit_logs a",
            )
            .await;
        rows.into_iter().map(|(row,)| row).collect()
    };
    for key in [&admin, &secret, second] {
        assert!(stored.contains(&key[..12]), "the prefix is stored, for display");
        assert!(!stored.contains(&key[..16]) && !stored.contains(&key[16..]));
    }
}

#[apply(on_both!)]
async fn invalid_fields_are_named_and_no_key_is_created(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let refuse = async |body: Value, places: &[&str]| {
        app.post(KEYS, body).key(&admin).send().await.invalid(places);
    };
    let broken = json!({"name": "", "description": "x".repeat(1001), "scopes": "read,root",
        "expires_at": time(&app, TimeDelta::seconds(-1)), "allowed_ips": "10.0.0.1/8"});
    let places =
        ["body.name", "body.description", "body.scopes", "body.expires_at", "body.allowed_ips"];
    refuse(broken, &places).await;
    refuse(json!({}), &["body.name"]).await;
    refuse(json!({"name": null}), &["body.name"]).await;
    refuse(json!({"name": "x".repeat(256)}), &["body.name"]).await;
    refuse(json!({"name": "a\0b"}), &["body.name"]).await;
    for scopes in [json!(""), json!(","), json!("Read"), json!("read write"), json!(null)] {
        refuse(json!({"name": "x", "scopes": scopes}), &["body.scopes"]).await;
    }
    for list in ["", "10.0.0.256", "example.com", "10.0.0.0/33", "10.0.0.1,nonsense"] {
        refuse(json!({"name": "x", "allowed_ips": list}), &["body.allowed_ips"]).await;
    }
    for end in ["2000-01-01T00:00:00Z", "1999-12-31T23:59:59", "soon", "+12345-01-01T00:00:00Z"] {
        refuse(json!({"name": "x", "expires_at": end}), &["body.expires_at"]).await;
    }
    for field in ["is_active", "id", "key", "rotated_from_id", "expires_On"] {
        let mut body = json!({"name": "x"});
        body[field] = json!(true);
        refuse(body, &[&format!("body.{field}")]).await;
    }
    assert_eq!(keys_and_logs(&app).await, (1, 1));
}

#[apply(on_both!)]
async fn unknown_missing_and_invalid_fields_are_reported_together(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let patch = app.patch(&at(1), json!({"nam": "x", "scope": "read", "scopes": "root"}));
    patch.key(&admin).send().await.invalid(&["body.nam", "body.scope", "body.scopes"]);
    let post = app.post(KEYS, json!({"nam": "x", "scopes": "root"})).key(&admin).send().await;
    post.invalid(&["body.nam", "body.name", "body.scopes"]);
}

#[apply(on_both!)]
async fn keys_are_listed_by_id_in_pages(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for _ in 0..4 {
        app.key(&admin, "read").await;
    }
    app.act(&format!("{}/deactivate", at(3))).key(&admin).send().await.expect(200);
    for (query, expected) in [
        ("", vec![1, 2, 4, 5]),
        ("?include_inactive=false", vec![1, 2, 4, 5]),
        ("?include_inactive=true", vec![1, 2, 3, 4, 5]),
        ("?skip=1&limit=2", vec![2, 4]),
        ("?include_inactive=true&skip=1&limit=2", vec![2, 3]),
        ("?skip=4", vec![]),
        ("?skip=9223372036854775807&limit=1000", vec![]),
    ] {
        assert_eq!(ids(&get(&app, &admin, &format!("{KEYS}/{query}")).await), expected, "{query}");
    }
    for (query, places) in [
        ("skip=-1&limit=0&include_inactive=maybe", &["skip", "limit", "include_inactive"][..]),
        ("limit=1001", &["limit"]),
        ("skip=9223372036854775808", &["skip"]),
        ("limit=ten", &["limit"]),
    ] {
        let answer = app.get(&format!("{KEYS}?{query}")).key(&admin).send().await;
        let places: Vec<_> = places.iter().map(|place| format!("query.{place}")).collect();
        answer.invalid(&places.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[apply(on_both!)]
async fn a_key_can_be_fetched_by_its_id_and_by_itself(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (read, made) = app.key(&admin, "read").await;
    let me = get(&app, &read, &format!("{KEYS}/me")).await;
    assert_eq!((id(&me), &me["scopes"]), (made, &"read".into()));
    assert_eq!(get(&app, &admin, &at(made)).await, me);
    let none =
        [("", "GET"), ("", "PATCH"), ("", "DELETE"), ("/deactivate", "POST"), ("/rotate", "POST")];
    for (action, method) in none {
        let method: reqwest::Method = method.parse().unwrap();
        let call =
            |id: &str| app.call(method.clone(), &format!("{KEYS}/{id}{action}")).json(json!({}));
        for id in ["999", "9223372036854775807"] {
            call(id).key(&admin).send().await.refused(404, "API key not found");
        }
        for id in ["0", "-1", "x", "1.0", "9223372036854775808"] {
            call(id).key(&admin).send().await.invalid(&["path.api_key_id"]);
        }
    }
}

#[apply(on_both!)]
async fn a_patch_changes_only_the_fields_sent(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let body = json!({"name": "before", "description": "d", "scopes": "read",
        "expires_at": "2099-01-01T00:00:00Z", "allowed_ips": "127.0.0.1"});
    let mut expected = without_secret(create(&app, &admin, body).await);
    let path = at(id(&expected));
    let (end, sent) = ("2098-01-01T00:00:00.000000Z", "2098-01-01T01:00:00+01:00");
    for (field, sent, shown) in [
        ("name", json!("after"), json!("after")),
        ("description", json!(""), json!("")),
        ("scopes", json!("write,read"), json!("read,write")),
        ("expires_at", json!(sent), json!(end)),
        ("allowed_ips", json!("10.0.0.0/8 ,127.0.0.1"), json!("10.0.0.0/8,127.0.0.1")),
        ("is_active", json!(false), json!(false)),
        ("is_active", json!(true), json!(true)),
    ] {
        let before = expected[field].clone();
        expected[field] = shown.clone();
        let mut body = json!({});
        body[field] = sent;
        let patched = app.patch(&path, body).key(&admin).send().await.expect(200);
        assert_eq!(patched, expected, "{field}");
        assert_eq!(get(&app, &admin, &path).await, expected, "{field}");
        let logs = get(&app, &admin, &format!("{KEYS}/audit-logs?limit=1")).await;
        assert_eq!(logs[0]["action"], "update");
        let mut details = json!({});
        details[field] = json!({"from": before, "to": shown});
        assert_eq!(logs[0]["details"], details);
    }
    // An empty change changes nothing and writes no audit entry.
    let before = keys_and_logs(&app).await;
    assert_eq!(app.patch(&path, json!({})).key(&admin).send().await.expect(200), expected);
    assert_eq!(keys_and_logs(&app).await, before);
}

#[apply(on_both!)]
async fn a_patch_with_null_clears_a_nullable_field(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let body = json!({"name": "n", "description": "d", "expires_at": "2099-01-01T00:00:00Z",
        "allowed_ips": "127.0.0.1"});
    let mut expected = without_secret(create(&app, &admin, body).await);
    let path = at(id(&expected));
    for field in ["description", "expires_at", "allowed_ips"] {
        expected[field] = json!(null);
        let mut body = json!({});
        body[field] = json!(null);
        app.patch(&path, body).key(&admin).send().await.expect(200);
        assert_eq!(get(&app, &admin, &path).await, expected, "{field}");
    }
}

#[apply(on_both!)]
async fn a_patch_that_breaks_a_rule_changes_nothing(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (_, made) = app.key(&admin, "read").await;
    let (path, before) = (at(made), get(&app, &admin, &at(made)).await);
    let refuse = async |body: Value, places: &[&str]| {
        app.patch(&path, body).key(&admin).send().await.invalid(places);
    };
    let broken = json!({"name": "x".repeat(256), "description": "x".repeat(1001), "scopes": " ",
        "expires_at": time(&app, TimeDelta::seconds(-1)), "allowed_ips": "10.0.0.1/8"});
    let places =
        ["body.name", "body.description", "body.scopes", "body.expires_at", "body.allowed_ips"];
    refuse(broken, &places).await;
    for field in ["name", "scopes", "is_active"] {
        let mut body = json!({"description": "changed"});
        body[field] = json!(null);
        refuse(body, &[&format!("body.{field}")]).await;
    }
    for field in ["id", "key", "created_at", "last_used_at", "rotated_from_id", "active"] {
        let mut body = json!({"name": "changed"});
        body[field] = json!(null);
        refuse(body, &[&format!("body.{field}")]).await;
    }
    assert_eq!(get(&app, &admin, &path).await, before);
}
