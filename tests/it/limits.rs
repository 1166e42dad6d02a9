//! Rate limits: the bucket of each kind of caller, and routes without a limit.

use crate::support::{Answer, Backend, Call, TestApp};
use serde_json::json;

const OPEN: &str = "/api/v1/users/username/nobody";
const ME: &str = "/api/v1/api-keys/me";
const WRONG: &str = "a-key-that-nobody-ever-made-0123456789";

/// Asserts that `answer` is a 429 for a limit of `n` per minute.
#[track_caller]
fn limited(answer: &Answer, n: u64) {
    assert_eq!(answer.status, 429, "{}", answer.text);
    assert_eq!(answer.body, json!({"detail": format!("Rate limit exceeded: {n} per 1 minute")}));
    let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60 / n).contains(&retry_after), "{retry_after}");
    let (policy, quota) = answer.header("ratelimit-policy").unwrap().split_once(';').unwrap();
    assert_eq!(quota, format!("q={n};w=60"));
    assert!(policy.len() > 2 && policy.starts_with('"') && policy.ends_with('"'), "{policy}");
    let limit = answer.header("ratelimit").unwrap();
    assert_eq!(limit, format!("{policy};r=0;t={retry_after}"));
    assert!(answer.header("x-request-id").is_some());
}

/// Asserts that exactly `n` of these calls return `status`, and that the next is refused.
async fn limited_after(n: u64, status: u16, call: impl Fn() -> Call) {
    for _ in 0..n {
        call().send().await.expect(status);
    }
    limited(&call().send().await, n);
}

fn from(call: Call, address: &str) -> Call {
    call.header("X-Forwarded-For", address)
}

#[apply(on_both!)]
async fn requests_without_a_credential_are_limited_per_client(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_IP_PER_MINUTE", "3")]).await;
    // On public, protected and unknown paths alike.
    app.get(OPEN).send().await.expect(404);
    app.get("/api/v1/users").send().await.expect(401);
    app.get("/api/v1/nowhere").send().await.expect(404);
    limited(&app.get(OPEN).send().await, 3);
    limited(&app.get("/api/v1/users").send().await, 3);
    limited(&app.act("/bootstrap").send().await, 3);
    // A forged client address does not avoid the limit.
    limited(&from(app.get(OPEN), "198.51.100.7").send().await, 3);
}

