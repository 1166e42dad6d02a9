//! Users: registration, retrieval, changes and deletion.

use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use octopus::core::config::PasswordCost;
use serde_json::{Value, json};

const USERS: &str = "/api/v1/users";
const TAKEN: &str = "Email or username already registered";
const HASH: &str = "SELECT password_hash FROM users ORDER BY id DESC LIMIT 1";

/// The body of Alice's registration, with `changes` applied.
fn alice(changes: Value) -> Value {
    let mut body = json!({
        "email": "alice@example.com",
        "username": "alice",
        "password": "correct horse battery",
    });
    if let (Value::Object(body), Value::Object(changes)) = (&mut body, changes) {
        body.extend(changes);
    }
    body
}

fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

async fn stored_hash(app: &TestApp) -> String {
    let mut rows = app.rows::<(String,)>(HASH).await;
    rows.remove(0).0
}

#[apply(on_both!)]
async fn registering_returns_the_user_and_stores_an_argon2id_hash(backend: Backend) {
    let unlimited = [("RATE_LIMIT_ENABLED", "false")];
    let app = TestApp::with_cost(&backend, &unlimited, PasswordCost::default()).await;
    let answer = app.post(USERS, alice(json!({"full_name": "Alice Liddell"}))).send().await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(!answer.text.contains("argon2") && !answer.text.contains("password"));
    let user = answer.expect(201);
    let created_at = user["created_at"].as_str().unwrap();
    let expected = json!({
        "id": 1, "email": "alice@example.com", "username": "alice", "full_name": "Alice Liddell",
        "is_active": true, "is_superuser": false, "created_at": created_at, "updated_at": created_at,
    });
    assert_eq!(user, expected);
    let hash = stored_hash(&app).await;
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");

    let plain = json!({"email": "b@example.com", "username": "b"});
    let user = app.post(USERS, alice(plain)).send().await.expect(201);
    assert_eq!((&user["id"], &user["full_name"]), (&json!(2), &Value::Null));
}

#[apply(on_both!)]
async fn emails_and_usernames_are_unique_in_any_case(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let first = alice(json!({"email": "Jörg@example.com", "username": "Ärger"}));
    app.post(USERS, first.clone()).send().await.expect(201);
    app.post(USERS, first).send().await.refused(400, TAKEN);
    for email in ["jörg@example.com", "JÖRG@EXAMPLE.COM"] {
        let body = alice(json!({"email": email, "username": "another"}));
        app.post(USERS, body).send().await.refused(400, TAKEN);
    }
    for username in ["ärger", "ÄRGER", "äRGEr"] {
        let body = alice(json!({"email": "another@example.com", "username": username}));
        app.post(USERS, body).send().await.refused(400, TAKEN);
    }
    let other = alice(json!({"email": "jorg@example.com", "username": "arger"}));
    app.post(USERS, other).send().await.expect(201);
}

#[apply(on_both!)]
async fn a_final_sigma_is_only_another_case_of_sigma(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.post(USERS, alice(json!({"username": "ΟΔΥΣΣΕΥΣ"}))).send().await.expect(201);
    for username in ["οδυσσευς", "οδυσσευσ"] {
        let body = alice(json!({"email": "another@example.com", "username": username}));
        app.post(USERS, body).send().await.refused(400, TAKEN);
    }
}

#[apply(on_both!)]
async fn a_registration_cannot_set_read_only_fields(backend: Backend) {
    let app = TestApp::new(&backend).await;
    for (field, value) in [
        ("is_superuser", json!(true)),
        ("id", json!(7)),
        ("is_active", json!(true)),
        ("password_hash", json!("x")),
        ("created_at", json!("2026-01-01T00:00:00Z")),
    ] {
        let answer = app.post(USERS, alice(json!({field: value}))).send().await;
        assert_eq!(answer["detail"][0]["type"], "extra_forbidden", "{field}: {}", answer.text);
        answer.invalid(&[&format!("body.{field}")]);
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 0);
}

