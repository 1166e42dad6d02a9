//! Keys beside sessions, and access after the end of a session, a user or a membership, including
//! concurrent requests.

use super::{
    CONVERSATIONS, Fixture, NEITHER, NOT_FOUND, TestApp, conversation_path, ids, json, messages,
    participants, user_message,
};
use crate::support::{Answer, Backend, Call};
use chrono::TimeDelta;
use octopus::db::{Tx, query};
use std::time::Duration;
use tokio::time::sleep;

#[apply(on_both!)]
async fn an_api_key_sees_all_conversations(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    fixture.post_message(fixture.of_bob, fixture.bob).await;
    let (reader, _) = fixture.app.key(&fixture.key, "conversations:read").await;
    for key in [&fixture.key, &reader] {
        let all = fixture.app.get(CONVERSATIONS).key(key).send().await;
        assert!(all.text.contains("alice@example.com") && all.text.contains("bob@example.com"));
        assert_eq!(ids(&all.expect(200)), [fixture.of_alice, fixture.of_bob]);
        fixture.app.get(&conversation_path(fixture.of_bob)).key(key).send().await.expect(200);
        let listed = fixture.app.get(&messages(fixture.of_bob)).key(key).send().await.expect(200);
        assert_eq!(listed[0]["user"]["email"], "bob@example.com");
    }
    let answer =
        fixture.app.post(&messages(fixture.of_bob), user_message()).key(&reader).send().await;
    answer.refused(403, "Write scope required to change conversations");
}

#[apply(on_both!)]
async fn one_credential_is_sent_at_a_time(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let answer = fixture.get(CONVERSATIONS).key(&fixture.key).send().await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    // A session token is not accepted as an API key.
    let answer = fixture.app.get(CONVERSATIONS).key(&fixture.as_alice).send().await;
    answer.refused(401, "Invalid or inactive API Key");
}

#[apply(on_both!)]
async fn an_ended_session_is_rejected_everywhere(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    fixture.get(CONVERSATIONS).send().await.expect(200);
    backend.execute(format!("DELETE FROM sessions WHERE user_id = {}", fixture.alice)).await;
    let mut bad = vec![fixture.as_alice.clone(), "octs_nonsense".to_owned()];
    let late = fixture.app.session_of(fixture.alice).await;
    for token in [&late, &fixture.as_bob] {
        fixture.app.get(CONVERSATIONS).session(token).send().await.expect(200);
    }
    fixture.app.advance(TimeDelta::days(91));
    bad.extend([late, fixture.as_bob.clone()]);
    for token in bad {
        for call in [
            fixture.app.get(CONVERSATIONS),
            fixture.app.get(&conversation_path(fixture.of_alice)),
            fixture.app.post(&messages(fixture.of_alice), user_message()),
            fixture.app.post(CONVERSATIONS, json!({})),
        ] {
            call.session(&token).send().await.refused(401, "Invalid or expired session");
        }
    }
    assert_eq!(fixture.app.number("SELECT COUNT(*) FROM messages").await, 0);
}

#[apply(on_both!)]
async fn a_deactivated_user_is_rejected_everywhere(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let path = format!("/api/v1/users/{}", fixture.alice);
    fixture.get(CONVERSATIONS).send().await.expect(200);
    fixture.app.put(&path, json!({"is_active": false})).key(&fixture.key).send().await.expect(200);
    for call in
        [fixture.get(CONVERSATIONS), fixture.post(&messages(fixture.of_alice), user_message())]
    {
        call.send().await.refused(401, "Invalid or expired session");
    }
    // Her memberships stay, and other participants see her.
    let kept = fixture
        .app
        .get(&conversation_path(fixture.of_alice))
        .key(&fixture.key)
        .send()
        .await
        .expect(200);
    assert_eq!(ids(&kept["participants"]), [fixture.alice]);
    fixture.app.delete(&path).key(&fixture.key).send().await.expect(204);
    fixture.get(CONVERSATIONS).send().await.refused(401, "Invalid or expired session");
}

#[apply(on_both!)]
async fn a_removed_membership_ends_at_the_next_request(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let (path, who) = (participants(fixture.of_alice), json!({"user_id": fixture.alice}));
    let someone = format!("{path}/{}", fixture.alice);
    for _ in 0..3 {
        fixture.post(&messages(fixture.of_alice), user_message()).send().await.expect(201);
        fixture.get(&conversation_path(fixture.of_alice)).send().await.expect(200);
        fixture.app.delete(&someone).key(&fixture.key).send().await.expect(200);
        fixture.get(&conversation_path(fixture.of_alice)).send().await.refused(404, NOT_FOUND);
        fixture
            .post(&messages(fixture.of_alice), user_message())
            .send()
            .await
            .refused(404, NOT_FOUND);
        assert_eq!(ids(&fixture.get(CONVERSATIONS).send().await.expect(200)), Vec::<i64>::new());
        fixture.app.post(&path, who.clone()).key(&fixture.key).send().await.expect(201);
    }
    assert_eq!(fixture.app.number("SELECT COUNT(*) FROM messages").await, 3);
}

