//! Tickets: credentials in the URL for event streams in browsers.

use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use octopus::core::key_format::{TICKET_PREFIX, is_token};
use octopus::features::conversations::events::forget_old;
use octopus::security::secret::{SecretHash, TokenKind};
use serde_json::json;

const INVALID: &str = "Invalid or expired ticket";

fn events(id: i64) -> String {
    format!("/api/v1/conversations/{id}/events")
}

fn tickets(id: i64) -> String {
    format!("/api/v1/conversations/{id}/events/ticket")
}

/// The path that a browser opens.
fn with(id: i64, ticket: &str) -> String {
    format!("{}?ticket={ticket}", events(id))
}

impl TestApp {
    /// Issues a ticket with `key`.
    async fn ticket(&self, key: &str, id: i64) -> String {
        let answer = self.act(&tickets(id)).key(key).send().await.expect(201);
        answer["ticket"].as_str().unwrap().to_owned()
    }
}

#[apply(on_both!)]
async fn a_ticket_opens_a_stream_once(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let id = app.conversation(&key, &[alice]).await;
    let token = app.session_of(alice).await;
    let answer = app.act(&tickets(id)).session(&token).send().await.expect(201);
    let ticket = answer["ticket"].as_str().unwrap();
    assert!(is_token(TICKET_PREFIX, ticket), "{ticket}");
    assert!(answer["expires_at"].as_str().unwrap().ends_with('Z'));
    let stored: Vec<(Vec<u8>,)> = app.rows("SELECT token_hash FROM event_tickets").await;
    assert_eq!(stored, [(SecretHash::of(ticket).to_vec(),)], "its hash alone is stored");

    let mut stream = app.get(&with(id, ticket)).subscribe().await;
    app.get(&with(id, ticket)).send().await.refused(401, INVALID);
    let body = json!({"role": "user", "content": "hello"});
    app.post(&format!("/api/v1/conversations/{id}/messages"), body)
        .session(&token)
        .send()
        .await
        .expect(201);
    let event = stream.next().await.unwrap();
    assert_eq!(
        event.data["user"],
        json!({"id": alice, "username": "alice", "email": "alice@example.com"})
    );
    app.act("/api/v1/users/logout").session(&token).send().await.expect(204);
    stream.ends("credential_ended").await;
}

#[apply(on_both!)]
async fn an_invalid_ticket_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (id, other) = (app.conversation(&key, &[]).await, app.conversation(&key, &[]).await);
    let never_issued = TokenKind::Ticket.generate(&mut rand::rng());
    for wrong in ["", "x", "octe_", &key, never_issued.expose()] {
        let refused = app.get(&with(id, wrong)).send().await;
        assert!(refused.header("www-authenticate").is_some());
        refused.refused(401, INVALID);
    }
    let ticket = app.ticket(&key, id).await;
    app.get(&with(other, &ticket)).send().await.refused(401, INVALID);
    app.get(&format!("/api/v1/conversations/{id}?ticket={ticket}"))
        .send()
        .await
        .invalid(&["query.ticket"]);
    drop(app.get(&with(id, &ticket)).subscribe().await);
    let ticket = app.ticket(&key, id).await;
    app.advance(TimeDelta::seconds(60));
    app.get(&with(id, &ticket)).send().await.refused(401, INVALID);
}

#[apply(on_both!)]
async fn a_ticket_is_valid_only_while_its_credential_is(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let alice = app.user("alice").await;
    let id = app.conversation(&admin, &[alice]).await;

    let (key, key_id) = app.key(&admin, "conversations:read").await;
    let [before, after, last] = [(); 3].map(|()| app.ticket(&key, id));
    let (before, after, last) = (before.await, after.await, last.await);
    let stream = app.get(&with(id, &before)).subscribe().await;
    let path = format!("/api/v1/api-keys/{key_id}");
    app.patch(&path, json!({"scopes": "users:read"})).key(&admin).send().await.expect(200);
    let refused = app.get(&with(id, &after)).send().await;
    refused.refused(403, "Read scope required to subscribe to conversations");
    app.act(&format!("{path}/deactivate")).key(&admin).send().await.expect(200);
    app.get(&with(id, &last)).send().await.refused(401, INVALID);
    stream.ends("credential_ended").await;

    let token = app.session_of(alice).await;
    let issued = app.act(&tickets(id)).session(&token).send().await.expect(201);
    let leaving = format!("/api/v1/conversations/{id}/participants/{alice}");
    app.delete(&leaving).session(&token).send().await.expect(204);
    let ticket = issued["ticket"].as_str().unwrap();
    app.get(&with(id, ticket)).send().await.refused(404, "Conversation not found");
}

