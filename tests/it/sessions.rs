//! Sessions: lifetime, what ends them, and their management by the user.

use crate::support::{Answer, Backend, TestApp};
use chrono::{DateTime, TimeDelta, Utc};
use octopus::features::users;
use octopus::security::secret::SecretHash;
use serde_json::{Value, json};

const ME: &str = "/api/v1/users/me";
const OWN: &str = "/api/v1/users/me/sessions";
const LOGOUT: &str = "/api/v1/users/logout";
const ENDED: &str = "Invalid or expired session";
const IDS: &str = "SELECT id FROM sessions ORDER BY id";

async fn me(app: &TestApp, token: &str) -> Answer {
    app.get(ME).session(token).send().await
}

async fn is_valid(app: &TestApp, token: &str) -> bool {
    let answer = me(app, token).await;
    if answer.status == 401 {
        answer.refused(401, ENDED);
        return false;
    }
    answer.expect(200);
    true
}

async fn flush_uses(app: &TestApp) {
    app.state.session_uses.flush(&app.state.db).await.unwrap();
}

#[apply(on_both!)]
async fn a_session_ends_after_a_time_without_use(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let (used, unused) = (app.login("ada").await, app.login("ada").await);
    app.advance(TimeDelta::days(13));
    assert!(is_valid(&app, &used).await);
    flush_uses(&app).await;
    app.advance(TimeDelta::days(2));
    assert!(is_valid(&app, &used).await);
    assert!(!is_valid(&app, &unused).await, "14 days are over");
    flush_uses(&app).await;
    app.advance(TimeDelta::days(14));
    assert!(!is_valid(&app, &used).await);
}

#[apply(on_both!)]
async fn a_session_ends_after_its_maximum_age_even_when_used(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let token = app.login("ada").await;
    for _ in 0..8 {
        app.advance(TimeDelta::days(11));
        assert!(is_valid(&app, &token).await);
        flush_uses(&app).await;
    }
    app.advance(TimeDelta::days(2));
    assert!(!is_valid(&app, &token).await, "90 days are over");
}

#[apply(on_both!)]
async fn the_lifetime_of_sessions_can_be_configured(backend: Backend) {
    let variables = [("SESSION_IDLE_HOURS", "2"), ("SESSION_MAX_HOURS", "3")];
    let app = TestApp::with(&backend, &variables).await;
    app.user("ada").await;
    let body = json!({"username": "ada", "password": "correct horse battery"});
    let login = app.post("/api/v1/users/login", body).send().await.expect(200);
    let ends: DateTime<Utc> = login["expires_at"].as_str().unwrap().parse().unwrap();
    let left = ends - app.state.clock.now();
    assert!(left <= TimeDelta::hours(3) && left > TimeDelta::minutes(175), "{left}");
    let token = login["access_token"].as_str().unwrap();
    for (minutes, expected) in [(90, true), (80, true), (20, false)] {
        app.advance(TimeDelta::minutes(minutes));
        assert_eq!(is_valid(&app, token).await, expected);
        flush_uses(&app).await;
    }
    let idle = app.login("ada").await;
    app.advance(TimeDelta::minutes(121));
    assert!(!is_valid(&app, &idle).await);
}

#[apply(on_both!)]
async fn signing_out_ends_only_this_session(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let (first, second) = (app.login("ada").await, app.login("ada").await);
    app.act(LOGOUT).session(&first).send().await.expect(204);
    assert!(!is_valid(&app, &first).await && is_valid(&app, &second).await);
    app.act(LOGOUT).session(&first).send().await.refused(401, ENDED);
    app.post(LOGOUT, json!({"everywhere": true})).session(&second).send().await.expect(422);
    assert!(is_valid(&app, &second).await);
}

#[apply(on_both!)]
async fn own_sessions_are_listed_newest_first(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    app.user("ben").await;
    let body = json!({"username": "ada", "password": "correct horse battery"});
    let login = app.post("/api/v1/users/login", body).header("User-Agent", "Phone/1.0");
    let login = login.send().await.expect(200);
    app.login("ben").await;
    app.advance(TimeDelta::minutes(5));
    let token = app.login("ada").await;
    app.advance(TimeDelta::minutes(5));
    let list = app.get(OWN).session(&token).send().await.expect(200);
    let [newest, oldest] = list.as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!((&newest["id"], &newest["current"]), (&json!(3), &json!(true)));
    // Includes the use by this request, which is not yet written.
    assert!(newest["last_used_at"].as_str() > newest["created_at"].as_str(), "{newest}");
    let expected = json!({
        "id": 1, "created_at": oldest["created_at"], "last_used_at": oldest["created_at"],
        "last_used_ip": "127.0.0.1", "user_agent": "Phone/1.0", "expires_at": login["expires_at"],
        "current": false,
    });
    assert_eq!(*oldest, expected);
    let first = app.get(&format!("{OWN}?limit=1")).session(&token).send().await;
    let link = first.header("link").unwrap();
    let next = link.trim_start_matches('<').split_once(">; rel=\"next\"").unwrap().0;
    let page = app.get(next).session(&token).send().await.expect(200);
    assert_eq!(page, json!([expected]));
    // A cursor is valid only for the user's own list.
    let ben_session = app.login("ben").await;
    app.get(next).session(&ben_session).send().await.refused(400, "Invalid cursor");
    app.advance(TimeDelta::days(14) - TimeDelta::minutes(6));
    let list = app.get(OWN).session(&token).send().await.expect(200);
    assert_eq!(list.as_array().unwrap().len(), 1, "the other one has ended: {list}");
}

