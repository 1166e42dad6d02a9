//! Keys beside sessions, and what is over: sessions, users, memberships, while requests are on their
//! way, too.

use super::{
    NEITHER, NOT_FOUND, TALKS, TestApp, Two, ids, json, messages, participants, says, talk,
};
use crate::support::{Answer, Backend, Call};
use chrono::TimeDelta;
use octopus::db::{Tx, query};
use std::time::Duration;
use tokio::time::sleep;

pub async fn a_key_sees_everything_as_before(backend: Backend) {
    let two = Two::new(&backend).await;
    two.said(two.of_bob, two.bob).await;
    let (reader, _) = two.app.key(&two.key, "conversations:read").await;
    for key in [&two.key, &reader] {
        let all = two.app.get(TALKS).key(key).send().await;
        assert!(all.text.contains("alice@example.com") && all.text.contains("bob@example.com"));
        assert_eq!(ids(&all.expect(200)), [two.of_alice, two.of_bob]);
        two.app.get(&talk(two.of_bob)).key(key).send().await.expect(200);
        let said = two.app.get(&messages(two.of_bob)).key(key).send().await.expect(200);
        assert_eq!(said[0]["user"]["email"], "bob@example.com");
    }
    let answer = two.app.post(&messages(two.of_bob), says()).key(&reader).send().await;
    answer.refused(403, "Write scope required to change conversations");
}

pub async fn one_credential_is_sent_at_a_time(backend: Backend) {
    let two = Two::new(&backend).await;
    let answer = two.get(TALKS).key(&two.key).send().await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    // A token in the place of a key is none.
    let answer = two.app.get(TALKS).key(&two.as_alice).send().await;
    answer.refused(401, "Invalid or inactive API Key");
}

pub async fn a_session_that_ended_opens_nothing(backend: Backend) {
    let two = Two::new(&backend).await;
    two.get(TALKS).send().await.expect(200);
    backend.execute(format!("DELETE FROM sessions WHERE user_id = {}", two.alice)).await;
    let mut bad = vec![two.as_alice.clone(), "octs_nonsense".to_owned()];
    let late = two.app.session_of(two.alice).await;
    for token in [&late, &two.as_bob] {
        two.app.get(TALKS).session(token).send().await.expect(200);
    }
    two.app.advance(TimeDelta::days(91));
    bad.extend([late, two.as_bob.clone()]);
    for token in bad {
        for call in [
            two.app.get(TALKS),
            two.app.get(&talk(two.of_alice)),
            two.app.post(&messages(two.of_alice), says()),
            two.app.post(TALKS, json!({})),
        ] {
            call.session(&token).send().await.refused(401, "Invalid or expired session");
        }
    }
    assert_eq!(two.app.number("SELECT COUNT(*) FROM messages").await, 0);
}

pub async fn a_user_who_was_switched_off_gets_nowhere(backend: Backend) {
    let two = Two::new(&backend).await;
    let path = format!("/api/v1/users/{}", two.alice);
    two.get(TALKS).send().await.expect(200);
    two.app.put(&path, json!({"is_active": false})).key(&two.key).send().await.expect(200);
    for call in [two.get(TALKS), two.post(&messages(two.of_alice), says())] {
        call.send().await.refused(401, "Invalid or expired session");
    }
    // Her memberships stay, and who else is there sees her.
    let kept = two.app.get(&talk(two.of_alice)).key(&two.key).send().await.expect(200);
    assert_eq!(ids(&kept["participants"]), [two.alice]);
    two.app.delete(&path).key(&two.key).send().await.expect(204);
    two.get(TALKS).send().await.refused(401, "Invalid or expired session");
}

