//! `/users/me`: signed-in users view, change and delete their own account.

use crate::support::{Backend, TestApp};
use octopus::features::api_keys::service::record_failures;
use serde_json::{Value, json};

const ME: &str = "/api/v1/users/me";
const LOGIN: &str = "/api/v1/users/login";
const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "another good password";
const WRONG: &str = "The current password is wrong";
const SESSIONS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM sessions";

async fn log_in(app: &TestApp, password: &str) -> u16 {
    let body = json!({"username": "ada", "password": password});
    app.post(LOGIN, body).send().await.status
}

#[apply(on_both!)]
async fn users_see_all_fields_of_their_own_account(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let id = app.user("ada").await;
    let token = app.login("ada").await;
    let answer = app.get(ME).session(&token).send().await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let me = answer.expect(200);
    let user = app.get(&format!("/api/v1/users/{id}")).key(&admin).send().await.expect(200);
    assert_eq!((&me, &me["email"]), (&user, &json!("ada@example.com")));
}

#[apply(on_both!)]
async fn names_change_without_the_password(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let token = app.login("ada").await;
    let body = json!({"full_name": "Ada Lovelace", "username": "countess"});
    let user = app.put(ME, body).session(&token).send().await.expect(200);
    assert_eq!(
        (&user["full_name"], &user["username"]),
        (&json!("Ada Lovelace"), &json!("countess"))
    );
    assert!(user["updated_at"].as_str() > user["created_at"].as_str());
    let body = json!({"username": "COUNTESS", "password": PASSWORD});
    app.post(LOGIN, body).send().await.expect(200);
    assert_eq!(log_in(&app, PASSWORD).await, 401);
}

#[apply(on_both!)]
async fn a_fetched_account_can_be_sent_back(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let token = app.login("ada").await;
    let mut me = app.get(ME).session(&token).send().await.expect(200);
    me["full_name"] = json!("Ada");
    let changed = app.put(ME, me.clone()).session(&token).send().await.expect(200);
    me["updated_at"] = changed["updated_at"].clone();
    assert_eq!(changed, me);
}

#[apply(on_both!)]
async fn users_cannot_raise_their_own_permissions(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let token = app.login("ada").await;
    let body = json!({"is_superuser": true, "is_active": false, "id": 7, "full_name": "Ada"});
    let user = app.put(ME, body).session(&token).send().await.expect(200);
    let kept = [&user["is_superuser"], &user["is_active"], &user["id"]];
    assert_eq!(kept, [&json!(false), &json!(true), &json!(1)]);
}

#[apply(on_both!)]
async fn changing_password_or_email_needs_the_current_password(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let token = app.login("ada").await;
    let put = |body: Value| app.put(ME, body).session(&token).send();
    for change in [json!({"password": OTHER}), json!({"email": "ada@example.org"})] {
        let with = |password: &str| {
            let mut body = change.clone();
            body["current_password"] = json!(password);
            body
        };
        put(change.clone()).await.invalid(&["body.current_password"]);
        for wrong in ["", "wrong", &PASSWORD.to_uppercase()] {
            put(with(wrong)).await.refused(403, WRONG);
        }
        assert_eq!(log_in(&app, PASSWORD).await, 200, "nothing has changed");
    }
    let user = put(json!({"email": "ada@example.org", "current_password": PASSWORD})).await;
    assert_eq!(user.expect(200)["email"], "ada@example.org");
    // The same email in another case counts as a change.
    put(json!({"email": "ADA@example.org"})).await.invalid(&["body.current_password"]);
    put(json!({"password": OTHER, "current_password": PASSWORD})).await.expect(200);
    assert_eq!((log_in(&app, PASSWORD).await, log_in(&app, OTHER).await), (401, 200));
    app.get(ME).session(&token).send().await.expect(200);
}