#[apply(on_both!)]
async fn a_removed_participant_cannot_send_messages(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let (path, someone) = (
        messages(fixture.of_alice),
        format!("{}/{}", participants(fixture.of_alice), fixture.alice),
    );
    let batch = json!({"messages": [user_message(), user_message(), user_message()]});
    for round in 0..4 {
        let appending = fixture.app.send_concurrently(32, || fixture.post(&path, user_message()));
        let batches = fixture
            .app
            .send_concurrently(4, || fixture.post(&format!("{path}/batch"), batch.clone()));
        let removing = async {
            sleep(Duration::from_millis(10 * round)).await;
            let call = fixture.app.delete(&someone);
            let by_herself = round % 2 == 0;
            let call =
                if by_herself { call.session(&fixture.as_alice) } else { call.key(&fixture.key) };
            call.send().await.expect(if by_herself { 204 } else { 200 });
        };
        let (appended, batches, ()) = tokio::join!(appending, batches, removing);
        let mut accepted = 0;
        for (answer, count) in appended.iter().map(|a| (a, 1)).chain(batches.iter().map(|a| (a, 3)))
        {
            match answer.status {
                201 => accepted += count,
                _ => assert_eq!(
                    (answer.status, answer["detail"].as_str()),
                    (404, Some(NOT_FOUND)),
                    "{}",
                    answer.text
                ),
            }
        }
        // The events of the conversation are in the order of the changes.
        let events: Vec<(String,)> =
            fixture.app.rows("SELECT kind FROM conversation_events ORDER BY id").await;
        let kinds: Vec<&str> = events.iter().map(|(kind,)| kind.as_str()).collect();
        let removed = kinds.iter().position(|kind| *kind == "participant.removed").unwrap();
        let created = |kinds: &[&str]| kinds.iter().filter(|k| **k == "message.created").count();
        assert_eq!(
            (created(&kinds[..removed]), created(&kinds)),
            (accepted, accepted),
            "{kinds:?}"
        );
        backend
            .execute(format!(
                "DELETE FROM conversation_events; DELETE FROM messages; \
                 INSERT INTO participants VALUES ({}, {})",
                fixture.of_alice, fixture.alice
            ))
            .await;
        backend.execute("DELETE FROM conversation_events").await;
    }
}

/// Removes Alice in a transaction that commits while `call` waits for it. Returns the response.
async fn while_alice_is_removed(fixture: &Fixture, call: Call) -> Answer {
    const LOCK: &str = "UPDATE conversations SET last_seq = last_seq WHERE id = $1";
    const REMOVE: &str = "DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2";
    let mut tx: Tx = fixture.app.state.db.begin().await.unwrap();
    query(&mut tx, LOCK).bind(fixture.of_alice).execute().await.unwrap();
    let waiting = tokio::spawn(call.send());
    sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "it waits for the change of the conversation");
    query(&mut tx, REMOVE).bind(fixture.of_alice).bind(fixture.alice).execute().await.unwrap();
    tx.commit().await.unwrap();
    waiting.await.unwrap()
}

/// Adds Alice again.
async fn add_alice(app: &TestApp, fixture: &Fixture) {
    let body = json!({"user_id": fixture.alice});
    app.post(&participants(fixture.of_alice), body).key(&fixture.key).send().await.expect(201);
}

#[apply(on_both!)]
async fn a_removed_participant_cannot_add_themselves_again(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let path = participants(fixture.of_alice);
    for body in [json!({"user_id": fixture.alice}), json!({"username": "bob"})] {
        let answer = while_alice_is_removed(&fixture, fixture.post(&path, body)).await;
        answer.refused(404, NEITHER);
        let left = fixture
            .app
            .get(&conversation_path(fixture.of_alice))
            .key(&fixture.key)
            .send()
            .await
            .expect(200);
        assert_eq!(left["participants"], json!([]));
        add_alice(&fixture.app, &fixture).await;
    }
}

#[apply(on_both!)]
async fn a_message_that_waited_for_the_removal_of_its_author_is_not_found(backend: Backend) {
    let fixture = Fixture::new(&backend).await;
    let (path, own) =
        (messages(fixture.of_alice), fixture.post_message(fixture.of_alice, fixture.alice).await);
    let message = format!("{path}/{own}");
    let edit = || fixture.app.patch(&message, json!({"content": "x"})).session(&fixture.as_alice);
    for call in [
        fixture.post(&path, user_message()),
        fixture.post(&path, user_message()).header("Idempotency-Key", "a"),
        fixture
            .post(&format!("{path}/batch"), json!({"messages": [user_message(), user_message()]})),
        edit(),
        fixture.delete(&message),
    ] {
        while_alice_is_removed(&fixture, call).await.refused(404, NOT_FOUND);
        add_alice(&fixture.app, &fixture).await;
    }
    let kept = fixture
        .app
        .get(&conversation_path(fixture.of_alice))
        .key(&fixture.key)
        .send()
        .await
        .expect(200);
    assert_eq!((&kept["message_count"], &kept["messages"][0]["version"]), (&json!(1), &json!(1)));
}