#[apply(on_both!)]
async fn invalid_emails_are_refused_and_unusual_valid_ones_are_not(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let long = |last: usize| {
        let part = |n| "x".repeat(n);
        format!("{}@{}.{}.{}.com", part(64), part(61), part(61), part(last))
    };
    assert_eq!(long(61).len(), 254);
    for email in [
        "",
        "alice",
        "alice@",
        "@example.com",
        "alice@example",
        "a b@example.com",
        "Alice <alice@example.com>",
        "alice@exa mple.com",
        "alice@@example.com",
        "alice@example..com",
        &long(62),
    ] {
        app.post(USERS, alice(json!({"email": email}))).send().await.invalid(&["body.email"]);
    }
    for (index, email) in
        ["a+b@sub.example.com", "zoë@xn--exmple-cua.de", &long(61)].iter().enumerate()
    {
        let body = alice(json!({"email": email, "username": format!("user{index}")}));
        assert_eq!(app.post(USERS, body).send().await.expect(201)["email"], *email);
    }
}

#[apply(on_both!)]
async fn invalid_usernames_are_refused_and_unusual_valid_ones_are_not(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let (long, longest) = ("x".repeat(101), "š".repeat(100));
    for username in ["", "a b", "😀", "a@b", "@", "a\u{7}b", "a\nb", "a\u{7f}b", "a\u{85}b", &long]
    {
        let answer = app.post(USERS, alice(json!({"username": username}))).send().await;
        answer.invalid(&["body.username"]);
    }
    for (index, username) in ["x", "Zoë.Ångström", "a/b?c#d%20", &longest].iter().enumerate() {
        let email = format!("{index}@example.com");
        let body = alice(json!({"email": email, "username": username}));
        assert_eq!(app.post(USERS, body).send().await.expect(201)["username"], *username);
    }
}

#[apply(on_both!)]
async fn a_password_has_8_to_128_characters_and_is_not_common(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let odd = |n| "x9Kq-Tw7z_Bn4Lr2".repeat(9).chars().take(n).collect::<String>();
    let emoji = |n| "🦑🐙🐡🐟🐠🦀🦐🐳".repeat(17).chars().take(n).collect::<String>();
    for password in [
        "",
        "xk9-qTw",
        "🦑🐙🐡🐟🐠🦀🦐",
        &odd(129),
        &emoji(129),
        "password",
        "12345678",
        "qwertyuiop",
        &"a".repeat(128),
        &"abc".repeat(42),
        &"0123456789".repeat(12),
        &"🦑".repeat(128),
        "alice@example.com",
        "alicealicealice",
        "xk9-qTwZ\u{200b}",
        "xk9-qTwZ\n",
    ] {
        let answer = app.post(USERS, alice(json!({"password": password}))).send().await;
        answer.invalid(&["body.password"]);
    }
    let (longest, emoji) = (odd(128), emoji(128));
    for (index, password) in ["xk9-qTwZ", "🦑🐙🐡🐟🐠🦀🦐🐳", &longest, &emoji].iter().enumerate()
    {
        let (email, username) = (format!("{index}@example.com"), format!("user{index}"));
        let body = json!({"email": email, "username": username, "password": password});
        app.post(USERS, body).send().await.expect(201);
    }
    // The longest password is hashed without truncation.
    let hash = stored_hash(&app).await;
    let cut: String = emoji.chars().take(127).collect();
    assert!(app.state.passwords.verify(emoji, hash.clone()).await.unwrap());
    assert!(!app.state.passwords.verify(cut, hash).await.unwrap());
}

