//! 64 concurrent requests for the same change. docs/RELIABILITY.md lists the other race tests.

use crate::support::{Answer, Backend, TestApp};
use serde_json::json;

const CONVERSATIONS: &str = "/api/v1/conversations";

/// The number of events of this kind.
async fn events(app: &TestApp, kind: &str) -> usize {
    let kinds: Vec<(String,)> = app.rows("SELECT kind FROM conversation_events").await;
    kinds.iter().filter(|(found,)| found == kind).count()
}

#[track_caller]
fn all_are(answers: &[Answer], status: u16) {
    let others = answers.iter().find(|answer| answer.status != status);
    assert!(answers.len() == 64 && others.is_none(), "{others:?}");
}

#[apply(on_both!)]
async fn of_64_concurrent_idempotent_requests_one_creates_and_the_others_are_replayed(
    backend: Backend,
) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let conversation = app.conversation(&key, &[]).await;
    let message = json!({"role": "user", "content": "hello"});
    let messages = format!("{CONVERSATIONS}/{conversation}/messages");
    for (path, body) in [
        (CONVERSATIONS.to_owned(), json!({"title": "one"})),
        (messages.clone(), message.clone()),
        (format!("{messages}/batch"), json!({"messages": [message, message]})),
    ] {
        let send = || app.post(&path, body.clone()).key(&key).header("Idempotency-Key", "once");
        let answers = app.send_concurrently(64, send).await;
        all_are(&answers, 201);
        let new = answers.iter().filter(|a| a.header("idempotency-replayed").is_none()).count();
        assert_eq!(new, 1, "{path}");
        assert!(answers.iter().all(|answer| answer.body == answers[0].body), "{path}");
    }
    // Only the first response has the secret of the key. The others are a 409.
    let create = || {
        let call = app.post("/api/v1/api-keys", json!({"name": "one"})).key(&key);
        call.header("Idempotency-Key", "once")
    };
    let answers = app.send_concurrently(64, create).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 201);
    assert_eq!((made.len(), refused.len()), (1, 63));
    let named = format!("This request already created API key {}", made[0]["id"]);
    for answer in refused {
        assert!(answer.status == 409 && answer["detail"].as_str().unwrap().starts_with(&named));
    }
    let counts = "SELECT CAST(COUNT(*) AS BIGINT) FROM messages";
    assert_eq!(app.number(counts).await, 3);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM conversations").await, 2);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys").await, 2);
}

#[apply(on_both!)]
async fn of_64_concurrent_additions_and_removals_of_a_participant_one_each_takes_effect(
    backend: Backend,
) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (conversation, ada) = (app.conversation(&key, &[]).await, app.user("ada").await);
    let path = format!("{CONVERSATIONS}/{conversation}/participants");
    let join = || app.post(&path, json!({"user_id": ada})).key(&key);
    let answers = app.send_concurrently(64, join).await;
    all_are(&answers, 201);
    assert_eq!(events(&app, "participant.added").await, 1);
    for answer in &answers {
        assert_eq!(answer["participants"].as_array().unwrap().len(), 1, "{answer:?}");
    }
    let away = || app.delete(&format!("{path}/{ada}")).key(&key);
    all_are(&app.send_concurrently(64, away).await, 200);
    assert_eq!(events(&app, "participant.removed").await, 1);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM participants").await, 0);
}

#[apply(on_both!)]
async fn of_64_concurrent_additions_of_different_participants_all_take_effect(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let mut users = vec![];
    for n in 0..64 {
        users.push(app.user(&format!("user{n}")).await);
    }
    let path = format!("{CONVERSATIONS}/{}/participants", app.conversation(&key, &[]).await);
    let mut calls = tokio::task::JoinSet::new();
    for user in &users {
        calls.spawn(app.post(&path, json!({"user_id": user})).key(&key).send());
    }
    all_are(&calls.join_all().await, 201);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM participants").await, 64);
    assert_eq!(events(&app, "participant.added").await, 64);
}