#[apply(on_both!)]
async fn changing_the_password_ends_all_other_sessions(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    app.user("ben").await;
    let tokens = [app.login("ada").await, app.login("ada").await, app.login("ada").await];
    let bens = app.login("ben").await;
    let email = json!({"email": "ada@example.org", "current_password": PASSWORD});
    app.put(ME, email).session(&tokens[1]).send().await.expect(200);
    assert_eq!(app.number(SESSIONS).await, 4, "an email ends none");
    let body = json!({"password": OTHER, "current_password": PASSWORD});
    app.put(ME, body).session(&tokens[1]).send().await.expect(200);
    for (token, status) in [(&tokens[0], 401), (&tokens[1], 200), (&tokens[2], 401), (&bens, 200)] {
        app.get(ME).session(token).send().await.expect(status);
    }
}

#[apply(on_both!)]
async fn a_name_or_email_of_another_user_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    app.user("ben").await;
    let token = app.login("ada").await;
    let taken = "Email or username already registered";
    app.put(ME, json!({"username": "BEN"})).session(&token).send().await.refused(400, taken);
    let body = json!({"email": "BEN@example.com", "current_password": PASSWORD});
    app.put(ME, body).session(&token).send().await.refused(400, taken);
}

#[apply(on_both!)]
async fn changes_follow_the_rules_of_registration(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let token = app.login("ada").await;
    let body = json!({
        "username": "a@b", "email": "nowhere", "password": "short-1", "full_name": "x".repeat(256),
        "current_password": "a secret",
    });
    let answer = app.put(ME, body).session(&token).send().await;
    assert!(!answer.text.contains("a secret"), "{}", answer.text);
    answer.invalid(&["body.email", "body.full_name", "body.password", "body.username"]);
    app.put(ME, json!({"full_name": "x".repeat(40_000)})).session(&token).send().await.expect(413);
}