#[apply(on_both!)]
async fn issuing_a_ticket_requires_read_access_to_the_conversation(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let id = app.conversation(&key, &[alice]).await;
    let bob_session = app.session_of(bob).await;
    app.act(&tickets(id)).session(&bob_session).send().await.refused(404, "Conversation not found");
    app.act(&tickets(999)).key(&key).send().await.refused(404, "Conversation not found");
    app.act(&tickets(id))
        .send()
        .await
        .refused(401, "API key required: send it in the header field Octopus-API-Key");
    app.post(&tickets(id), json!({"x": 1})).key(&key).send().await.invalid(&["body.x"]);
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM event_tickets").await, 0);
}

#[apply(on_both!)]
async fn a_ticket_and_a_credential_are_refused_together(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    let ticket = app.ticket(&key, id).await;
    let both = app.get(&with(id, &ticket)).key(&key).send().await;
    both.refused(400, "Send either a ticket or a credential, not both");
    // A credential of a gateway is not one of this server.
    drop(
        app.get(&with(id, &ticket)).header("Authorization", "Bearer eyJhbGciOi").subscribe().await,
    );
}

#[apply(on_both!)]
async fn bad_tickets_are_limited_and_good_ones_count_for_their_issuer(backend: Backend) {
    let limits = [
        ("RATE_LIMIT_IP_PER_MINUTE", "4"),
        ("RATE_LIMIT_AUTH_FAILURES_PER_MINUTE", "3"),
        ("RATE_LIMIT_USER_PER_MINUTE", "12"),
    ];
    let app = TestApp::with(&backend, &limits).await;
    let key = app.admin().await;
    let alice = app.user("alice").await;
    let id = app.conversation(&key, &[alice]).await;
    let token = app.session_of(alice).await;
    // More requests than a client without a credential may send.
    for _ in 0..6 {
        let issued = app.act(&tickets(id)).session(&token).send().await.expect(201);
        drop(app.get(&with(id, issued["ticket"].as_str().unwrap())).subscribe().await);
    }
    assert_eq!(app.act(&tickets(id)).session(&token).send().await.status, 429);
    for _ in 0..3 {
        app.get(&with(id, "octe_guessed")).send().await.refused(401, INVALID);
    }
    let limited = app.get(&with(id, "octe_guessed")).send().await;
    assert_eq!(limited.header("ratelimit-policy"), Some(r#""auth-failures";q=3;w=60"#));
    limited.refused(429, "Rate limit exceeded: 3 per 1 minute");
    let counted = app.state.failures.take();
    assert!(
        counted
            .iter()
            .any(|f| f.of.map(|(_, reason)| reason) == Some("ticket_invalid") && f.count == 4),
        "{counted:?}"
    );
    // A ticket has no effect on other routes.
    assert_eq!(app.get("/api/v1/users?ticket=octe_x").send().await.status, 429);
}

#[apply(on_both!)]
async fn old_tickets_are_deleted(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let id = app.conversation(&key, &[]).await;
    app.ticket(&key, id).await;
    app.advance(TimeDelta::seconds(59));
    let fresh = app.ticket(&key, id).await;
    app.advance(TimeDelta::seconds(1));
    forget_old(&app.state).await.unwrap();
    assert_eq!(app.number("SELECT CAST(COUNT(*) AS BIGINT) FROM event_tickets").await, 1);
    drop(app.get(&with(id, &fresh)).subscribe().await);
}
