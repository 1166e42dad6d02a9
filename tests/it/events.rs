//! Event streams of conversations: their contents, visibility, resumption and end.

use crate::support::{Backend, Event, Events, TestApp};
use octopus::security::secret::TokenKind;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

fn conversation_path(id: i64) -> String {
    format!("/api/v1/conversations/{id}")
}

fn events(id: i64) -> String {
    format!("/api/v1/conversations/{id}/events")
}

async fn post_message(app: &TestApp, key: &str, id: i64, content: &str) -> Value {
    let body = json!({"role": "user", "content": content});
    app.post(&format!("{}/messages", conversation_path(id)), body).key(key).send().await.expect(201)
}

fn contents(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.data["content"].as_str().unwrap()).collect()
}

#[apply(on_both!)]
async fn every_kind_of_event_comes_in_order(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let id = app.conversation(&key, &[alice]).await;
    let mut stream = app.get(&events(id)).key(&key).subscribe().await;
    let fields = stream.response().headers();
    assert_eq!(fields["content-type"], "text/event-stream");
    assert_eq!(
        (&fields["cache-control"], &fields["x-accel-buffering"]),
        (&"no-store".parse().unwrap(), &"no".parse().unwrap())
    );
    let start_id = stream.last_id.unwrap();

    let new_message = json!({"role": "user", "content": "Hello 🐙\n", "user_id": alice});
    let path = format!("{}/messages", conversation_path(id));
    let message = app.post(&path, new_message).key(&key).send().await.expect(201);
    let participants = format!("{}/participants", conversation_path(id));
    app.post(&participants, json!({"user_id": bob})).key(&key).send().await.expect(201);
    app.delete(&format!("{participants}/{bob}")).key(&key).send().await.expect(200);
    let renamed = json!({"title": "renamed", "metadata": {"a": [1, "\n"]}});
    app.put(&conversation_path(id), renamed).key(&key).send().await.expect(200);
    app.put(&conversation_path(id), json!({"title": "renamed"})).key(&key).send().await.expect(200);

    let received = stream.take(4).await;
    let kinds: Vec<&str> = received.iter().map(|event| &*event.kind).collect();
    let expected =
        ["message.created", "participant.added", "participant.removed", "conversation.updated"];
    assert_eq!(kinds, expected);
    assert_eq!(received[0].data, message, "as the messages route shows it");
    assert_eq!(received[1].data, json!({"id": bob, "username": "bob"}));
    assert_eq!(received[2].data, received[1].data);
    let conversation = json!({"id": id, "title": "renamed", "metadata": {"a": [1, "\n"]}});
    assert_eq!(received[3].data, conversation);

    let path = format!("{path}/{}", message["id"]);
    app.patch(&path, json!({"content": "Hi"})).key(&key).send().await.expect(200);
    let edited = stream.next().await.unwrap();
    assert_eq!((&*edited.kind, &edited.data["content"]), ("message.edited", &json!("Hi")));
    app.delete(&path).key(&key).send().await.expect(204);
    let deleted = stream.next().await.unwrap();
    assert_eq!((&*deleted.kind, &deleted.data["content"]), ("message.deleted", &json!("")));
    assert!(deleted.data["deleted_at"].is_string() && deleted.data["version"] == 3);

    let ids: Vec<i64> = received.iter().chain([&edited, &deleted]).map(|e| e.id.unwrap()).collect();
    assert!(ids[0] > start_id && ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[apply(on_both!)]
async fn a_stream_resumes_after_last_event_id(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (id, other) = (app.conversation(&key, &[]).await, app.conversation(&key, &[]).await);
    for n in 0..250 {
        post_message(&app, &key, id, &n.to_string()).await;
        if n % 50 == 0 {
            post_message(&app, &key, other, "elsewhere").await;
        }
    }
    let mut whole = app.get(&events(id)).key(&key).header("Last-Event-ID", "0").subscribe().await;
    let all = whole.take(250).await;
    assert!(contents(&all).iter().enumerate().all(|(n, text)| *text == n.to_string()));

    let seen = all[99].id.unwrap().to_string();
    let query = format!("{}?last_event_id={seen}", events(id));
    let polyfill = app.get(&format!("{}?lastEventId={seen}", events(id)));
    let field = app.get(&events(id)).header("Last-Event-ID", &seen);
    for call in [field, app.get(&query), polyfill] {
        assert_eq!(call.key(&key).subscribe().await.take(150).await, all[100..]);
    }
    // A reconnecting browser sends both; the header field is newer than the query.
    let both = app.get(&format!("{}?last_event_id=0", events(id))).header("Last-Event-ID", &seen);
    assert_eq!(both.key(&key).subscribe().await.take(150).await, all[100..]);

    // Without an id, or with an id that does not exist yet, the stream starts at new events.
    let now = app.get(&events(id)).key(&key).subscribe().await;
    let never =
        app.get(&events(id)).key(&key).header("Last-Event-ID", "999999999").subscribe().await;
    post_message(&app, &key, id, "new").await;
    for mut stream in [now, never] {
        assert_eq!(stream.last_id, all[249].id);
        assert_eq!(contents(&stream.take(1).await), ["new"]);
    }
}

#[apply(on_both!)]
async fn an_invalid_event_id_is_refused_with_its_location(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    for wrong in ["x", "-1", "1.5", "", "99999999999999999999", "\u{e9}"] {
        let field = app.get(&events(id)).key(&key).header("Last-Event-ID", wrong);
        field.send().await.invalid(&["header.last-event-id"]);
        for name in ["last_event_id", "lastEventId"] {
            let query = format!("{}?{name}={wrong}", events(id));
            app.get(&query).key(&key).send().await.invalid(&[&format!("query.{name}")]);
        }
    }
    app.get("/api/v1/conversations/x/events")
        .key(&key)
        .send()
        .await
        .invalid(&["path.conversation_id"]);
    assert!(app.state.live.is_empty());
}

#[apply(on_both!)]
async fn subscribing_requires_read_access_to_the_conversation(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let id = app.conversation(&key, &[alice]).await;
    let (alices, bobs) = (app.session_of(alice).await, app.session_of(bob).await);
    drop(app.get(&events(id)).session(&alices).subscribe().await);
    app.get(&events(id)).session(&bobs).send().await.refused(404, "Conversation not found");
    app.get(&events(999)).key(&key).send().await.refused(404, "Conversation not found");
    app.get(&events(id))
        .send()
        .await
        .refused(401, "API key required: send it in the header field Octopus-API-Key");
    let (narrow, _) = app.key(&key, "users:read").await;
    let refused = app.get(&events(id)).key(&narrow).send().await;
    refused.refused(403, "Read scope required to subscribe to conversations");
    let (reader, _) = app.key(&key, "conversations:read").await;
    drop(app.get(&events(id)).key(&reader).subscribe().await);
}

#[apply(on_both!)]
async fn users_see_no_email_but_their_own(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let id = app.conversation(&key, &[alice, bob]).await;
    let mut alices = app.get(&events(id)).session(&app.session_of(alice).await).subscribe().await;
    let mut by_key = app.get(&events(id)).key(&key).subscribe().await;
    for user in [alice, bob] {
        let body = json!({"role": "user", "content": "x", "user_id": user});
        app.post(&format!("{}/messages", conversation_path(id)), body)
            .key(&key)
            .send()
            .await
            .expect(201);
    }
    let emails = |events: Vec<Event>| {
        events.into_iter().map(|event| event.data["user"]["email"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(emails(alices.take(2).await), [json!("alice@example.com"), Value::Null]);
    let all = [json!("alice@example.com"), json!("bob@example.com")];
    assert_eq!(emails(by_key.take(2).await), all);
}

#[apply(on_both!)]
async fn the_content_of_a_deleted_message_is_in_no_event(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let message = post_message(&app, &key, id, "a secret").await;
    let path = format!("{}/messages/{}", conversation_path(id), message["id"]);
    app.delete(&path).key(&key).send().await.expect(204);
    let mut stream = app.get(&events(id)).key(&key).header("Last-Event-ID", "0").subscribe().await;
    let received = stream.take(2).await;
    assert_eq!((&*received[0].kind, &*received[1].kind), ("message.created", "message.deleted"));
    assert!(received.iter().all(|event| event.data["content"] == "" && event.data["version"] == 2));
}

/// Asserts that `stream` ends within nine seconds with this `reason`.
async fn ends_soon(stream: Events, reason: &str) {
    let started = Instant::now();
    stream.ends(reason).await;
    assert!(started.elapsed() < Duration::from_secs(9), "it took {:?}", started.elapsed());
}

#[apply(on_both!)]
async fn a_stream_ends_with_its_key(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let id = app.conversation(&admin, &[]).await;
    let mut streams = vec![];
    for change in ["deactivate", "delete", "scopes", "addresses", "rotate"] {
        let (key, key_id) = app.key(&admin, "conversations:read").await;
        streams.push(app.get(&events(id)).key(&key).subscribe().await);
        let path = format!("/api/v1/api-keys/{key_id}");
        let call = match change {
            "deactivate" => app.act(&format!("{path}/deactivate")),
            "delete" => app.delete(&path),
            "scopes" => app.patch(&path, json!({"scopes": "users:read"})),
            "addresses" => app.patch(&path, json!({"allowed_ips": "192.0.2.1"})),
            _ => app.act(&format!("{path}/rotate")),
        };
        let status = call.key(&admin).send().await.status;
        assert!([200, 204].contains(&status), "{change}: {status}");
    }
    let started = Instant::now();
    for stream in streams {
        stream.ends("credential_ended").await;
    }
    assert!(started.elapsed() < Duration::from_secs(9), "it took {:?}", started.elapsed());
}

#[apply(on_both!)]
async fn a_stream_ends_with_its_session(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let id = app.conversation(&key, &[alice]).await;
    let token = app.session_of(alice).await;
    let stream = app.get(&events(id)).session(&token).subscribe().await;
    app.act("/api/v1/users/logout").session(&token).send().await.expect(204);
    ends_soon(stream, "credential_ended").await;
    let token = app.session_of(alice).await;
    let stream = app.get(&events(id)).session(&token).subscribe().await;
    app.put(&format!("/api/v1/users/{alice}"), json!({"is_active": false}))
        .key(&key)
        .send()
        .await
        .expect(200);
    ends_soon(stream, "credential_ended").await;
}

#[apply(on_both!)]
async fn a_stream_ends_immediately_when_its_user_leaves_or_the_conversation_is_deleted(
    backend: Backend,
) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let id = app.conversation(&key, &[alice, bob]).await;
    let (alices, bobs) = (app.session_of(alice).await, app.session_of(bob).await);
    let of_alice = app.get(&events(id)).session(&alices).subscribe().await;
    let mut of_bob = app.get(&events(id)).session(&bobs).subscribe().await;
    sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    let path = format!("{}/participants/{alice}", conversation_path(id));
    app.delete(&path).session(&alices).send().await.expect(204);
    of_alice.ends("conversation_gone").await;
    assert_eq!(of_bob.next().await.unwrap().kind, "participant.removed");
    app.get(&events(id)).session(&alices).send().await.refused(404, "Conversation not found");
    app.delete(&conversation_path(id)).key(&key).send().await.expect(204);
    of_bob.ends("conversation_gone").await;
    assert!(started.elapsed() < Duration::from_secs(3), "it took {:?}", started.elapsed());
    for _ in 0..100 {
        if app.state.live.is_empty() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("a conversation without subscribers is still registered");
}

#[apply(on_both!)]
async fn the_twenty_first_stream_of_a_credential_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let id = app.conversation(&key, &[alice]).await;
    let sessions = [app.session_of(alice).await, app.session_of(alice).await];
    let mut open = vec![];
    for n in 0..20 {
        open.push(app.get(&events(id)).session(&sessions[n % 2]).subscribe().await);
    }
    for token in &sessions {
        let refused = app.get(&events(id)).session(token).send().await;
        assert_eq!(refused.header("retry-after"), Some("5"));
        refused.refused(429, "At most 20 event streams may be open at a time");
    }
    drop(app.get(&events(id)).key(&key).subscribe().await);
    open.pop();
    for _ in 0..100 {
        let again = app.get(&events(id)).session(&sessions[0]).open().await;
        if again.status() == 200 {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("a stream that was closed still counts");
}

#[apply(on_both!)]
async fn a_stream_outlives_every_deadline_and_sends_heartbeats(backend: Backend) {
    let variables = [
        ("RATE_LIMIT_ENABLED", "false"),
        ("IDLE_TIMEOUT_SECONDS", "2"),
        ("REQUEST_TIMEOUT_SECONDS", "1"),
        ("HEADER_TIMEOUT_SECONDS", "1"),
    ];
    let app = TestApp::with(&backend, &variables).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let call = app.get(&events(id)).key(&key).header("Accept-Encoding", "gzip, br");
    let mut stream = call.subscribe().await;
    assert!(stream.response().headers().get("content-encoding").is_none());
    let started = Instant::now();
    let mut heartbeats = 0;
    while started.elapsed() < Duration::from_secs(5) {
        assert_eq!(stream.block().await.expect("the stream stays open"), ":");
        heartbeats += 1;
    }
    assert!((4..12).contains(&heartbeats), "{heartbeats}");
    post_message(&app, &key, id, "still there?").await;
    assert_eq!(contents(&stream.take(1).await), ["still there?"]);
}

#[apply(on_both!)]
async fn changes_made_directly_in_the_database_are_streamed(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let mut stream = app.get(&events(id)).key(&key).subscribe().await;
    backend.execute("UPDATE conversations SET title = 'by hand'").await;
    let received = stream.next().await.unwrap();
    assert_eq!(
        (&*received.kind, &received.data["title"]),
        ("conversation.updated", &json!("by hand"))
    );
}

#[apply(on_both!)]
async fn a_stream_can_be_requested_with_head(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let head = app.call(Method::HEAD, &events(id)).key(&key).send().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert!(app.state.live.is_empty(), "no subscriber is registered");
    // A well-formed key that was never issued.
    let unknown = TokenKind::ApiKey.generate(&mut rand::rng());
    let head = app.call(Method::HEAD, &events(id)).key(unknown.expose()).send().await;
    assert_eq!(head.status, 401);
}

#[apply(on_both!)]
async fn stopping_ends_streams_immediately(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let mut streams = vec![];
    for _ in 0..10 {
        streams.push(app.get(&events(id)).key(&key).subscribe().await);
    }
    let started = Instant::now();
    app.stop().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "it took {:?}", started.elapsed());
    for stream in streams {
        stream.ends("server_stopping").await;
    }
}