#[apply(on_both!)]
async fn attempts_at_the_current_password_have_their_own_limit(backend: Backend) {
    let app = TestApp::with(&backend, &[("RATE_LIMIT_LOGIN_PER_MINUTE", "3")]).await;
    let admin = app.admin().await;
    app.user("ada").await;
    let token = app.login("ada").await;
    let put = |current: &str| {
        let body = json!({"password": OTHER, "current_password": current});
        app.put(ME, body).session(&token).send()
    };
    put("wrong").await.expect(403);
    let delete = app.delete(ME).json(json!({"current_password": "wrong"})).session(&token);
    delete.send().await.expect(403);
    put("wrong").await.expect(403);
    let answer = put(PASSWORD).await;
    assert_eq!(answer.header("ratelimit-policy"), Some(r#""login";q=3;w=60"#));
    answer.expect(429);
    assert_eq!(log_in(&app, "wrong").await, 401);
    assert_eq!(log_in(&app, PASSWORD).await, 200);
    // A change that needs no password still works.
    app.put(ME, json!({"full_name": "Ada"})).session(&token).send().await.expect(200);
    record_failures(&app.state).await.unwrap();
    let path = "/api/v1/api-keys/audit-logs?action=auth_failed";
    let logs = app.get(path).key(&admin).send().await.expect(200);
    let mut details: Vec<_> =
        logs.as_array().unwrap().iter().map(|log| log["details"].to_string()).collect();
    details.sort();
    let expected = [
        json!({"reason": "login_failed", "count": 1}).to_string(),
        json!({"reason": "password_wrong", "count": 3}).to_string(),
    ];
    assert!(
        details.iter().all(|text| expected.contains(text)) && details.len() == 2,
        "{details:?}"
    );
}

#[apply(on_both!)]
async fn deleting_the_own_account_needs_the_password(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let (token, other) = (app.login("ada").await, app.login("ada").await);
    let delete = |body: Value| app.delete(ME).json(body).session(&token).send();
    app.delete(ME).session(&token).send().await.expect(422);
    delete(json!({})).await.invalid(&["body.current_password"]);
    delete(json!({"current_password": "wrong"})).await.refused(403, WRONG);
    let surplus = json!({"current_password": PASSWORD, "really": true});
    delete(surplus).await.invalid(&["body.really"]);
    delete(json!({"current_password": PASSWORD})).await.expect(204);
    for token in [&token, &other] {
        app.get(ME).session(token).send().await.refused(401, "Invalid or expired session");
    }
    assert_eq!((log_in(&app, PASSWORD).await, app.number(SESSIONS).await), (401, 0));
}

#[apply(on_both!)]
async fn messages_of_a_deleted_account_stay_without_an_author(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let users = [app.user("ada").await, app.user("ben").await];
    let path = format!("/api/v1/conversations/{}", app.conversation(&admin, &users).await);
    let token = app.login("ada").await;
    let message = json!({"role": "user", "content": "hello"});
    app.post(&format!("{path}/messages"), message).session(&token).send().await.expect(201);
    let delete = app.delete(ME).json(json!({"current_password": PASSWORD})).session(&token);
    delete.send().await.expect(204);
    let conversation = app.get(&path).key(&admin).send().await.expect(200);
    assert_eq!(conversation["messages"][0]["content"], "hello");
    assert_eq!(conversation["messages"][0]["user_id"], json!(null));
    assert_eq!(conversation["participants"].as_array().unwrap().len(), 1);
}

#[apply(on_both!)]
async fn changes_of_the_own_account_are_in_the_audit_log(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let id = app.user("ada").await;
    let token = app.login("ada").await;
    let logs = async || {
        let logs = app.get("/api/v1/api-keys/audit-logs").key(&admin).send().await.expect(200);
        let by_user = |log: &&Value| log["performed_by"] == "user";
        logs.as_array().unwrap().iter().filter(by_user).cloned().collect::<Vec<_>>()
    };
    app.put(ME, json!({"full_name": "Ada"})).session(&token).send().await.expect(200);
    assert_eq!(logs().await, Vec::<Value>::new(), "a name is no right");
    let body = json!({"email": "a@example.org", "password": OTHER, "current_password": PASSWORD});
    let answer = app.put(ME, body).session(&token).send().await;
    let request_id = answer.header("x-request-id").unwrap().to_owned();
    answer.expect(200);
    let row = logs().await.remove(0);
    let expected = json!({"user_id": id, "username": "ada", "changed": ["password", "email"]});
    assert_eq!((&row["action"], &row["details"]), (&json!("update_user"), &expected));
    assert_eq!(
        (&row["request_id"], &row["performed_by_ip"]),
        (&json!(request_id), &json!("127.0.0.1"))
    );
    assert_eq!((&row["performed_by_key_id"], &row["api_key_id"]), (&json!(null), &json!(null)));
    let delete = app.delete(ME).json(json!({"current_password": OTHER})).session(&token);
    delete.send().await.expect(204);
    let row = logs().await.remove(0);
    let expected = json!({"user_id": id, "username": "ada"});
    assert_eq!((&row["action"], &row["details"]), (&json!("delete_user"), &expected));
    let verified = app.get("/api/v1/admin/audit/verify").key(&admin).send().await.expect(200);
    assert_eq!(verified["intact"], true);
}

#[apply(on_both!)]
async fn of_concurrent_password_changes_one_succeeds(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    let tokens = [app.login("ada").await, app.login("ada").await];
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let password = format!("a new password {n}");
        let body = json!({"password": password, "current_password": PASSWORD});
        let call = app.put(ME, body).session(&tokens[n % 2]);
        tasks.spawn(async move { (password, call.send().await) });
    }
    let mut winner = None;
    for (password, answer) in tasks.join_all().await {
        match answer.status {
            200 => assert!(winner.replace(password).is_none(), "two have changed it"),
            // Either the password had already changed, or the change ended the session.
            401 | 403 | 409 => {}
            _ => panic!("{answer:?}"),
        }
    }
    assert_eq!(log_in(&app, &winner.unwrap()).await, 200);
}

#[apply(on_both!)]
async fn a_session_that_ends_during_its_request_changes_nothing(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.user("ada").await;
    for n in 0..10 {
        let (slow, quick) = (app.login("ada").await, app.login("ada").await);
        let body = json!({"email": format!("ada{n}@example.org"), "current_password": PASSWORD});
        let (change, ended) = tokio::join!(
            app.put(ME, body).session(&slow).send(),
            app.delete("/api/v1/users/me/sessions").session(&quick).send(),
        );
        ended.expect(204);
        assert!([200, 401].contains(&change.status), "{change:?}");
        assert_eq!(app.number(SESSIONS).await, 0);
    }
}
