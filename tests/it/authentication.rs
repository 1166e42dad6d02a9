//! Authentication: credentials, the header fields that carry them, and address lists.

use crate::support::{Answer, Backend, Call, TestApp};
use chrono::TimeDelta;
use serde_json::json;

const ME: &str = "/api/v1/api-keys/me";
const INVALID: &str = "Invalid or inactive API Key";
const WRONG_CHECKSUM: &str =
    "Invalid API key: its checksum is wrong; check for missing or changed characters";
const EXPIRED: &str = "API Key has expired";
const NOT_FROM_HERE: &str = "API key not authorized from this IP address";
const MISTYPED: &str = "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMR";

#[track_caller]
fn unauthenticated(answer: Answer, detail: &str) {
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Bearer"), "{challenge}");
    answer.refused(401, detail);
}

fn bearer(call: Call, token: &str) -> Call {
    call.header("Authorization", format!("Bearer {token}"))
}

/// Creates a key restricted to `list`; returns its secret and its id.
async fn key_from(app: &TestApp, admin: &str, list: &str) -> (String, i64) {
    let body = json!({"name": "from somewhere", "allowed_ips": list});
    let key = app.post("/api/v1/api-keys", body).key(admin).send().await.expect(201);
    (key["key"].as_str().unwrap().to_owned(), key["id"].as_i64().unwrap())
}

#[apply(on_both!)]
async fn a_request_without_a_credential_gets_a_challenge(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.admin().await;
    unauthenticated(
        app.get(ME).send().await,
        "API key required: send it in the header field Octopus-API-Key",
    );
    // Another scheme in Authorization is not a credential of this server.
    let basic = app.get(ME).header("Authorization", "Basic eDp5").send().await;
    unauthenticated(basic, "API key required: send it in the header field Octopus-API-Key");
    let post = app.post("/api/v1/conversations", json!({"nonsense": 1})).send().await;
    unauthenticated(post, "API key required: send it in the header field Octopus-API-Key");
}

#[apply(on_both!)]
async fn an_unknown_or_mistyped_key_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    assert_eq!(MISTYPED.len(), admin.len());
    let mut altered = admin.clone();
    let last = altered.pop().unwrap();
    altered.push(if last == 'x' { 'y' } else { 'x' });
    let well_formed = MISTYPED.replace("MR", "MQ");
    let lower = admin.to_lowercase();
    for (key, detail) in [
        (MISTYPED, WRONG_CHECKSUM),
        (&altered, WRONG_CHECKSUM),
        (&lower, WRONG_CHECKSUM),
        (&admin[..56], WRONG_CHECKSUM),
        (&well_formed, INVALID),
        ("x", INVALID),
        ("octe_x", INVALID),
    ] {
        unauthenticated(app.get(ME).key(key).send().await, detail);
        unauthenticated(bearer(app.get(ME), key).send().await, detail);
    }
    let bytes = app.get(ME).header("Octopus-API-Key", [0xff, 0xfe]).send().await;
    unauthenticated(bytes, INVALID);
    unauthenticated(app.get(ME).key("").send().await, INVALID);
    // A session token is not a key; as a session it is invalid.
    unauthenticated(app.get(ME).key("octs_x").send().await, INVALID);
    unauthenticated(bearer(app.get(ME), "octs_x").send().await, "Invalid or expired session");
    // The stored prefix of a key does not authenticate.
    let (prefix,) = app.rows::<(String,)>("SELECT key_prefix FROM api_keys").await.remove(0);
    unauthenticated(app.get(ME).key(&prefix).send().await, WRONG_CHECKSUM);
}

#[apply(on_both!)]
async fn an_inactive_key_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (key, id) = app.key(&admin, "read").await;
    app.act(&format!("/api/v1/api-keys/{id}/deactivate")).key(&admin).send().await.expect(200);
    unauthenticated(app.get(ME).key(&key).send().await, INVALID);
    let revive = app.patch(&format!("/api/v1/api-keys/{id}"), json!({"is_active": true}));
    revive.key(&admin).send().await.expect(200);
    app.get(ME).key(&key).send().await.expect(200);
}