#[apply(on_both!)]
async fn a_user_can_end_one_of_their_own_sessions_only(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    app.user("ben").await;
    let (phone, laptop, ben_session) =
        (app.login("ada").await, app.login("ada").await, app.login("ben").await);
    let end = |id: i64| app.delete(&format!("{OWN}/{id}")).session(&laptop);
    for id in [3, 4, i64::MAX] {
        end(id).send().await.refused(404, "Session not found");
    }
    end(0).send().await.invalid(&["path.session_id"]);
    end(1).send().await.expect(204);
    end(1).send().await.refused(404, "Session not found");
    assert!(!is_valid(&app, &phone).await && is_valid(&app, &ben_session).await);
    end(2).send().await.expect(204);
    assert!(!is_valid(&app, &laptop).await, "the current session can be ended, too");
}

#[apply(on_both!)]
async fn all_sessions_can_be_ended_or_all_others(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    app.user("ben").await;
    let ben_session = app.login("ben").await;
    let own = [app.login("ada").await, app.login("ada").await, app.login("ada").await];
    app.delete(&format!("{OWN}?keep_current=maybe")).session(&own[1]).send().await.expect(422);
    app.delete(&format!("{OWN}?keep_current=true")).session(&own[1]).send().await.expect(204);
    assert_eq!(app.rows::<(i64,)>(IDS).await, [(1,), (3,)]);
    let another = app.login("ada").await;
    app.delete(OWN).session(&own[1]).send().await.expect(204);
    for token in own.iter().chain([&another]) {
        assert!(!is_valid(&app, token).await);
    }
    assert!(is_valid(&app, &ben_session).await);
}

#[apply(on_both!)]
async fn a_user_has_at_most_a_hundred_sessions_and_a_new_one_ends_the_oldest(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let ada = app.user("ada").await;
    app.user("ben").await;
    let (first, second) = (app.session_of(ada).await, app.session_of(ada).await);
    for _ in 2..100 {
        app.session_of(ada).await;
    }
    let ben = app.login("ben").await;
    assert!(is_valid(&app, &first).await);
    let newest = app.login("ada").await;
    assert!(!is_valid(&app, &first).await);
    for token in [&second, &newest, &ben] {
        assert!(is_valid(&app, token).await);
    }
}

#[apply(on_both!)]
async fn an_ended_session_is_refused_by_every_process_immediately(backend: Backend) {
    let here = TestApp::new(&backend).await;
    let there = TestApp::new(&backend).await;
    let admin = here.admin().await;
    let path = format!("/api/v1/users/{}", here.user("ada").await);
    let signed_in = async || {
        let token = here.login("ada").await;
        assert!(is_valid(&there, &token).await);
        token
    };
    let token = signed_in().await;
    here.act(LOGOUT).session(&token).send().await.expect(204);
    assert!(!is_valid(&there, &token).await);

    let token = signed_in().await;
    let other = json!({"password": "correct horse battery"});
    here.put(&path, other).key(&admin).send().await.expect(200);
    assert!(!is_valid(&there, &token).await);

    let token = signed_in().await;
    here.delete(&path).key(&admin).send().await.expect(204);
    assert!(!is_valid(&there, &token).await);
}

#[apply(on_both!)]
async fn a_password_change_deactivation_or_deletion_by_an_admin_ends_sessions(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let path = format!("/api/v1/users/{}", app.user("ada").await);
    app.user("ben").await;
    let ben_session = app.login("ben").await;
    let change = async |body: Value| {
        let token = app.login("ada").await;
        app.put(&path, body).key(&admin).send().await.expect(200);
        is_valid(&app, &token).await
    };
    assert!(change(json!({"full_name": "Ada", "username": "ada"})).await);
    assert!(change(json!({"email": "ada@example.org"})).await);
    assert!(change(json!({"is_active": true})).await);
    assert!(!change(json!({"password": "correct horse battery"})).await);
    assert!(!change(json!({"is_active": false})).await);
    app.put(&path, json!({"is_active": true})).key(&admin).send().await.expect(200);
    assert_eq!(app.rows::<(i64,)>(IDS).await, [(1,)], "no ended session is restored");
    let token = app.login("ada").await;
    app.delete(&path).key(&admin).send().await.expect(204);
    assert!(!is_valid(&app, &token).await && is_valid(&app, &ben_session).await);
}

