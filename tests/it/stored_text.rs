//! Titles, names, descriptions and messages are stored as they were written: not trimmed, composed
//! or otherwise normalized. Usernames and emails are, because they identify an account.

use crate::support::{Backend, TestApp};
use reqwest::Method;
use serde_json::json;

/// Texts that a careless program would change.
const TEXTS: [&str; 8] = [
    "Jose\u{301} \u{1100}\u{1161}",                 // decomposed
    "Jos\u{e9} \u{ac00}",                           // composed
    "\u{2126} \u{212b} \u{fb01} \u{ff21} \u{2460}", // characters that NFC or NFKC replaces
    "  blanks around  ",
    "\u{a0}\u{3000}other\u{2003}spaces\u{a0}",
    "line\r\nbreaks\n\ttabs\u{b}",
    "\u{feff}\u{200b}invisible\u{202e}\u{ad}",
    "I\u{130}\u{131}\u{df} \u{1f468}\u{200d}\u{1f469} \u{2764}\u{fe0f}",
];

#[apply(on_both!)]
async fn texts_are_stored_as_they_were_written(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let user = app.user("ada").await;
    let conversation = app.conversation(&admin, &[]).await;
    let (_, key) = app.key(&admin, "read").await;
    let messages = format!("/api/v1/conversations/{conversation}/messages");
    let message = json!({"role": "user", "content": "x"});
    let message = app.post(&messages, message).key(&admin).send().await.expect(201);
    let message = format!("{messages}/{}", message["id"]);
    let conversation = format!("/api/v1/conversations/{conversation}");
    let (user, key) = (format!("/api/v1/users/{user}"), format!("/api/v1/api-keys/{key}"));
    let session = app.login("ada").await;
    for text in TEXTS {
        for (method, path, field) in [
            (Method::POST, "/api/v1/conversations", "title"),
            (Method::PUT, &conversation, "title"),
            (Method::PATCH, &conversation, "title"),
            (Method::POST, &messages, "content"),
            (Method::PATCH, &message, "content"),
            (Method::PUT, &user, "full_name"),
            (Method::PATCH, &user, "full_name"),
            (Method::PUT, "/api/v1/users/me", "full_name"),
            (Method::PATCH, "/api/v1/users/me", "full_name"),
            (Method::POST, "/api/v1/api-keys", "name"),
            (Method::PATCH, &key, "name"),
            (Method::PATCH, &key, "description"),
        ] {
            let mut body = json!({field: text});
            if field == "content" && method == Method::POST {
                body["role"] = json!("user");
            }
            let place = format!("{method} {path} {field} {text:?}");
            let call = app.call(method.clone(), path).json(body);
            let is_own = path.ends_with("/me");
            let call = if is_own { call.session(&session) } else { call.key(&admin) };
            let answer = call.send().await;
            assert!([200, 201].contains(&answer.status), "{place}: {}", answer.text);
            assert_eq!(answer[field], text, "{place}");
            let one = if method == Method::POST {
                format!("{path}/{}", answer["id"])
            } else {
                path.to_owned()
            };
            let call = app.get(&one);
            let call = if is_own { call.session(&session) } else { call.key(&admin) };
            assert_eq!(call.send().await.expect(200)[field], text, "{place}");
        }
    }
}

#[apply(on_both!)]
async fn a_registered_full_name_is_stored_as_it_was_written(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    for (n, text) in TEXTS.into_iter().enumerate() {
        let body = json!({"username": format!("user{n}"), "email": format!("user{n}@example.com"),
            "password": "correct horse battery", "full_name": text});
        let user = app.post("/api/v1/users", body).send().await.expect(201);
        assert_eq!(user["full_name"], text);
        let path = format!("/api/v1/users/{}", user["id"]);
        assert_eq!(app.get(&path).key(&admin).send().await.expect(200)["full_name"], text);
    }
}