#[apply(on_both!)]
async fn an_expired_key_is_reported_as_expired_before_and_after_the_cleanup(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let end = (app.state.clock.now() + TimeDelta::hours(1)).to_rfc3339();
    let body = json!({"name": "short-lived", "expires_at": end});
    let created = app.post("/api/v1/api-keys", body).key(&admin).send().await.expect(201);
    let key = created["key"].as_str().unwrap();
    app.advance(TimeDelta::minutes(58));
    app.get(ME).key(key).send().await.expect(200);
    app.advance(TimeDelta::minutes(3));
    unauthenticated(app.get(ME).key(key).send().await, EXPIRED);
    unauthenticated(bearer(app.get(ME), key).send().await, EXPIRED);

    let cleaned = app.act("/api/v1/api-keys/cleanup-expired").key(&admin).send().await.expect(200);
    assert_eq!(cleaned["deactivated_count"], 1);
    unauthenticated(app.get(ME).key(key).send().await, EXPIRED);
}

#[apply(on_both!)]
async fn a_key_is_accepted_in_either_header_field(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.get(ME).header("octopus-API-KEY", &admin).send().await.expect(200);
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let call = app.get(ME).header("Authorization", format!("{scheme} {admin}"));
        call.send().await.expect(200);
    }
}

#[apply(on_both!)]
async fn another_authorization_beside_a_key_is_ignored(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let others = ["Basic eDp5", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.x", "Negotiate", "Bearer "];
    for other in others {
        app.get(ME).key(&admin).header("Authorization", other).send().await.expect(200);
        // It does not help an invalid key, either.
        let bad = app.get(ME).key(MISTYPED).header("Authorization", other).send().await;
        unauthenticated(bad, WRONG_CHECKSUM);
    }
    bearer(app.get(ME).key(&admin), &admin).send().await.expect(200);
}

#[apply(on_both!)]
async fn two_different_credentials_are_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (read, _) = app.key(&admin, "read").await;
    for other in [&*read, "octopus_anything", "octs_anything", MISTYPED] {
        let answer = bearer(app.get(ME).key(&admin), other).send().await;
        assert_eq!(answer.status, 400, "{other}: {}", answer.text);
        assert!(answer["detail"].is_string());
        assert!(!answer.text.contains(other), "{}", answer.text);
    }
    app.get(ME).key(&admin).key(&read).send().await.expect(400);
}

#[apply(on_both!)]
async fn a_key_with_an_address_list_works_only_from_those_addresses(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for list in ["127.0.0.1", "127.0.0.0/8", "192.0.2.1, ::1/128,127.0.0.1", "::ffff:127.0.0.1"] {
        let (key, _) = key_from(&app, &admin, list).await;
        app.get(ME).key(&key).send().await.expect(200);
    }
    for list in ["192.0.2.1", "10.0.0.0/8,::1", "127.0.0.2"] {
        let (key, id) = key_from(&app, &admin, list).await;
        app.get(ME).key(&key).send().await.refused(403, NOT_FROM_HERE);
        // Also on public routes, and before the scope is checked.
        app.get("/api/v1/users/username/x").key(&key).send().await.refused(403, NOT_FROM_HERE);
        app.act("/api/v1/admin").key(&key).send().await.refused(403, NOT_FROM_HERE);
        let path = format!("/api/v1/api-keys/{id}");
        let shown = app.get(&path).key(&admin).send().await.expect(200);
        assert_eq!(shown["last_used_at"], json!(null), "a refused request does not count as a use");
        let open = app.patch(&path, json!({"allowed_ips": null})).key(&admin);
        open.send().await.expect(200);
        app.get(ME).key(&key).send().await.expect(200);
    }
}

#[apply(on_both!)]
async fn behind_a_trusted_proxy_the_forwarded_address_is_used(backend: Backend) {
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let (key, id) = key_from(&app, &admin, "198.51.100.0/24,2001:db8::/32").await;
    let through = |hops: &str| app.get(ME).key(&key).header("X-Forwarded-For", hops);
    // The last hop that is not a trusted proxy; addresses before it may be forged.
    for hops in ["198.51.100.7", "203.0.113.9, 198.51.100.7, 10.0.0.2", "[2001:db8::1]:443"] {
        through(hops).send().await.expect(200);
    }
    for hops in ["203.0.113.9", "198.51.100.7, 203.0.113.9", "198.51.100.7, nonsense", "10.0.0.2"] {
        through(hops).send().await.refused(403, NOT_FROM_HERE);
    }
    app.get(ME).key(&key).send().await.refused(403, NOT_FROM_HERE);

    through("::ffff:198.51.100.9").send().await.expect(200);
    let shown = app.get(&format!("/api/v1/api-keys/{id}")).key(&admin).send().await.expect(200);
    assert_eq!(shown["last_used_ip"], "198.51.100.9");
    // The audit log records the same address.
    let rename = app.patch(&format!("/api/v1/api-keys/{id}"), json!({"name": "renamed"}));
    rename.key(&admin).header("X-Forwarded-For", "203.0.113.77").send().await.expect(200);
    let logs = app.get("/api/v1/api-keys/audit-logs?limit=1").key(&admin).send().await.expect(200);
    assert_eq!(logs[0]["performed_by_ip"], "203.0.113.77");
}

