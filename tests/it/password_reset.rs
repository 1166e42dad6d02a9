//! Password resets: single-use tokens issued by an admin.

use crate::support::{Answer, Backend, TestApp};
use chrono::{DateTime, TimeDelta, Utc};
use octopus::core::key_format::{RESET_PREFIX, is_token};
use octopus::features::api_keys::service::record_failures;
use octopus::features::users;
use octopus::security::secret::{SecretHash, TokenKind};
use serde_json::{Value, json};

const RESET: &str = "/api/v1/users/password-reset";
const INVALID_TOKEN: &str = "Invalid or expired token";
const OLD: &str = "correct horse battery";
const NEW: &str = "another good password";
const TOKENS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM password_resets";

/// Issues a token for the user with the admin key.
async fn token(app: &TestApp, admin: &str, id: i64) -> String {
    let path = format!("/api/v1/users/{id}/password-reset");
    let answer = app.act(&path).key(admin).send().await.expect(201);
    answer["token"].as_str().unwrap().to_owned()
}

async fn use_token(app: &TestApp, token: &str, password: &str) -> Answer {
    app.post(RESET, json!({"token": token, "new_password": password})).send().await
}

async fn log_in(app: &TestApp, password: &str) -> u16 {
    let body = json!({"username": "ada", "password": password});
    app.post("/api/v1/users/login", body).send().await.status
}

#[apply(on_both!)]
async fn an_admin_gets_a_token_that_sets_a_password(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let path = format!("/api/v1/users/{}/password-reset", app.user("ada").await);
    let unknown = app.act("/api/v1/users/99/password-reset").key(&admin).send().await;
    unknown.refused(404, "User not found");
    app.post(&path, json!({"hours": 9})).key(&admin).send().await.invalid(&["body.hours"]);
    let answer = app.act(&path).key(&admin).send().await.expect(201);
    let token = answer["token"].as_str().unwrap();
    assert!(is_token(RESET_PREFIX, token), "{token}");
    let ends: DateTime<Utc> = answer["expires_at"].as_str().unwrap().parse().unwrap();
    let left = ends - app.state.clock.now();
    assert!(left <= TimeDelta::hours(1) && left > TimeDelta::minutes(59), "{left}");
    assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
    let stored: Vec<(Vec<u8>,)> = app.rows("SELECT token_hash FROM password_resets").await;
    assert_eq!(stored, [(SecretHash::of(token).to_vec(),)]);

    assert_eq!(log_in(&app, OLD).await, 200, "the old password works until a new one is set");
    let answer = use_token(&app, token, NEW).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    assert_eq!((log_in(&app, OLD).await, log_in(&app, NEW).await), (401, 200));
}

#[apply(on_both!)]
async fn a_new_password_ends_every_session(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    app.user("ben").await;
    let (first, second, bens) =
        (app.login("ada").await, app.login("ada").await, app.login("ben").await);
    let token = token(&app, &admin, ada).await;
    let body = json!({"token": token, "new_password": NEW});
    app.post(RESET, body).session(&first).send().await.expect(204);
    for (session, status) in [(first, 401), (second, 401), (bens, 200)] {
        app.get("/api/v1/users/me").session(&session).send().await.expect(status);
    }
}

#[apply(on_both!)]
async fn a_token_works_once_and_for_an_hour(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    let first = token(&app, &admin, ada).await;
    app.advance(TimeDelta::minutes(59));
    use_token(&app, &first, NEW).await.expect(204);
    use_token(&app, &first, OLD).await.refused(400, INVALID_TOKEN);
    let second = token(&app, &admin, ada).await;
    app.advance(TimeDelta::minutes(61));
    use_token(&app, &second, OLD).await.refused(400, INVALID_TOKEN);
    for bad in ["", "octr_", "nonsense", &second[..53], &second.replacen("octr_", "octs_", 1)] {
        use_token(&app, bad, OLD).await.refused(400, INVALID_TOKEN);
    }
    assert_eq!(log_in(&app, NEW).await, 200);
}

#[apply(on_both!)]
async fn only_the_newest_token_works(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    let ben = app.user("ben").await;
    let bens = token(&app, &admin, ben).await;
    let older = token(&app, &admin, ada).await;
    let newest = token(&app, &admin, ada).await;
    use_token(&app, &older, NEW).await.refused(400, INVALID_TOKEN);
    use_token(&app, &newest, NEW).await.expect(204);
    use_token(&app, &bens, NEW).await.expect(204);
}

#[apply(on_both!)]
async fn a_password_change_or_deactivation_revokes_a_token(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    let path = format!("/api/v1/users/{ada}");
    let issued = token(&app, &admin, ada).await;
    let session = app.login("ada").await;
    let own = json!({"password": NEW, "current_password": OLD});
    app.put("/api/v1/users/me", own).session(&session).send().await.expect(200);
    use_token(&app, &issued, OLD).await.refused(400, INVALID_TOKEN);
    for change in [json!({"password": OLD}), json!({"is_active": false})] {
        let issued = token(&app, &admin, ada).await;
        app.put(&path, change).key(&admin).send().await.expect(200);
        app.put(&path, json!({"is_active": true})).key(&admin).send().await.expect(200);
        use_token(&app, &issued, NEW).await.refused(400, INVALID_TOKEN);
    }
    let issued = token(&app, &admin, ada).await;
    app.delete(&path).key(&admin).send().await.expect(204);
    use_token(&app, &issued, NEW).await.refused(400, INVALID_TOKEN);
}