pub async fn a_membership_that_was_taken_away_is_over_at_the_next_request(backend: Backend) {
    let two = Two::new(&backend).await;
    let (path, who) = (participants(two.of_alice), json!({"user_id": two.alice}));
    let someone = format!("{path}/{}", two.alice);
    for _ in 0..3 {
        two.post(&messages(two.of_alice), says()).send().await.expect(201);
        two.get(&talk(two.of_alice)).send().await.expect(200);
        two.app.delete(&someone).key(&two.key).send().await.expect(200);
        two.get(&talk(two.of_alice)).send().await.refused(404, NOT_FOUND);
        two.post(&messages(two.of_alice), says()).send().await.refused(404, NOT_FOUND);
        assert_eq!(ids(&two.get(TALKS).send().await.expect(200)), Vec::<i64>::new());
        two.app.post(&path, who.clone()).key(&two.key).send().await.expect(201);
    }
    assert_eq!(two.app.number("SELECT COUNT(*) FROM messages").await, 3);
}

pub async fn nothing_is_said_by_who_has_left(backend: Backend) {
    let two = Two::new(&backend).await;
    let (path, someone) =
        (messages(two.of_alice), format!("{}/{}", participants(two.of_alice), two.alice));
    let batch = json!({"messages": [says(), says(), says()]});
    for round in 0..4 {
        let appending = two.app.at_once(32, || two.post(&path, says()));
        let batches = two.app.at_once(4, || two.post(&format!("{path}/batch"), batch.clone()));
        let removing = async {
            sleep(Duration::from_millis(10 * round)).await;
            let call = two.app.delete(&someone);
            let by_herself = round % 2 == 0;
            let call = if by_herself { call.session(&two.as_alice) } else { call.key(&two.key) };
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
        // The log of the conversation has what happened in the order in which it did.
        let events: Vec<(String,)> =
            two.app.rows("SELECT kind FROM conversation_events ORDER BY id").await;
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
                two.of_alice, two.alice
            ))
            .await;
        backend.execute("DELETE FROM conversation_events").await;
    }
}

/// Sends Alice away in a transaction that commits once `call` waits for it: the answer to `call`.
async fn while_she_is_sent_away(two: &Two, call: Call) -> Answer {
    const LOCK: &str = "UPDATE conversations SET last_seq = last_seq WHERE id = $1";
    const REMOVE: &str = "DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2";
    let mut tx: Tx = two.app.state.db.begin().await.unwrap();
    query(&mut tx, LOCK).bind(two.of_alice).execute().await.unwrap();
    let waiting = tokio::spawn(call.send());
    sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "it waits for whoever changes the conversation");
    query(&mut tx, REMOVE).bind(two.of_alice).bind(two.alice).execute().await.unwrap();
    tx.commit().await.unwrap();
    waiting.await.unwrap()
}

/// Lets Alice in again.
async fn let_in(app: &TestApp, two: &Two) {
    let body = json!({"user_id": two.alice});
    app.post(&participants(two.of_alice), body).key(&two.key).send().await.expect(201);
}

pub async fn who_was_sent_away_cannot_let_themselves_in_again(backend: Backend) {
    let two = Two::new(&backend).await;
    let path = participants(two.of_alice);
    for body in [json!({"user_id": two.alice}), json!({"username": "bob"})] {
        let answer = while_she_is_sent_away(&two, two.post(&path, body)).await;
        answer.refused(404, NEITHER);
        let left = two.app.get(&talk(two.of_alice)).key(&two.key).send().await.expect(200);
        assert_eq!(left["participants"], json!([]));
        let_in(&two.app, &two).await;
    }
}

pub async fn an_append_that_waited_for_the_end_of_a_membership_is_not_found(backend: Backend) {
    let two = Two::new(&backend).await;
    let (path, own) = (messages(two.of_alice), two.said(two.of_alice, two.alice).await);
    let message = format!("{path}/{own}");
    let edit = || two.app.patch(&message, json!({"content": "x"})).session(&two.as_alice);
    for call in [
        two.post(&path, says()),
        two.post(&path, says()).header("Idempotency-Key", "a"),
        two.post(&format!("{path}/batch"), json!({"messages": [says(), says()]})),
        edit(),
        two.delete(&message),
    ] {
        while_she_is_sent_away(&two, call).await.refused(404, NOT_FOUND);
        let_in(&two.app, &two).await;
    }
    let kept = two.app.get(&talk(two.of_alice)).key(&two.key).send().await.expect(200);
    assert_eq!((&kept["message_count"], &kept["messages"][0]["version"]), (&json!(1), &json!(1)));
}