#[apply(on_both!)]
async fn x_forwarded_for_from_an_untrusted_client_is_ignored(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (elsewhere, _) = key_from(&app, &admin, "198.51.100.0/24").await;
    let (here, id) = key_from(&app, &admin, "127.0.0.1").await;
    let through = |key: &str| app.get(ME).key(key).header("X-Forwarded-For", "198.51.100.7");
    through(&elsewhere).send().await.refused(403, NOT_FROM_HERE);
    through(&here).send().await.expect(200);
    let shown = app.get(&format!("/api/v1/api-keys/{id}")).key(&admin).send().await.expect(200);
    assert_eq!(shown["last_used_ip"], "127.0.0.1");
}

#[apply(on_both!)]
async fn an_unreadable_address_list_or_scopes_deny(backend: Backend) {
    let damages = [
        "allowed_ips = 'nonsense'",
        "allowed_ips = ''",
        "allowed_ips = '127.0.0.1,nonsense'",
        "scopes = 'root'",
        "scopes = ''",
        "scopes = 'admin;read'",
    ];
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for damage in damages {
        let (key, id) = app.key(&admin, "admin,read,write").await;
        backend.execute(format!("UPDATE api_keys SET {damage} WHERE id = {id}")).await;
        // Changes made directly in the database apply soon, not immediately.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        for answer in [
            app.get(ME).key(&key).send().await,
            app.get("/api/v1/conversations").key(&key).send().await,
            app.post("/api/v1/conversations", json!({"title": "a"})).key(&key).send().await,
        ] {
            assert!(answer.status >= 400, "{damage}: {} {}", answer.status, answer.text);
            assert!(!answer.text.contains("nonsense"), "{}", answer.text);
        }
    }
    let created = app.get("/api/v1/conversations").key(&admin).send().await.expect(200);
    assert_eq!(created, json!([]));
}

#[apply(on_both!)]
async fn a_revoked_key_is_refused_by_the_very_next_request(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for round in 0..200 {
        let (key, id) = app.key(&admin, "read").await;
        app.get(ME).key(&key).send().await.expect(200);
        let path = format!("/api/v1/api-keys/{id}");
        let revoke = match round % 4 {
            0 => app.act(&format!("{path}/deactivate")),
            1 => app.patch(&path, json!({"is_active": false})),
            2 => app.act(&format!("{path}/rotate")),
            _ => app.delete(&path),
        };
        let revoked = revoke.key(&admin).send().await;
        assert!([200, 204].contains(&revoked.status), "{}", revoked.text);
        unauthenticated(app.get(ME).key(&key).send().await, INVALID);
    }
}

#[apply(on_both!)]
async fn a_refusal_reveals_nothing_about_the_requested_resource(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (write, _) = app.key(&admin, "write").await;
    let user = format!("/api/v1/users/{}", app.user("ada").await);
    for path in [&*user, "/api/v1/users/999", "/api/v1/users/NOT%20AN%20ID"] {
        unauthenticated(
            app.get(path).send().await,
            "API key required: send it in the header field Octopus-API-Key",
        );
        unauthenticated(app.get(path).key(MISTYPED).send().await, WRONG_CHECKSUM);
        let answer = app.get(path).key(&write).send().await;
        answer.refused(403, "Read scope required to read users");
    }
    let garbage =
        |path| app.call(reqwest::Method::POST, path).body("{").header("Content-Type", "a/b");
    unauthenticated(
        garbage("/api/v1/conversations").send().await,
        "API key required: send it in the header field Octopus-API-Key",
    );
    let answer = garbage("/api/v1/api-keys").key(&write).send().await;
    answer.refused(403, "Admin scope required to create API keys");
}