#[apply(on_both!)]
async fn a_token_of_an_inactive_user_does_not_work(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    let off = app.put(&format!("/api/v1/users/{ada}"), json!({"is_active": false}));
    off.key(&admin).send().await.expect(200);
    let issued = token(&app, &admin, ada).await;
    use_token(&app, &issued, NEW).await.refused(400, INVALID_TOKEN);
}

#[apply(on_both!)]
async fn a_new_password_follows_the_rules_and_is_never_echoed(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    let issued = token(&app, &admin, ada).await;
    for weak in ["short", "password", "11111111", &"x".repeat(129)] {
        let answer = use_token(&app, &issued, weak).await;
        let is_echoed =
            answer.text.contains(&issued) || answer.text.contains(&format!("\"{weak}\""));
        assert!(!is_echoed, "{}", answer.text);
        answer.invalid(&["body.new_password"]);
    }
    app.post(RESET, json!({})).send().await.invalid(&["body.new_password", "body.token"]);
    // A token in the wrong field is not echoed, either.
    let misplaced = json!({"username": format!("{issued}@"), "email": issued, "password": NEW});
    let answer = app.post("/api/v1/users", misplaced).send().await;
    assert!(answer.status == 422 && !answer.text.contains(&issued), "{}", answer.text);
    use_token(&app, &issued, NEW).await.expect(204);
}

#[apply(on_both!)]
async fn bad_tokens_are_limited_for_each_client(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_LOGIN_CLIENT_PER_MINUTE", "3")]).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    for _ in 0..5 {
        let good = token(&app, &admin, ada).await;
        use_token(&app, &good, NEW).await.expect(204);
    }
    let good = token(&app, &admin, ada).await;
    let wrong = TokenKind::PasswordReset.generate(&mut rand::rng());
    for _ in 0..3 {
        use_token(&app, wrong.expose(), NEW).await.refused(400, INVALID_TOKEN);
    }
    let answer = use_token(&app, &good, NEW).await;
    assert_eq!(answer.header("ratelimit-policy"), Some(r#""login-client";q=3;w=60"#));
    answer.expect(429);
}

#[apply(on_both!)]
async fn issuing_and_using_a_token_are_in_the_audit_log_without_the_token(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    let issued = token(&app, &admin, ada).await;
    use_token(&app, "nonsense", NEW).await.refused(400, INVALID_TOKEN);
    use_token(&app, &issued, NEW).await.expect(204);
    record_failures(&app.state).await.unwrap();
    let answer = app.get("/api/v1/api-keys/audit-logs?limit=4").key(&admin).send().await;
    assert!(!answer.text.contains("octr_") && !answer.text.contains(NEW), "{}", answer.text);
    let mut logs = answer.expect(200).as_array().unwrap().clone();
    // The audit entry of Ada's registration, which a job writes.
    logs.retain(|log| log["action"] != "register");
    let row = |log: &Value| {
        (log["action"].clone(), log["performed_by"].clone(), log["details"]["user_id"].clone())
    };
    let rows: Vec<_> = logs.iter().map(row).collect();
    let expected = [
        (json!("auth_failed"), json!("anonymous"), json!(null)),
        (json!("reset_password"), json!("anonymous"), json!(ada)),
        (json!("issue_password_reset"), json!("key"), json!(ada)),
    ];
    assert_eq!(rows, expected);
    assert_eq!(logs[0]["details"], json!({"reason": "reset_token_invalid", "count": 1}));
    assert_eq!(logs[1]["details"]["username"], "ada");
    assert_eq!(logs[1]["performed_by_ip"], "127.0.0.1");
    for action in ["reset_password", "issue_password_reset"] {
        let path = format!("/api/v1/api-keys/audit-logs?action={action}");
        let found = app.get(&path).key(&admin).send().await.expect(200);
        assert_eq!(found.as_array().unwrap().len(), 1);
    }
}

#[apply(on_both!)]
async fn of_64_concurrent_uses_of_a_token_one_succeeds(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    let issued = token(&app, &admin, ada).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let password = format!("a new password {n}");
        let call = app.post(RESET, json!({"token": issued, "new_password": password}));
        tasks.spawn(async move { (password, call.send().await) });
    }
    let (mut winners, losers): (Vec<_>, Vec<_>) =
        tasks.join_all().await.into_iter().partition(|(_, answer)| answer.status == 204);
    assert_eq!((winners.len(), losers.len()), (1, 63));
    for (_, answer) in losers {
        answer.refused(400, INVALID_TOKEN);
    }
    assert_eq!(log_in(&app, &winners.remove(0).0).await, 200);
    let sql =
        "SELECT CAST(COUNT(*) AS BIGINT) FROM api_key_audit_logs WHERE action = 'reset_password'";
    assert_eq!((app.number(sql).await, app.number(TOKENS).await), (1, 0));
}

#[apply(on_both!)]
async fn unused_tokens_are_deleted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let ada = app.user("ada").await;
    token(&app, &admin, ada).await;
    users::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(TOKENS).await, 1);
    app.advance(TimeDelta::minutes(61));
    users::forget_old(&app.state).await.unwrap();
    assert_eq!(app.number(TOKENS).await, 0);
}