#[apply(on_both!)]
async fn the_least_length_of_a_password_can_be_configured(backend: Backend) {
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("PASSWORD_MIN_LENGTH", "12")];
    let app = TestApp::with(&backend, &variables).await;
    let answer = app.post(USERS, alice(json!({"password": "xk9-qTwZ-12"}))).send().await;
    assert_eq!(answer["detail"][0]["type"], "string_too_short");
    answer.invalid(&["body.password"]);
    app.post(USERS, alice(json!({"password": "xk9-qTwZ-123"}))).send().await.expect(201);
}

#[apply(on_both!)]
async fn all_problems_of_a_body_are_reported_together(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let body = json!({
        "email": "nobody", "username": "a@b", "password": "short-1", "full_name": "x".repeat(256),
    });
    let answer = app.post(USERS, body).send().await;
    for error in answer["detail"].as_array().unwrap() {
        assert_eq!(names(error), ["input", "loc", "msg", "type"]);
    }
    answer.invalid(&["body.email", "body.username", "body.password", "body.full_name"]);
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 0);
}

#[apply(on_both!)]
async fn a_password_is_never_echoed_in_an_error(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let id = app.user("bob").await;
    for password in [
        json!("hunter2-".repeat(20)),
        json!("hunter2-\0"),
        json!(["hunter2-secret"]),
        json!({"is": "hunter2-secret"}),
        json!("hunter2-secret"),
    ] {
        let body = alice(json!({"email": 1, "password": password}));
        for call in [
            app.post(USERS, body.clone()),
            app.put(&format!("{USERS}/{id}"), body).key(&admin),
            app.post(USERS, json!({"username": "x", "password": password})),
            app.post(USERS, json!([{"password": password}])),
            app.post(USERS, json!({"email": {"password": password}})),
        ] {
            let answer = call.send().await;
            assert!(!answer.text.contains("hunter2"), "{}", answer.text);
            answer.expect(422);
        }
    }
    for broken in [r#"{"password": "hunter2-secret""#, r#"{"password": "hunter2-secret\ud800"}"#] {
        let answer = app.act(USERS).body(broken).send().await;
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
        answer.expect(422);
    }
}

#[apply(on_both!)]
async fn a_password_in_a_misspelt_field_is_never_echoed(backend: Backend) {
    let app = TestApp::new(&backend).await;
    for name in ["Password", "passwd", "pasword"] {
        let answer = app.post(USERS, alice(json!({name: "hunter2-secret"}))).send().await;
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
        answer.invalid(&[&format!("body.{name}")]);
    }
}

#[apply(on_both!)]
async fn registration_can_need_a_key_that_writes(backend: Backend) {
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("REGISTRATION", "key")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let (read, _) = app.key(&admin, "read").await;
    let (write, _) = app.key(&admin, "write").await;
    app.post(USERS, alice(json!({})))
        .send()
        .await
        .refused(401, "API key required: send it in the header field Octopus-API-Key");
    // Without permission to register, the response reveals nothing about the body.
    app.post(USERS, json!({"id": 1}))
        .send()
        .await
        .refused(401, "API key required: send it in the header field Octopus-API-Key");
    let refused = app.post(USERS, json!({"id": 1})).key(&read).send().await;
    refused.refused(403, "Write scope required to register users");
    app.post(USERS, alice(json!({}))).key(&write).send().await.expect(201);
    let with_key = app.post(USERS, alice(json!({}))).key(&admin).send().await;
    with_key.refused(400, TAKEN);
}

#[apply(on_both!)]
async fn registration_can_be_closed(backend: Backend) {
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("REGISTRATION", "closed")];
    let app = TestApp::with(&backend, &variables).await;
    let admin = app.admin().await;
    let anonymous = app.post(USERS, json!({"id": 1})).send().await;
    anonymous.refused(403, "Registration is closed");
    let by_admin = app.post(USERS, alice(json!({}))).key(&admin).send().await;
    by_admin.refused(403, "Registration is closed");
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 0);
}

