//! Signing in: responses, rate limits, and what failures do not reveal.

use crate::support::{Answer, Backend, TestApp};
use chrono::{DateTime, TimeDelta, Utc};
use octopus::core::config::PasswordCost;
use octopus::core::key_format::{SESSION_PREFIX, is_token};
use octopus::features::api_keys::service::record_failures;
use octopus::security::secret::SecretHash;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub const LOGIN: &str = "/api/v1/users/login";
const PASSWORD: &str = "correct horse battery";
const INCORRECT: &str = r#"{"detail":"Incorrect email or password"}"#;
const HASH: &str = "SELECT password_hash FROM users ORDER BY id LIMIT 1";
const SESSIONS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM sessions";

fn with(password: &str) -> Value {
    json!({"username": "ada", "password": password})
}

async fn hash(app: &TestApp) -> String {
    app.rows::<(String,)>(HASH).await.remove(0).0
}

#[apply(on_both!)]
async fn signing_in_returns_a_token_and_the_user(backend: Backend) {
    const ROW: &str =
        "SELECT token_hash, last_used_ip, user_agent, created_at, expires_at FROM sessions";
    type Row = (Vec<u8>, String, Option<String>, DateTime<Utc>, DateTime<Utc>);
    let app = TestApp::new(&backend).await;
    let id = app.user("ada").await;
    let call = app.post(LOGIN, json!({"email": "ada@example.com", "password": PASSWORD}));
    let answer = call.header("User-Agent", "x".repeat(300)).send().await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.expect(200);
    let token = body["access_token"].as_str().unwrap();
    assert!(is_token(SESSION_PREFIX, token) && token.len() == 54, "{token}");
    let user = app.get("/api/v1/users/me").session(token).send().await.expect(200);
    assert_eq!((&user["id"], &user["email"]), (&json!(id), &json!("ada@example.com")));
    let expected = json!({
        "access_token": token, "token_type": "bearer", "expires_at": body["expires_at"], "user": user,
    });
    assert_eq!(body, expected);

    let (stored, ip, user_agent, created_at, expires_at) = app.rows::<Row>(ROW).await.remove(0);
    assert_eq!(stored, SecretHash::of(token).to_vec());
    assert_eq!((ip.as_str(), user_agent), ("127.0.0.1", Some("x".repeat(255))));
    assert_eq!(expires_at - created_at, TimeDelta::days(90));
    let expiry: DateTime<Utc> = body["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(expiry, expires_at);
}

#[apply(on_both!)]
async fn a_name_is_found_in_any_case_and_a_password_is_not(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ÄDA").await;
    for (field, name) in [
        ("username", "äda"),
        ("username", "ÄDA"),
        ("email", "äda@EXAMPLE.com"),
        ("email", "ÄDA@example.com"),
    ] {
        app.post(LOGIN, json!({field: name, "password": PASSWORD})).send().await.expect(200);
        let upper_case = json!({field: name, "password": PASSWORD.to_uppercase()});
        app.post(LOGIN, upper_case).send().await.expect(401);
    }
    // An email is not accepted as a username, nor the reverse.
    for (field, name) in [("email", "äda"), ("username", "äda@example.com")] {
        app.post(LOGIN, json!({field: name, "password": PASSWORD})).send().await.expect(401);
    }
}

#[apply(on_both!)]
async fn a_body_names_its_user_exactly_once(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let both = json!({"email": "ada@example.com", "username": "ada", "password": PASSWORD});
    app.post(LOGIN, both).send().await.invalid(&["body"]);
    app.post(LOGIN, json!({"password": PASSWORD})).send().await.invalid(&["body"]);
    app.post(LOGIN, json!({"username": "ada"})).send().await.invalid(&["body.password"]);
    let surplus = json!({"username": "ada", "password": PASSWORD, "remember": true});
    app.post(LOGIN, surplus).send().await.invalid(&["body.remember"]);
    let answer = app.post(LOGIN, json!({"username": "ada", "password": [PASSWORD]})).send().await;
    assert!(!answer.text.contains(PASSWORD), "{}", answer.text);
    answer.invalid(&["body.password"]);
    app.post(LOGIN, with(&"x".repeat(40_000))).send().await.expect(413);
}

#[apply(on_both!)]
async fn every_failure_returns_the_same_bytes(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.user("ada").await;
    let ben = app.user("ben").await;
    let off = app.put(&format!("/api/v1/users/{ben}"), json!({"is_active": false}));
    off.key(&admin).send().await.expect(200);
    for body in [
        with("wrong"),
        with(""),
        with(&"x".repeat(1024)),
        json!({"username": "ben", "password": PASSWORD}),
        json!({"username": "ben", "password": "wrong"}),
        json!({"email": "ben@example.com", "password": PASSWORD}),
        json!({"username": "nobody", "password": PASSWORD}),
        json!({"username": "", "password": PASSWORD}),
        json!({"email": "nobody@example.com", "password": PASSWORD}),
    ] {
        let answer = app.post(LOGIN, body.clone()).send().await;
        assert_eq!((answer.status, answer.text.as_str()), (401, INCORRECT), "{body}");
        assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer realm="octopus""#));
        let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
        names.sort();
        let first = app.post(LOGIN, with("wrong")).send().await;
        let mut others: Vec<_> = first.headers.keys().map(ToString::to_string).collect();
        others.sort();
        assert_eq!(names, others);
    }
    assert_eq!(app.number(SESSIONS).await, 0);
}

/// The median duration of nine failed sign-ins, each of which computes a hash.
async fn median(app: &TestApp, body: impl Fn(usize) -> Value) -> Duration {
    let mut times = vec![];
    for n in 0..9 {
        let started = Instant::now();
        app.post(LOGIN, body(n)).send().await.expect(401);
        times.push(started.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[apply(on_both!)]
async fn an_unknown_user_takes_as_long_as_a_wrong_password(backend: Backend) {
    let unlimited = [("RATE_LIMIT_ENABLED", "false")];
    let app = TestApp::with_cost(&backend, &unlimited, PasswordCost::default()).await;
    app.user("ada").await;
    // The first failure computes the dummy hash.
    app.post(LOGIN, with("wrong")).send().await.expect(401);
    let unknown = |n| json!({"username": format!("nobody{n}"), "password": "wrong"});
    // The machine may be busy, so one good measurement is enough.
    let mut seen = vec![];
    for _ in 0..5 {
        let (wrong, unknown) = (median(&app, |_| with("wrong")).await, median(&app, unknown).await);
        let factor = wrong.as_secs_f64() / unknown.as_secs_f64();
        if (0.5..=2.0).contains(&factor) {
            return;
        }
        seen.push((wrong, unknown));
    }
    panic!("the response times differ: {seen:?}");
}

#[track_caller]
fn limited(answer: &Answer, policy: &str, n: u64) {
    assert_eq!(answer.status, 429, "{}", answer.text);
    assert_eq!(answer.body, json!({"detail": format!("Rate limit exceeded: {n} per 1 minute")}));
    let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60 / n + 1).contains(&retry_after), "{retry_after}");
    let expected = format!(r#""{policy}";r=0;t={retry_after}"#);
    assert_eq!(answer.header("ratelimit"), Some(&*expected));
    let expected = format!(r#""{policy}";q={n};w=60"#);
    assert_eq!(answer.header("ratelimit-policy"), Some(&*expected));
}

#[apply(on_both!)]
async fn failed_sign_ins_are_limited_for_each_account_known_or_not(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_LOGIN_PER_MINUTE", "3")]).await;
    app.user("ada").await;
    for name in ["ada", "nobody"] {
        let guess = || app.post(LOGIN, json!({"username": name, "password": "wrong"}));
        for _ in 0..3 {
            guess().send().await.expect(401);
        }
        let started = Instant::now();
        for _ in 0..5 {
            limited(&guess().send().await, "login", 3);
        }
        assert!(started.elapsed() < Duration::from_secs(3), "nothing is hashed for these");
    }
    // Also in upper case, and with the right password, until the bucket refills.
    let upper_case = json!({"username": "NOBODY", "password": "wrong"});
    limited(&app.post(LOGIN, upper_case).send().await, "login", 3);
    limited(&app.post(LOGIN, with(PASSWORD)).send().await, "login", 3);
    app.post(LOGIN, json!({"username": "another", "password": "x"})).send().await.expect(401);
}

#[apply(on_both!)]
async fn a_limit_does_not_reveal_which_email_and_username_belong_together(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_LOGIN_PER_MINUTE", "2")]).await;
    app.user("ada").await;
    let by_email = || app.post(LOGIN, json!({"email": "ada@example.com", "password": "wrong"}));
    for _ in 0..2 {
        app.post(LOGIN, with("wrong")).send().await.expect(401);
    }
    limited(&app.post(LOGIN, with("wrong")).send().await, "login", 2);
    for _ in 0..2 {
        by_email().send().await.expect(401);
    }
    limited(&by_email().send().await, "login", 2);
}

#[apply(on_both!)]
async fn failed_sign_ins_are_limited_for_each_client(backend: Backend) {
    let variables = [("RATE_LIMIT_LOGIN_CLIENT_PER_MINUTE", "4"), ("TRUSTED_PROXIES", "127.0.0.1")];
    let app = TestApp::with(&backend, &variables).await;
    app.user("ada").await;
    let from = |address: &str, n: usize| {
        let body = json!({"username": format!("nobody{n}"), "password": "wrong"});
        app.post(LOGIN, body).header("X-Forwarded-For", address)
    };
    for n in 0..4 {
        from("198.51.100.7", n).send().await.expect(401);
    }
    limited(&from("198.51.100.7", 4).send().await, "login-client", 4);
    from("198.51.100.8", 5).send().await.expect(401);
    let good = app.post(LOGIN, with(PASSWORD)).header("X-Forwarded-For", "198.51.100.8");
    good.send().await.expect(200);
}

#[apply(on_both!)]
async fn successful_sign_ins_are_not_limited_as_failures_are(backend: Backend) {
    let variables =
        [("RATE_LIMIT_LOGIN_PER_MINUTE", "2"), ("RATE_LIMIT_LOGIN_CLIENT_PER_MINUTE", "2")];
    let app = TestApp::with(&backend, &variables).await;
    app.user("ada").await;
    app.post(LOGIN, with("wrong")).send().await.expect(401);
    for _ in 0..6 {
        app.post(LOGIN, with(PASSWORD)).send().await.expect(200);
    }
    app.post(LOGIN, with("wrong")).send().await.expect(401);
    limited(&app.post(LOGIN, with(PASSWORD)).send().await, "login-client", 2);
}

#[apply(on_both!)]
async fn concurrent_guesses_are_limited_like_consecutive_ones(backend: Backend) {
    let variables =
        [("RATE_LIMIT_LOGIN_PER_MINUTE", "5"), ("RATE_LIMIT_LOGIN_CLIENT_PER_MINUTE", "500")];
    let app = TestApp::with(&backend, &variables).await;
    app.user("ada").await;
    let answers = app.send_concurrently(64, || app.post(LOGIN, with("wrong"))).await;
    let wrong = answers.iter().filter(|answer| answer.status == 401).count();
    assert!((5..=6).contains(&wrong), "{wrong}");
    assert!(answers.iter().all(|answer| [401, 429].contains(&answer.status)));
}

#[apply(on_both!)]
async fn failures_are_in_the_audit_log_by_the_minute(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.user("ada").await;
    for _ in 0..3 {
        app.post(LOGIN, with("wrong")).send().await.expect(401);
    }
    app.login("ada").await;
    record_failures(&app.state).await.unwrap();
    let path = "/api/v1/api-keys/audit-logs?action=auth_failed";
    let logs = app.get(path).key(&admin).send().await.expect(200);
    assert_eq!(logs.as_array().unwrap().len(), 1, "{logs}");
    assert_eq!(logs[0]["details"], json!({"reason": "login_failed", "count": 3}));
    assert_eq!(logs[0]["performed_by_ip"], "127.0.0.1");
}

#[apply(on_both!)]
async fn an_outdated_hash_is_renewed_only_by_a_successful_sign_in(backend: Backend) {
    let (unlimited, cost) = (("RATE_LIMIT_ENABLED", "false"), PasswordCost::default);
    let variables = [unlimited, ("PASSWORD_HASHER", "bcrypt")];
    let bcrypt = TestApp::with_cost(&backend, &variables, cost()).await;
    bcrypt.user("ada").await;
    let by_bcrypt = hash(&bcrypt).await;
    assert!(by_bcrypt.starts_with("$2b$12$"), "{by_bcrypt}");
    let app = TestApp::with_cost(&backend, &[unlimited], cost()).await;
    let before = app.login("ada").await;
    let first = hash(&app).await;
    assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
    app.login("ada").await;
    assert_eq!(hash(&app).await, first, "the hash is renewed only once");
    bcrypt.login("ada").await;
    let back = hash(&app).await;
    assert!(back.starts_with("$2b$12$"), "renewed in the other direction, too: {back}");

    app.post(LOGIN, with("wrong")).send().await.expect(401);
    backend.execute("UPDATE users SET is_active = FALSE").await;
    app.post(LOGIN, with(PASSWORD)).send().await.expect(401);
    assert_eq!(hash(&app).await, back, "a failure renews nothing");
    backend.execute("UPDATE users SET is_active = TRUE").await;
    app.get("/api/v1/users/me").session(&before).send().await.expect(200);
}

#[apply(on_both!)]
async fn concurrent_sign_ins_renew_a_hash_and_all_succeed(backend: Backend) {
    let unlimited = [("RATE_LIMIT_ENABLED", "false")];
    let app = TestApp::with_cost(&backend, &unlimited, PasswordCost::default()).await;
    app.user("ada").await;
    let weaker = hash(&app).await;
    // A hash with weaker parameters. Only its form is checked before it is verified.
    let salt = "c29tZXNhbHRzb21lc2FsdA";
    let argon = argon2_with_less_work(PASSWORD, salt);
    backend.execute(format!("UPDATE users SET password_hash = '{argon}'")).await;
    let answers = app.send_concurrently(8, || app.post(LOGIN, with(PASSWORD))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let renewed = hash(&app).await;
    assert!(renewed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && renewed != weaker);
    assert_eq!(app.number(SESSIONS).await, 8);
}

fn argon2_with_less_work(password: &str, salt: &str) -> String {
    use argon2::{Algorithm, Argon2, Params, Version};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let params = Params::new(8192, 1, 1, None).unwrap();
    let mut out = [0; 32];
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let bytes = STANDARD_NO_PAD.decode(salt).unwrap();
    argon.hash_password_into(password.as_bytes(), &bytes, &mut out).unwrap();
    format!("$argon2id$v=19$m=8192,t=1,p=1${salt}${}", STANDARD_NO_PAD.encode(out))
}

#[apply(on_both!)]
async fn a_password_too_long_for_bcrypt_keeps_its_hash(backend: Backend) {
    let unlimited = ("RATE_LIMIT_ENABLED", "false");
    let app = TestApp::with(&backend, &[unlimited]).await;
    let long = "a long sentence of more than seventy-two bytes that somebody knows by heart";
    let body = json!({"username": "ada", "email": "ada@example.com", "password": long});
    app.post("/api/v1/users", body).send().await.expect(201);
    let before = hash(&app).await;
    let bcrypt = TestApp::with(&backend, &[unlimited, ("PASSWORD_HASHER", "bcrypt")]).await;
    bcrypt.post(LOGIN, with(long)).send().await.expect(200);
    assert_eq!(hash(&app).await, before);
}

#[apply(on_both!)]
async fn a_sign_in_during_a_password_change_leaves_no_session(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let path = format!("/api/v1/users/{}", app.user("ada").await);
    for n in 0..10 {
        let (old, new) = (format!("the old password {n}"), format!("the new password {n}"));
        app.put(&path, json!({"password": old})).key(&admin).send().await.expect(200);
        let change = app.put(&path, json!({"password": new})).key(&admin).send();
        let (logins, change) =
            tokio::join!(app.send_concurrently(4, || app.post(LOGIN, with(&old))), change);
        change.expect(200);
        assert!(logins.iter().all(|answer| [200, 401].contains(&answer.status)), "{logins:?}");
        assert_eq!(app.number(SESSIONS).await, 0, "the change ended sessions of earlier sign-ins");
    }
}