#[apply(on_both!)]
async fn requests_of_a_user_are_limited_over_all_sessions(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_USER_PER_MINUTE", "3")]).await;
    app.user("ada").await;
    app.user("ben").await;
    let (first, second, ben_session) =
        (app.login("ada").await, app.login("ada").await, app.login("ben").await);
    let answer = me(&app, &first).await;
    assert_eq!(answer.header("ratelimit"), Some(r#""user";r=2;t=20"#));
    assert_eq!(answer.header("ratelimit-policy"), Some(r#""user";q=3;w=60"#));
    app.get("/api/v1/users").session(&second).send().await.expect(403);
    app.get("/api/v1/nowhere").session(&first).send().await.expect(404);
    for token in [&first, &second] {
        let answer = me(&app, token).await;
        assert_eq!(answer.body, json!({"detail": "Rate limit exceeded: 3 per 1 minute"}));
        let retry_after = answer.header("retry-after").unwrap();
        let expected = format!(r#""user";r=0;t={retry_after}"#);
        assert_eq!((answer.status, answer.header("ratelimit")), (429, Some(&*expected)));
    }
    assert!(is_valid(&app, &ben_session).await);
}

#[apply(on_both!)]
async fn a_session_token_is_accepted_only_in_authorization(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let token = app.login("ada").await;
    app.get(ME).key(&token).send().await.refused(401, "Invalid or inactive API Key");
    app.get(ME).header("Authorization", format!("bearer  {token}")).send().await.expect(200);
    let other = if &token[10..11] == "x" { "y" } else { "x" };
    let mistyped = format!("{}{other}{}", &token[..10], &token[11..]);
    for bad in [&token[..53], "octs_", &mistyped, &format!("{token}0")] {
        app.get(ME).session(bad).send().await.refused(401, ENDED);
    }
}

#[apply(on_both!)]
async fn two_credentials_are_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.user("ada").await;
    let token = app.login("ada").await;
    let answer = app.get(ME).key(&admin).session(&token).send().await;
    assert_eq!(answer.status, 400, "{}", answer.text);
}

#[apply(on_both!)]
async fn no_token_is_stored_or_echoed(backend: Backend) {
    const COLUMNS: [&str; 5] = [
        "SELECT last_used_ip FROM sessions",
        "SELECT COALESCE(user_agent, '') FROM sessions",
        "SELECT details FROM api_key_audit_logs",
        "SELECT payload FROM api_key_audit_logs",
        "SELECT password_hash FROM users",
    ];
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    app.user("ada").await;
    let (token, other) = (app.login("ada").await, app.login("ada").await);
    let hashes: Vec<(Vec<u8>,)> = app.rows("SELECT token_hash FROM sessions ORDER BY id").await;
    assert_eq!(hashes, [&token, &other].map(|token| (SecretHash::of(token).to_vec(),)));
    let change =
        json!({"current_password": "correct horse battery", "password": "another good one"});
    app.put(ME, change).session(&token).send().await.expect(200);
    for sql in COLUMNS {
        let texts: Vec<(String,)> = app.rows(sql).await;
        assert!(texts.iter().all(|(text,)| !text.contains("octs_") && !text.contains("another")));
    }
    if backend.is_sqlite() {
        let file = std::fs::read(backend.folder().join("octopus.db")).unwrap();
        let wal = std::fs::read(backend.folder().join("octopus.db-wal")).unwrap_or_default();
        let has = |bytes: &[u8]| bytes.windows(token.len()).any(|w| w == token.as_bytes());
        assert!(!has(&file) && !has(&wal), "the file holds a token");
    }
    // A token in the wrong field is not echoed.
    for field in ["username", "full_name", "email"] {
        let body = json!({field: format!("{token}\u{0}@")});
        let answer = app.put(ME, body).session(&token).send().await;
        assert!(answer.status == 422 && !answer.text.contains(&token), "{}", answer.text);
    }
    let list = app.get(OWN).session(&token).send().await;
    assert!(!list.text.contains("octs_") && !list.text.contains("hash"), "{}", list.text);
    let logs = app.get("/api/v1/api-keys/audit-logs").key(&admin).send().await;
    assert!(!logs.text.contains("octs_") && !logs.text.contains("another"), "{}", logs.text);
}

#[apply(on_both!)]
async fn ended_sessions_are_deleted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    app.login("ada").await;
    app.advance(TimeDelta::days(10));
    let token = app.login("ada").await;
    users::forget_old(&app.state).await.unwrap();
    assert_eq!(app.rows::<(i64,)>(IDS).await.len(), 2);
    app.advance(TimeDelta::days(4) + TimeDelta::hours(2));
    users::forget_old(&app.state).await.unwrap();
    assert_eq!(app.rows::<(i64,)>(IDS).await, [(2,)]);
    assert!(is_valid(&app, &token).await);
    app.advance(TimeDelta::days(90));
    users::forget_old(&app.state).await.unwrap();
    assert_eq!(app.rows::<(i64,)>(IDS).await, []);
}