#[apply(on_both!)]
async fn a_registration_has_at_most_32_kibibytes(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let bytes = |n: usize| {
        let text = alice(json!({"full_name": "x"})).to_string();
        let padding = " ".repeat(n - text.len());
        text + &padding
    };
    let answer = app.act(USERS).body(bytes(32_769)).send().await;
    answer.refused(413, "The request body is larger than 32768 bytes");
    let user = app.act(USERS).body(bytes(32_768)).send().await.expect(201);
    // Key holders make changes, and their bodies may have the usual size.
    let admin = app.admin().await;
    let path = format!("{USERS}/{}", user["id"]);
    let put = app.call(reqwest::Method::PUT, &path).key(&admin).body(bytes(32_769)).send().await;
    put.expect(200);
}

#[apply(on_both!)]
async fn the_list_shows_only_public_fields_ordered_by_id(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (read, _) = app.key(&admin, "read").await;
    let (write, _) = app.key(&admin, "write").await;
    assert_eq!(app.get(USERS).key(&read).send().await.expect(200), json!([]));
    for name in ["carol", "alice", "bob"] {
        app.user(name).await;
    }
    let list = app.get(USERS).key(&read).send().await.expect(200);
    let entries = list.as_array().unwrap();
    let usernames: Vec<&Value> = entries.iter().map(|user| &user["username"]).collect();
    assert_eq!(usernames, ["carol", "alice", "bob"]);
    for user in entries {
        assert_eq!(names(user), ["created_at", "full_name", "id", "username"]);
    }
    let second = app.get(&format!("{USERS}?skip=1&limit=1")).key(&read).send().await.expect(200);
    assert_eq!(second, json!([entries[1]]));
    let beyond = app.get(&format!("{USERS}?skip=3")).key(&read).send().await.expect(200);
    assert_eq!(beyond, json!([]));
    app.get(USERS).key(&write).send().await.refused(403, "Read scope required to read users");
    app.get(USERS)
        .send()
        .await
        .refused(401, "API key required: send it in the header field Octopus-API-Key");
}

#[apply(on_both!)]
async fn a_user_is_found_by_id(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (read, _) = app.key(&admin, "read").await;
    let user = app.post(USERS, alice(json!({}))).send().await.expect(201);
    let path = format!("{USERS}/{}", user["id"]);
    assert_eq!(app.get(&path).key(&read).send().await.expect(200), user);
    app.get(&path)
        .send()
        .await
        .refused(401, "API key required: send it in the header field Octopus-API-Key");
    let unknown = app.get(&format!("{USERS}/2")).key(&read).send().await;
    unknown.refused(404, "User not found");
    let greatest = app.get(&format!("{USERS}/{}", i64::MAX)).key(&read).send().await;
    greatest.refused(404, "User not found");
}

#[apply(on_both!)]
async fn a_user_is_found_by_name_in_any_case_without_a_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let body = alice(json!({"username": "Zoë/ä", "full_name": "Zoë"}));
    let user = app.post(USERS, body).send().await.expect(201);
    for name in ["Zo%C3%AB%2F%C3%A4", "ZO%C3%8B%2F%C3%84", "zo%C3%AB%2F%C3%A4/"] {
        let found = app.get(&format!("{USERS}/username/{name}")).send().await.expect(200);
        let expected = json!({
            "id": user["id"], "username": "Zoë/ä", "full_name": "Zoë",
            "created_at": user["created_at"],
        });
        assert_eq!(found, expected);
    }
    for name in ["nobody", "zoe", "Zo_%2F%C3%A4", "alice@example.com"] {
        let answer = app.get(&format!("{USERS}/username/{name}")).send().await;
        answer.refused(404, "User not found");
    }
    let nul = app.get(&format!("{USERS}/username/a%00b")).send().await;
    nul.invalid(&["path.username"]);
}

