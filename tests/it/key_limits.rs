//! Rate limits of single keys, and the rate-limit fields of responses.

use crate::support::{Answer, Backend, TestApp};
use serde_json::{Value, json};
use std::time::Duration;

const KEYS: &str = "/api/v1/api-keys";
const USERS: &str = "/api/v1/users";
const ME: &str = "/api/v1/api-keys/me";

/// Creates a key from `body`; returns its secret and its id.
async fn make(app: &TestApp, admin: &str, body: Value) -> (String, i64) {
    let created = app.post(KEYS, body).key(admin).send().await.expect(201);
    (created["key"].as_str().unwrap().to_owned(), created["id"].as_i64().unwrap())
}

async fn make_limited(app: &TestApp, admin: &str, limit: i64) -> (String, i64) {
    make(app, admin, json!({"name": "n", "rate_limit_per_minute": limit})).await
}

async fn set(app: &TestApp, admin: &str, id: i64, limit: Value) -> Answer {
    let body = json!({"rate_limit_per_minute": limit});
    app.patch(&format!("{KEYS}/{id}"), body).key(admin).send().await
}

/// The rate-limit fields of a response: the limit, the remaining requests, and the seconds until
/// the bucket is full.
#[track_caller]
fn limit_fields(answer: &Answer) -> (u64, u64, u64) {
    let policy = answer.header("ratelimit-policy").expect("a policy");
    let quota = policy.strip_prefix(r#""key";q="#).and_then(|q| q.strip_suffix(";w=60"));
    let limit = answer.header("ratelimit").expect("a limit");
    let (left, reset) = limit.strip_prefix(r#""key";r="#).unwrap().split_once(";t=").unwrap();
    let number = |text: &str| text.parse().expect("a whole number");
    (number(quota.expect("this policy")), number(left), number(reset))
}

async fn limit_of(app: &TestApp, key: &str) -> (u64, u64) {
    let answer = app.get(USERS).key(key).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let (limit, left, _) = limit_fields(&answer);
    (limit, left)
}

#[apply(on_both!)]
async fn a_key_can_have_its_own_limit(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_KEY_PER_MINUTE", "6")]).await;
    let admin = app.admin().await;
    let (none, _) = make(&app, &admin, json!({"name": "n"})).await;
    let (null, _) = make(&app, &admin, json!({"name": "n", "rate_limit_per_minute": null})).await;
    let (two, _) = make_limited(&app, &admin, 2).await;
    let (more, _) = make_limited(&app, &admin, 1000).await;
    for (key, limit) in [(&none, 6), (&null, 6), (&two, 2)] {
        for left in (0..limit).rev() {
            assert_eq!(limit_of(&app, key).await, (limit, left));
        }
        let refused = app.get(USERS).key(key).send().await;
        let (of, left, reset) = limit_fields(&refused);
        assert_eq!((refused.status, of, left), (429, limit, 0));
        assert!((1..=60 / limit).contains(&reset), "{reset}");
        assert_eq!(refused.header("retry-after"), Some(&*reset.to_string()));
        let detail = format!("Rate limit exceeded: {limit} per 1 minute");
        refused.refused(429, &detail);
    }
    for least in (990..1000).rev() {
        // One request is refilled every 60 milliseconds.
        let (limit, left) = limit_of(&app, &more).await;
        assert!(limit == 1000 && (least..1000).contains(&left), "{left} of {limit}");
    }
}

#[apply(on_both!)]
async fn keys_do_not_share_a_limit(backend: Backend) {
    let app = TestApp::with(&backend, &[]).await;
    let admin = app.admin().await;
    let (one, _) = make_limited(&app, &admin, 1).await;
    let (other, _) = make_limited(&app, &admin, 1).await;
    app.get(USERS).key(&one).send().await.expect(200);
    app.get(USERS).key(&one).send().await.expect(429);
    app.get(USERS).key(&other).send().await.expect(200);
    app.get(USERS).key(&other).send().await.expect(429);
}

#[apply(on_both!)]
async fn every_response_to_a_key_shows_the_remaining_requests(backend: Backend) {
    let app = TestApp::with(&backend, &[]).await;
    let admin = app.admin().await;
    let body = json!({"name": "n", "scopes": "write", "rate_limit_per_minute": 12});
    let (key, _) = make(&app, &admin, body).await;
    let calls = || {
        [
            (app.get(ME), 200),
            (app.get(KEYS), 403),
            (app.get("/api/v1/users/username/nobody"), 404),
            (app.get("/api/v1/nowhere"), 404),
            (app.call(reqwest::Method::PUT, USERS), 405),
            (app.post("/api/v1/conversations", json!({"nonsense": 1})), 422),
            (app.act("/api/v1/conversations").header("Content-Type", "text/plain").body("x"), 415),
            (app.get("/api/v1/conversations"), 403),
        ]
    };
    let mut left = 12;
    for (call, status) in calls() {
        let answer = call.key(&key).send().await;
        left -= 1;
        let reset = (12 - left) * 5;
        assert_eq!(
            (answer.status, limit_fields(&answer)),
            (status, (12, left, reset)),
            "{}",
            answer.text
        );
    }
    for _ in 0..4 {
        app.get(ME).key(&key).send().await.expect(200);
    }
    for (call, _) in calls() {
        let answer = call.key(&key).send().await;
        let (limit, left, _) = limit_fields(&answer);
        assert_eq!((answer.status, limit, left), (429, 12, 0));
    }
}

#[apply(on_both!)]
async fn the_bucket_refills_evenly(backend: Backend) {
    let app = TestApp::with(&backend, &[]).await;
    let admin = app.admin().await;
    // One request is refilled every half second.
    let (key, _) = make_limited(&app, &admin, 120).await;
    for answer in app.send_concurrently(120, || app.get(USERS).key(&key)).await {
        answer.expect(200);
    }
    let mut let_through = 0;
    for _ in 0..30 {
        let_through += u32::from(app.get(USERS).key(&key).send().await.status == 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Three seconds plus the duration of the requests.
    assert!((5..=14).contains(&let_through), "{let_through}");
}

#[apply(on_both!)]
async fn a_changed_limit_applies_immediately(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_KEY_PER_MINUTE", "50")]).await;
    let admin = app.admin().await;
    let (key, id) = make_limited(&app, &admin, 1).await;
    assert_eq!(limit_of(&app, &key).await, (1, 0));
    app.get(USERS).key(&key).send().await.expect(429);
    set(&app, &admin, id, json!(3)).await.expect(200);
    assert_eq!(limit_of(&app, &key).await, (3, 2));
    set(&app, &admin, id, json!(1)).await.expect(200);
    assert_eq!(limit_of(&app, &key).await, (1, 0));
    app.get(USERS).key(&key).send().await.expect(429);
    set(&app, &admin, id, json!(null)).await.expect(200);
    assert_eq!(limit_of(&app, &key).await, (50, 49));
    // Changing another field does not refill the bucket.
    let body = json!({"name": "another"});
    app.patch(&format!("{KEYS}/{id}"), body).key(&admin).send().await.expect(200);
    assert_eq!(limit_of(&app, &key).await, (50, 48));
    set(&app, &admin, id, json!(null)).await.expect(200);
    assert_eq!(limit_of(&app, &key).await, (50, 47));
}

#[apply(on_both!)]
async fn a_limit_is_a_whole_number_up_to_a_billion(backend: Backend) {
    let app = TestApp::with(&backend, &[]).await;
    let admin = app.admin().await;
    let (key, id) = make_limited(&app, &admin, 9).await;
    let place = ["body.rate_limit_per_minute"];
    for wrong in [
        json!(0),
        json!(-1),
        json!(1_000_000_001),
        json!(4_294_967_297_i64),
        json!(9_223_372_036_854_775_807_i64),
        json!(1.5),
        json!("5"),
        json!(true),
        json!([5]),
    ] {
        let body = json!({"name": "n", "rate_limit_per_minute": wrong});
        app.post(KEYS, body).key(&admin).send().await.invalid(&place);
        set(&app, &admin, id, wrong).await.invalid(&place);
    }
    assert_eq!(limit_of(&app, &key).await, (9, 8));
    let billion = 1_000_000_000;
    let (most, _) = make_limited(&app, &admin, billion).await;
    assert_eq!(limit_of(&app, &most).await, (1_000_000_000, 999_999_999));
    set(&app, &admin, id, json!(billion)).await.expect(200);
    assert_eq!(limit_of(&app, &key).await, (1_000_000_000, 999_999_999));
}

#[apply(on_both!)]
async fn responses_without_a_valid_key_show_no_key_limit(backend: Backend) {
    let app = TestApp::with(&backend, &[]).await;
    let admin = app.admin().await;
    let (off, id) = make_limited(&app, &admin, 5).await;
    let body = json!({"name": "n", "allowed_ips": "10.0.0.1", "rate_limit_per_minute": 5});
    let (elsewhere, _) = make(&app, &admin, body).await;
    app.act(&format!("{KEYS}/{id}/deactivate")).key(&admin).send().await.expect(200);
    for (call, status) in [
        (app.get(USERS), 401),
        (app.get(USERS).key(&off), 401),
        (app.get(USERS).key(&elsewhere), 403),
        (app.get("/health").key(&admin), 200),
    ] {
        let answer = call.send().await;
        assert_eq!((answer.status, answer.header("ratelimit")), (status, None));
        assert_eq!(answer.header("ratelimit-policy"), None);
    }
    // Without limits, responses have no rate-limit fields.
    let free = TestApp::new(&backend).await;
    let answer = free.get(USERS).key(&admin).send().await;
    assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
}

#[apply(on_both!)]
async fn another_exhausted_limit_is_reported_instead(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_KEY_CREATION_PER_MINUTE", "1")]).await;
    let admin = app.admin().await;
    make(&app, &admin, json!({"name": "n"})).await;
    let answer = app.post(KEYS, json!({"name": "n"})).key(&admin).send().await;
    assert_eq!(answer.header("ratelimit-policy"), Some(r#""key-creation";q=1;w=60"#));
    assert!(answer.header("ratelimit").unwrap().starts_with(r#""key-creation";r=0;t="#));
    assert_eq!(answer.headers.get_all("ratelimit").iter().count(), 1);
    answer.expect(429);
}

#[apply(on_both!)]
async fn a_limit_is_shown_audited_and_cleared(backend: Backend) {
    let app = TestApp::with(&backend, &[]).await;
    let admin = app.admin().await;
    let (_, id) = make_limited(&app, &admin, 7).await;
    let show = async |path: &str| app.get(path).key(&admin).send().await.expect(200);
    assert_eq!(show(&format!("{KEYS}/{id}")).await["rate_limit_per_minute"], 7);
    assert_eq!(show(KEYS).await[0]["rate_limit_per_minute"], json!(null));
    assert_eq!(
        set(&app, &admin, id, json!(null)).await.expect(200)["rate_limit_per_minute"],
        json!(null)
    );
    let logs = show(&format!("{KEYS}/audit-logs?limit=2")).await;
    let expected = json!({"rate_limit_per_minute": {"from": 7, "to": null}});
    assert_eq!(logs[0]["details"], expected);
    assert_eq!(logs[1]["details"]["rate_limit_per_minute"], 7);
}