#[apply(on_both!)]
async fn bad_credentials_are_limited_on_every_path(backend: Backend) {
    let variables = [("RATE_LIMIT_AUTH_FAILURES_PER_MINUTE", "3")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let (inactive, id) = app.key(&admin, "read").await;
    app.act(&format!("/api/v1/api-keys/{id}/deactivate")).key(&admin).send().await.expect(200);
    app.get("/api/v1/users").key(WRONG).send().await.expect(401);
    app.get(ME).key(&inactive).send().await.expect(401);
    app.get(ME).header("Authorization", "Bearer nonsense").send().await.expect(401);
    limited(&app.get("/api/v1/admin/stats").key(WRONG).send().await, 3);
    limited(&app.get("/api/v1/nowhere").key("another wrong key").send().await, 3);
    limited(&app.get(OPEN).key(WRONG).send().await, 3);
    // Bad credentials are counted; without a credential the bucket of the client still applies.
    app.get(OPEN).send().await.expect(404);
}

#[apply(on_both!)]
async fn empty_failure_buckets_never_block_a_valid_key(backend: Backend) {
    let variables =
        [("RATE_LIMIT_AUTH_FAILURES_PER_MINUTE", "2"), ("RATE_LIMIT_IP_PER_MINUTE", "2")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    limited_after(2, 401, || app.get(ME).key(WRONG)).await;
    limited(&app.get(ME).send().await, 2);
    for _ in 0..20 {
        app.get(ME).key(&admin).send().await.expect(200);
        limited(&app.get(ME).key(WRONG).send().await, 2);
        limited(&app.get(ME).send().await, 2);
    }
}

#[apply(on_both!)]
async fn valid_keys_never_use_the_buckets_of_their_client(backend: Backend) {
    let variables =
        [("RATE_LIMIT_AUTH_FAILURES_PER_MINUTE", "2"), ("RATE_LIMIT_IP_PER_MINUTE", "4")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    for _ in 0..20 {
        app.get(ME).key(&admin).send().await.expect(200);
        app.get(OPEN).key(&admin).send().await.expect(404);
        app.get("/api/v1/nowhere").key(&admin).send().await.expect(404);
        app.post("/api/v1/users", json!({})).key(&admin).send().await.expect(422);
    }
    // Both buckets are full: 2 of the 4 requests of the client may be failures.
    limited_after(2, 401, || app.get(ME).key(WRONG)).await;
    app.get(OPEN).send().await.expect(404);
    app.get(OPEN).send().await.expect(404);
    limited(&app.get(OPEN).send().await, 4);
}

#[apply(on_both!)]
async fn each_key_has_its_own_limit(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_KEY_PER_MINUTE", "3")]).await;
    let admin = app.admin().await;
    let (read, _) = app.key(&admin, "read").await;
    // A request refused for a missing scope counts, too.
    app.get(ME).key(&read).send().await.expect(200);
    app.get("/api/v1/api-keys").key(&read).send().await.expect(403);
    app.get("/api/v1/nowhere").key(&read).send().await.expect(404);
    limited(&app.get(ME).key(&read).send().await, 3);
    limited(&app.get("/api/v1/api-keys").key(&read).send().await, 3);
    limited(&app.get(OPEN).key(&read).send().await, 3);
    // Another key of the same client has its own bucket, and so has the client.
    app.get(ME).key(&admin).send().await.expect(200);
    app.get(OPEN).send().await.expect(404);
}

#[apply(on_both!)]
async fn key_creation_is_limited_per_key(backend: Backend) {
    let variables = [("RATE_LIMIT_KEY_CREATION_PER_MINUTE", "3")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let (second, _) = app.key(&admin, "admin").await;
    let create = |key: &str, path: &str| app.post(path, json!({"name": "one more"})).key(key);
    // A trailing slash does not make it a different route; requests with invalid bodies count.
    create(&admin, "/api/v1/api-keys/").send().await.expect(201);
    app.post("/api/v1/api-keys", json!({})).key(&admin).send().await.expect(422);
    limited(&create(&admin, "/api/v1/api-keys").send().await, 3);
    limited(&create(&admin, "/api/v1/api-keys/").send().await, 3);
    app.get("/api/v1/api-keys").key(&admin).send().await.expect(200);
    limited_after(3, 201, || create(&second, "/api/v1/api-keys")).await;
    let created = app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await;
    assert_eq!(created, 6);
}

#[apply(on_both!)]
async fn a_caller_without_the_scope_uses_up_no_key_creation(backend: Backend) {
    let variables = [("RATE_LIMIT_KEY_CREATION_PER_MINUTE", "2")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let (write, id) = app.key(&admin, "write").await;
    let create = || app.post("/api/v1/api-keys", json!({"name": "one more"}));
    for _ in 0..10 {
        let answer = create().key(&write).send().await;
        answer.refused(403, "Admin scope required to create API keys");
        create()
            .send()
            .await
            .refused(401, "API key required: send it in the header field Octopus-API-Key");
    }
    // After promotion to admin, the key has its whole allowance.
    let promote = app.patch(&format!("/api/v1/api-keys/{id}"), json!({"scopes": "admin"}));
    promote.key(&admin).send().await.expect(200);
    limited_after(2, 201, || create().key(&write)).await;
}

#[apply(on_both!)]
async fn registration_is_limited_for_clients_without_a_key(backend: Backend) {
    let variables = [("RATE_LIMIT_REGISTRATION_PER_MINUTE", "3")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let (read, _) = app.key(&admin, "read").await;
    // An invalid body needs no password hash.
    let register = || app.post("/api/v1/users/", json!({}));
    limited_after(3, 422, register).await;
    limited(&app.post("/api/v1/users", json!({})).send().await, 3);
    // An invalid key does not help, either.
    limited(&register().key(WRONG).send().await, 3);
    for _ in 0..10 {
        register().key(&admin).send().await.expect(422);
        register().key(&read).send().await.expect(422);
    }
    app.get(OPEN).send().await.expect(404);
}

#[apply(on_both!)]
async fn health_and_documentation_are_never_limited(backend: Backend) {
    let variables =
        [("RATE_LIMIT_IP_PER_MINUTE", "1"), ("RATE_LIMIT_AUTH_FAILURES_PER_MINUTE", "1")];
    let app = TestApp::with(&backend, &variables).await;
    app.admin().await;
    limited_after(1, 404, || app.get(OPEN)).await;
    limited(&app.get(ME).key(WRONG).send().await, 1);
    for _ in 0..20 {
        for path in ["/", "/health", "/ready", "/docs/", "/openapi.json"] {
            app.get(path).send().await.expect(200);
            app.get(path).key(WRONG).send().await.expect(200);
        }
    }
    limited(&app.get(OPEN).send().await, 1);
}

#[apply(on_both!)]
async fn clients_behind_a_trusted_proxy_are_counted_separately(backend: Backend) {
    let variables = [
        ("RATE_LIMIT_IP_PER_MINUTE", "4"),
        ("RATE_LIMIT_AUTH_FAILURES_PER_MINUTE", "2"),
        ("RATE_LIMIT_REGISTRATION_PER_MINUTE", "1"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let app = TestApp::with(&backend, &variables).await;
    for address in ["198.51.100.7", "198.51.100.8", "::ffff:198.51.100.9"] {
        limited_after(2, 401, || from(app.get(ME).key(WRONG), address)).await;
        limited_after(1, 422, || from(app.post("/api/v1/users", json!({})), address)).await;
        limited(&from(app.get(OPEN), address).send().await, 4);
    }
    // Addresses that the client sends are in front and are ignored.
    limited(&from(app.get(OPEN), "203.0.113.9, 198.51.100.7").send().await, 4);
    // The same address as IPv4.
    limited(&from(app.get(OPEN), "198.51.100.9").send().await, 4);
    app.get(OPEN).send().await.expect(404);
}

#[apply(on_both!)]
async fn an_ipv6_subscriber_has_one_bucket(backend: Backend) {
    let variables = [("RATE_LIMIT_IP_PER_MINUTE", "3"), ("TRUSTED_PROXIES", "127.0.0.1")];
    let app = TestApp::with(&backend, &variables).await;
    for host in ["1", "2", "ffff:0:1"] {
        let address = format!("2001:db8:1:2::{host}");
        from(app.get(OPEN), &address).send().await.expect(404);
    }
    limited(&from(app.get(OPEN), "2001:db8:1:2:3:4:5:6").send().await, 3);
    from(app.get(OPEN), "2001:db8:1:3::1").send().await.expect(404);
}

#[apply(on_both!)]
async fn an_ipv6_network_cannot_multiply_its_allowance(backend: Backend) {
    let variables = [
        ("RATE_LIMIT_IP_PER_MINUTE", "2"),
        ("RATE_LIMIT_REGISTRATION_PER_MINUTE", "1"),
        ("RATE_LIMIT_AUTH_FAILURES_PER_MINUTE", "1"),
        ("RATE_LIMIT_LOGIN_CLIENT_PER_MINUTE", "1"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let app = TestApp::with(&backend, &variables).await;
    // Each call from another /64 of one /48.
    let mut passed = 0;
    for network in 0..40 {
        let address = format!("2001:db8:1:{network:x}00::1");
        for _ in 0..2 {
            let status = from(app.get(OPEN), &address).send().await.status;
            passed += usize::from(status == 404);
        }
    }
    assert_eq!(passed, 2 * 16);
    // A /56 has four times the allowance, for every limit.
    let login = || app.post("/api/v1/users/login", json!({"username": "x", "password": "y"}));
    let bad = || app.get("/api/v1/users").key("not-a-key");
    let register = || app.post("/api/v1/users", json!({}));
    for (third, call, allowed) in
        [(2, &login as &dyn Fn() -> Call, 401), (3, &bad, 401), (4, &register, 422)]
    {
        let mut passed = 0;
        for network in 0..20 {
            let address = format!("2001:db8:{third}:{network:x}::1");
            let status = from(call(), &address).send().await.status;
            assert!([allowed, 429].contains(&status), "{status}");
            passed += usize::from(status == allowed);
        }
        assert_eq!(passed, 4, "{third}");
    }
    // Another network has its own bucket.
    from(app.get(OPEN), "2001:db8:5::1").send().await.expect(404);
}

#[apply(on_both!)]
async fn every_limit_can_be_switched_off(backend: Backend) {
    let variables = [
        ("RATE_LIMIT_ENABLED", "false"),
        ("RATE_LIMIT_IP_PER_MINUTE", "1"),
        ("RATE_LIMIT_AUTH_FAILURES_PER_MINUTE", "1"),
        ("RATE_LIMIT_KEY_CREATION_PER_MINUTE", "1"),
        ("RATE_LIMIT_REGISTRATION_PER_MINUTE", "1"),
        ("RATE_LIMIT_KEY_PER_MINUTE", "1"),
        ("RATE_LIMIT_LOGIN_PER_MINUTE", "1"),
        ("RATE_LIMIT_LOGIN_CLIENT_PER_MINUTE", "1"),
        ("RATE_LIMIT_USER_PER_MINUTE", "1"),
    ];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    app.user("ada").await;
    let session = app.login("ada").await;
    for _ in 0..5 {
        let guess = json!({"username": "ada", "password": "wrong"});
        app.post("/api/v1/users/login", guess).send().await.expect(401);
        let me = app.get("/api/v1/users/me").session(&session).send().await;
        assert_eq!(me.header("ratelimit"), None);
        me.expect(200);
        app.get(OPEN).send().await.expect(404);
        app.get(ME).key(WRONG).send().await.expect(401);
        app.post("/api/v1/users", json!({})).send().await.expect(422);
        app.key(&admin, "read").await;
    }
}