#[apply(on_both!)]
async fn a_change_touches_only_the_fields_sent(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (write, _) = app.key(&admin, "read,write").await;
    let before = app.post(USERS, alice(json!({"full_name": "Alice"}))).send().await.expect(201);
    let (path, hash) = (format!("{USERS}/{}", before["id"]), stored_hash(&app).await);
    app.advance(TimeDelta::minutes(1));

    let changed = app.put(&path, json!({"full_name": "Alice Liddell"})).key(&write).send().await;
    let changed = changed.expect(200);
    let mut expected = before.clone();
    expected["full_name"] = json!("Alice Liddell");
    expected["updated_at"] = changed["updated_at"].clone();
    assert_eq!(changed, expected);
    assert!(changed["updated_at"].as_str() > before["updated_at"].as_str());
    assert_eq!(app.get(&path).key(&admin).send().await.expect(200), changed);

    let nulls = json!({"full_name": null, "username": null, "email": null, "password": null,
        "is_active": null});
    let unchanged = app.put(&path, nulls).key(&write).send().await.expect(200);
    expected["updated_at"] = unchanged["updated_at"].clone();
    assert_eq!(unchanged, expected);
    assert_eq!(stored_hash(&app).await, hash);

    let renamed = app.put(&path, json!({"username": "ALICE"})).key(&write).send().await;
    assert_eq!(renamed.expect(200)["username"], "ALICE");
    let unknown = app.put(&format!("{USERS}/99"), json!({})).key(&write).send().await;
    unknown.refused(404, "User not found");
    let (read, _) = app.key(&admin, "read").await;
    let by_reader = app.put(&path, json!({})).key(&read).send().await;
    by_reader.refused(403, "Write scope required to change users");
}

#[apply(on_both!)]
async fn a_fetched_user_can_be_sent_back_by_a_key_that_writes(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (write, _) = app.key(&admin, "read,write").await;
    let mut user = app.post(USERS, alice(json!({"full_name": "Alice"}))).send().await.expect(201);
    let path = format!("{USERS}/{}", user["id"]);
    user["full_name"] = json!("Alice Liddell");
    let mut sent = user.clone();
    // Read-only fields are ignored, and so are unknown fields.
    for (field, value) in [("id", json!(7)), ("is_superuser", json!(true)), ("odd", json!({}))] {
        sent[field] = value;
    }
    let answer = app.put(&path, sent).key(&write).send().await.expect(200);
    user["updated_at"] = answer["updated_at"].clone();
    assert_eq!(answer, user);
}

#[apply(on_both!)]
async fn only_an_admin_key_changes_password_email_and_status(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (both, _) = app.key(&admin, "read,write").await;
    let before = app.post(USERS, alice(json!({}))).send().await.expect(201);
    let (path, old_hash) = (format!("{USERS}/{}", before["id"]), stored_hash(&app).await);
    for (field, value) in [
        ("password", json!("another good phrase")),
        ("email", json!("eve@example.com")),
        ("email", json!("ALICE@example.com")),
        ("is_active", json!(false)),
    ] {
        let body = json!({"full_name": "Eve", field: value});
        let answer = app.put(&path, body.clone()).key(&both).send().await;
        let detail = answer["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.starts_with("Admin scope required to "), "{field}: {}", answer.text);
        answer.expect(403);
    }
    // A refused change changes nothing, not even the permitted fields.
    assert_eq!(app.get(&path).key(&both).send().await.expect(200), before);
    assert_eq!(stored_hash(&app).await, old_hash);

    let body = json!({
        "password": "another good phrase", "email": "Alice@example.org", "is_active": false,
    });
    let answer = app.put(&path, body).key(&admin).send().await;
    assert!(!answer.text.contains("another good phrase") && !answer.text.contains("$argon2"));
    let user = answer.expect(200);
    assert_eq!((&user["email"], &user["is_active"]), (&json!("Alice@example.org"), &json!(false)));
    assert_eq!(app.get(&path).key(&admin).send().await.expect(200), user);
    let hash = stored_hash(&app).await;
    assert!(hash.starts_with("$argon2id$") && hash != old_hash, "{hash}");
    let new = "another good phrase".to_owned();
    assert!(app.state.passwords.verify(new, hash).await.unwrap());
}

#[apply(on_both!)]
async fn a_name_or_email_of_another_user_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (first, second) = (app.user("zoë").await, app.user("bob").await);
    let path = format!("{USERS}/{second}");
    let before = app.get(&path).key(&admin).send().await.expect(200);
    for body in [json!({"username": "ZOË"}), json!({"email": "Zoë@Example.com"})] {
        app.put(&path, body).key(&admin).send().await.refused(400, TAKEN);
    }
    assert_eq!(app.get(&path).key(&admin).send().await.expect(200), before);

    // A released name is free after a month.
    app.put(&format!("{USERS}/{first}"), json!({"username": "zo"})).key(&admin).send().await;
    app.advance(TimeDelta::days(31));
    let renamed = app.put(&path, json!({"username": "ZOË"})).key(&admin).send().await;
    assert_eq!(renamed.expect(200)["username"], "ZOË");
    app.get(&format!("{USERS}/username/bob")).send().await.refused(404, "User not found");
}

#[apply(on_both!)]
async fn changes_follow_the_rules_of_registration(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let path = format!("{USERS}/{}", app.user("alice").await);
    for (field, value) in [
        ("email", json!("nobody")),
        ("username", json!("a@b")),
        ("username", json!("")),
        ("username", json!("x".repeat(101))),
        ("full_name", json!("x".repeat(256))),
        ("full_name", json!("a\0b")),
        ("password", json!("short-1")),
        ("password", json!("password")),
        ("is_active", json!("yes")),
    ] {
        let answer = app.put(&path, json!({field: value})).key(&admin).send().await;
        answer.invalid(&[&format!("body.{field}")]);
    }
}

#[apply(on_both!)]
async fn only_an_admin_key_deletes_a_user(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (both, _) = app.key(&admin, "read,write").await;
    let path = format!("{USERS}/{}", app.user("alice").await);
    app.delete(&path)
        .send()
        .await
        .refused(401, "API key required: send it in the header field Octopus-API-Key");
    let refused = app.delete(&path).key(&both).send().await;
    refused.refused(403, "Admin scope required to delete users");
    app.get(&path).key(&both).send().await.expect(200);
    let response = app.delete(&path).key(&admin).send().await;
    assert_eq!(response.text, "");
    response.expect(204);
    app.get(&path).key(&both).send().await.refused(404, "User not found");
    app.delete(&path).key(&admin).send().await.refused(404, "User not found");
    // The email is free immediately, the name after a month, the id never.
    app.advance(TimeDelta::days(31));
    assert_eq!(app.post(USERS, alice(json!({}))).send().await.expect(201)["id"], 2);
}

#[apply(on_both!)]
async fn the_messages_of_a_deleted_user_stay_without_an_author(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let conversation_path =
        format!("/api/v1/conversations/{}", app.conversation(&key, &[alice, bob]).await);
    for user_id in [alice, bob] {
        let body = json!({"role": "user", "content": format!("by {user_id}"), "user_id": user_id});
        app.post(&format!("{conversation_path}/messages"), body).key(&key).send().await.expect(201);
    }
    app.delete(&format!("{USERS}/{bob}")).key(&key).send().await.expect(204);
    // A new user gets a new id, even with the same name.
    app.advance(TimeDelta::days(31));
    let next = app.user("bob").await;
    assert!(next > bob, "{next} is not beyond {bob}");
    app.post(&format!("{conversation_path}/participants"), json!({"user_id": next}))
        .key(&key)
        .send()
        .await;

    let seen = app.get(&conversation_path).key(&key).send().await.expect(200);
    let ids: Vec<&Value> =
        seen["participants"].as_array().unwrap().iter().map(|user| &user["id"]).collect();
    assert_eq!(ids, [alice, next]);
    let listed =
        app.get(&format!("{conversation_path}/messages")).key(&key).send().await.expect(200);
    for messages in [&seen["messages"], &listed] {
        assert_eq!(
            (&messages[0]["user_id"], &messages[0]["user"]["id"]),
            (&alice.into(), &alice.into())
        );
        assert_eq!(messages[1]["content"], format!("by {bob}"));
        assert_eq!((&messages[1]["user_id"], &messages[1]["user"]), (&Value::Null, &Value::Null));
    }
    assert_eq!(seen["message_count"], 2);
}

#[apply(on_both!)]
async fn every_change_of_a_name_or_permission_writes_an_audit_entry(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (write, _) = app.key(&admin, "write").await;
    let user = app.post(USERS, alice(json!({}))).send().await.expect(201);
    let path = format!("{USERS}/{}", user["id"]);
    let logs = async |action: &str| {
        let path = format!("/api/v1/api-keys/audit-logs?action={action}");
        let answer = app.get(&path).key(&admin).send().await;
        assert!(!answer.text.contains("another good phrase") && !answer.text.contains("$argon2"));
        answer.expect(200).as_array().unwrap().clone()
    };
    // None of these requests changes anything.
    app.put(&path, json!({"email": user["email"], "is_active": true})).key(&admin).send().await;
    app.put(&path, json!({"password": "another good phrase"})).key(&write).send().await.expect(403);
    app.delete(&path).key(&write).send().await.expect(403);
    assert_eq!(logs("update_user").await, Vec::<Value>::new());

    for (field, value) in [
        ("full_name", json!("Alice")),
        ("password", json!("another good phrase")),
        ("email", json!("alice@example.org")),
        ("is_active", json!(false)),
    ] {
        app.put(&path, json!({field: value})).key(&admin).send().await.expect(200);
        let newest = logs("update_user").await.remove(0);
        let details = json!({"user_id": user["id"], "username": "alice", "changed": [field]});
        assert_eq!(newest["details"], details);
        assert_eq!(
            (&newest["performed_by_key_id"], &newest["performed_by_ip"], &newest["api_key_id"]),
            (&json!(1), &json!("127.0.0.1"), &Value::Null)
        );
    }
    assert_eq!(logs("update_user").await.len(), 4);
    assert_eq!(logs("delete_user").await, Vec::<Value>::new());
    app.delete(&path).key(&admin).send().await.expect(204);
    let deleted = logs("delete_user").await;
    assert_eq!(deleted.len(), 1);
    assert_eq!(deleted[0]["details"], json!({"user_id": user["id"], "username": "alice"}));
}

#[apply(on_both!)]
async fn bcrypt_hashes_up_to_72_bytes_and_never_cuts(backend: Backend) {
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("PASSWORD_HASHER", "bcrypt")];
    let app = TestApp::with_cost(&backend, &variables, PasswordCost::default()).await;
    let odd: String = "éß9-üKöÄ7_ñÇ4+êÛ".repeat(3).chars().take(46).collect();
    for password in ["xK9-q".repeat(14) + "x7T", odd.clone() + "xy"] {
        assert_eq!(password.len(), 73);
        let answer = app.post(USERS, alice(json!({"password": password}))).send().await;
        answer.invalid(&["body.password"]);
    }
    let longest = odd + "x";
    assert_eq!(longest.len(), 72);
    app.post(USERS, alice(json!({"password": longest}))).send().await.expect(201);
    let hash = stored_hash(&app).await;
    assert!(hash.starts_with("$2b$12$"), "{hash}");
    assert!(app.state.passwords.verify(longest, hash).await.unwrap());
}

#[apply(on_both!)]
async fn of_64_simultaneous_registrations_of_one_name_one_succeeds(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let answers = app.send_concurrently(64, || app.post(USERS, alice(json!({})))).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(created, 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        answer.refused(400, TAKEN);
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 1);
}
