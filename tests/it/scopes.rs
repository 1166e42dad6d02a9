//! The credential that each route requires: one row per operation, tested without a key, with a
//! wrong key, with each scope, and with valid and ended sessions. A route without a row fails the
//! test.

use crate::support::{Answer, Backend, Call, TestApp};
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeSet;

/// The credential that an operation requires.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Needs {
    Nothing,
    AnyKey,
    /// A key with this scope, or with one that includes it.
    Scope(&'static str),
    /// A key as above, or a signed-in user.
    ScopeOrUser(&'static str),
    /// A signed-in user; no key is accepted.
    User,
}
use Needs::{AnyKey, Nothing, Scope, ScopeOrUser, User};

const SCOPES: [&str; 11] = [
    "admin",
    "read",
    "write",
    "conversations:read",
    "conversations:write",
    "users:read",
    "users:write",
    "items:read",
    "items:write",
    "audit:read",
    "keys:verify",
];

const ADMIN: Needs = Scope("admin");
const READ_CONVERSATIONS: Needs = ScopeOrUser("conversations:read");
const WRITE_CONVERSATIONS: Needs = ScopeOrUser("conversations:write");

/// A path below one conversation.
macro_rules! conversation_path {
    ($rest:literal) => {
        concat!("/api/v1/conversations/{conversation_id}", $rest)
    };
}

const REQUIREMENTS: &[(&str, &str, Needs)] = &[
    ("get", "/", Nothing),
    ("get", "/health", Nothing),
    ("get", "/ready", Nothing),
    ("post", "/bootstrap", Nothing),
    ("get", "/api/v1/api-keys", ADMIN),
    ("post", "/api/v1/api-keys", ADMIN),
    ("get", "/api/v1/api-keys/me", AnyKey),
    ("post", "/api/v1/api-keys/verify", Scope("keys:verify")),
    ("get", "/api/v1/api-keys/audit-logs", Scope("audit:read")),
    ("get", "/api/v1/api-keys/expiring", ADMIN),
    ("post", "/api/v1/api-keys/cleanup-expired", ADMIN),
    ("get", "/api/v1/api-keys/{api_key_id}", ADMIN),
    ("patch", "/api/v1/api-keys/{api_key_id}", ADMIN),
    ("delete", "/api/v1/api-keys/{api_key_id}", ADMIN),
    ("post", "/api/v1/api-keys/{api_key_id}/deactivate", ADMIN),
    ("post", "/api/v1/api-keys/{api_key_id}/rotate", ADMIN),
    ("get", "/api/v1/api-keys/{api_key_id}/usage", ADMIN),
    ("get", "/api/v1/users", Scope("users:read")),
    ("post", "/api/v1/users", Nothing),
    ("post", "/api/v1/users/login", Nothing),
    ("post", "/api/v1/users/logout", User),
    ("get", "/api/v1/users/me", User),
    ("put", "/api/v1/users/me", User),
    ("delete", "/api/v1/users/me", User),
    ("get", "/api/v1/users/me/export", User),
    ("get", "/api/v1/users/me/sessions", User),
    ("delete", "/api/v1/users/me/sessions", User),
    ("delete", "/api/v1/users/me/sessions/{session_id}", User),
    ("post", "/api/v1/users/password-reset", Nothing),
    ("post", "/api/v1/users/{user_id}/password-reset", ADMIN),
    ("get", "/api/v1/users/{user_id}/export", Scope("read")),
    ("get", "/api/v1/users/{user_id}", Scope("users:read")),
    ("put", "/api/v1/users/{user_id}", Scope("users:write")),
    ("delete", "/api/v1/users/{user_id}", ADMIN),
    ("get", "/api/v1/users/username/{username}", Nothing),
    ("get", "/api/v1/conversations", READ_CONVERSATIONS),
    ("post", "/api/v1/conversations", WRITE_CONVERSATIONS),
    ("get", "/api/v1/conversations/search", READ_CONVERSATIONS),
    ("post", "/api/v1/conversations/import", ADMIN),
    ("get", "/api/v1/conversations/user/{user_id}", READ_CONVERSATIONS),
    ("get", conversation_path!(""), READ_CONVERSATIONS),
    ("put", conversation_path!(""), Scope("conversations:write")),
    ("delete", conversation_path!(""), Scope("conversations:write")),
    ("get", conversation_path!("/events"), READ_CONVERSATIONS),
    ("post", conversation_path!("/events/ticket"), READ_CONVERSATIONS),
    ("get", conversation_path!("/export"), READ_CONVERSATIONS),
    ("get", conversation_path!("/messages"), READ_CONVERSATIONS),
    ("post", conversation_path!("/messages"), WRITE_CONVERSATIONS),
    ("post", conversation_path!("/messages/batch"), WRITE_CONVERSATIONS),
    ("get", conversation_path!("/messages/{message_id}"), READ_CONVERSATIONS),
    ("patch", conversation_path!("/messages/{message_id}"), WRITE_CONVERSATIONS),
    ("delete", conversation_path!("/messages/{message_id}"), WRITE_CONVERSATIONS),
    ("get", conversation_path!("/participants"), READ_CONVERSATIONS),
    ("post", conversation_path!("/participants"), WRITE_CONVERSATIONS),
    ("delete", conversation_path!("/participants/{user_id}"), WRITE_CONVERSATIONS),
    ("get", conversation_path!("/search"), READ_CONVERSATIONS),
    ("get", "/api/v1/items", Scope("items:read")),
    ("post", "/api/v1/items", Scope("items:write")),
    ("get", "/api/v1/items/{item_id}", Scope("items:read")),
    ("put", "/api/v1/items/{item_id}", Scope("items:write")),
    ("delete", "/api/v1/items/{item_id}", Scope("items:write")),
    ("post", "/api/v1/admin", ADMIN),
    ("get", "/api/v1/admin/stats", ADMIN),
    ("get", "/api/v1/admin/audit/verify", Scope("audit:read")),
    ("get", "/api/v1/audit/export", Scope("audit:read")),
];

/// Each operation's method and path, and the scope that a key needs for it, if any.
pub fn scopes_of_rows() -> impl Iterator<Item = (&'static str, &'static str, Option<&'static str>)>
{
    REQUIREMENTS.iter().map(|(method, path, needs)| match needs {
        Scope(scope) | ScopeOrUser(scope) => (*method, *path, Some(*scope)),
        Nothing | AnyKey | User => (*method, *path, None),
    })
}

#[apply(without_database!)]
fn every_operation_has_exactly_one_row() {
    let document = serde_json::to_value(octopus::api::document()).unwrap();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if !["summary", "description", "servers", "parameters"].contains(&method.as_str()) {
                operations.insert((method.clone(), path.clone()));
            }
        }
    }
    let rows: BTreeSet<_> = REQUIREMENTS
        .iter()
        .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    let missing: Vec<_> = operations.difference(&rows).collect();
    let surplus: Vec<_> = rows.difference(&operations).collect();
    assert!(missing.is_empty(), "operations without a row: {missing:?}");
    assert!(surplus.is_empty(), "rows without an operation: {surplus:?}");
    assert_eq!(rows.len(), REQUIREMENTS.len(), "an operation has two rows");
}

#[apply(on_both!)]
async fn every_operation_requires_the_credential_of_its_row(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let mut keys = vec![];
    for scope in SCOPES {
        keys.push((scope, app.key(&admin, scope).await.0));
    }
    let wrong = "a-key-that-nobody-ever-made-0123456789";
    for (method, path, needs) in REQUIREMENTS.iter().copied() {
        let place = format!("{method} {path}");
        let anonymous = call(&app, method, path).send().await;
        let rejected = call(&app, method, path).key(wrong).send().await;
        if needs == Nothing {
            assert_allowed(&anonymous, &format!("{place} without a key"));
            assert_allowed(&rejected, &format!("{place} with a wrong key"));
        } else {
            assert_unauthorized(
                &anonymous,
                "API key required: send it in the header field Octopus-API-Key",
                &place,
            );
            assert_unauthorized(&rejected, "Invalid or inactive API Key", &place);
        }
        for (scope, key) in &keys {
            let answer = call(&app, method, path).key(key).send().await;
            let place = format!("{place} with {scope}");
            let (Scope(needed) | ScopeOrUser(needed)) = needs else {
                if needs == User {
                    answer.refused(403, "A signed-in user is required");
                } else {
                    assert_allowed(&answer, &place);
                }
                continue;
            };
            if [needed, broad(needed), "admin"].contains(scope) {
                assert_allowed(&answer, &place);
                continue;
            }
            assert_eq!(answer.status, 403, "{place}: {}", answer.text);
            let detail = answer["detail"].as_str().expect(&place).to_lowercase();
            let start = format!("{} scope required to ", broad(needed));
            assert!(detail.len() > start.len() && detail.starts_with(&start), "{detail}");
            let challenge = answer.header("www-authenticate").expect(&place);
            let scope_error = format!(r#"error="insufficient_scope", scope="{needed}""#);
            assert!(
                challenge.starts_with("Bearer ") && challenge.ends_with(&scope_error),
                "{challenge}"
            );
        }
    }
}

#[apply(on_both!)]
async fn every_operation_accepts_sessions_according_to_its_row(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.admin().await;
    app.user("ada").await;
    let ended = app.login("ada").await;
    app.act("/api/v1/users/logout").session(&ended).send().await.expect(204);
    for (method, path, needs) in REQUIREMENTS.iter().copied() {
        let place = format!("{method} {path} with a session");
        // A new session each time, as the operation may end it.
        let token = app.login("ada").await;
        let answer = call(&app, method, path).session(&token).send().await;
        let rejected = call(&app, method, path).session(&ended).send().await;
        let token_as_key = call(&app, method, path).key(&token).send().await;
        if needs == Nothing {
            assert_allowed(&rejected, &place);
            assert_allowed(&token_as_key, &place);
        } else {
            assert_unauthorized(&rejected, "Invalid or expired session", &place);
            assert_unauthorized(&token_as_key, "Invalid or inactive API Key", &place);
        }
        match needs {
            Nothing | ScopeOrUser(_) | User => assert_allowed(&answer, &place),
            AnyKey => answer.refused(403, "An API key is required to do this"),
            Scope(needed) => {
                assert_eq!(answer.status, 403, "{place}: {}", answer.text);
                let detail = answer["detail"].as_str().expect(&place).to_lowercase();
                let start = format!("{} scope required to ", broad(needed));
                assert!(detail.starts_with(&start), "{place}: {detail}");
            }
        }
    }
}

/// The broad scope that `scope` is or belongs to.
fn broad(scope: &'static str) -> &'static str {
    match scope.rsplit_once(':') {
        None => scope,
        Some(("audit", _)) => "admin",
        Some((_, "read")) => "read",
        Some((_, "write")) => "write",
        _ => "admin",
    }
}

#[apply(on_both!)]
async fn scopes_of_a_key_add_up_and_admin_includes_all(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let (both, _) = app.key(&admin, "write,read").await;
    app.get("/api/v1/items").key(&both).send().await.expect(200);
    let item = json!({"item_id": "a", "name": "A"});
    app.post("/api/v1/items", item).key(&both).send().await.expect(201);
    let refused = app.get("/api/v1/api-keys").key(&both).send().await;
    refused.refused(403, "Admin scope required to read API keys");

    let (only_admin, _) = app.key(&admin, "admin").await;
    app.get("/api/v1/items/a").key(&only_admin).send().await.expect(200);
    app.delete("/api/v1/items/a").key(&only_admin).send().await.expect(204);
}

/// Calls an operation with ids that do not exist and an empty body.
fn call(app: &TestApp, method: &str, path: &str) -> Call {
    let steps = path.split('/').map(|step| if step.starts_with('{') { "999999" } else { step });
    let path = steps.collect::<Vec<_>>().join("/");
    let method: Method = method.to_uppercase().parse().unwrap();
    let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
    let call = app.call(method, &path);
    if has_body { call.json(json!({})) } else { call }
}

#[track_caller]
fn assert_allowed(answer: &Answer, place: &str) {
    let refused = [401, 403, 405].contains(&answer.status) || answer.is_server_error();
    // An unknown path would count as allowed, too.
    let no_route = answer.status == 404 && answer["detail"] == "Not Found";
    assert!(!refused && !no_route, "{place}: {} {}", answer.status, answer.text);
}

#[track_caller]
fn assert_unauthorized(answer: &Answer, detail: &str, place: &str) {
    assert_eq!(answer.status, 401, "{place}: {}", answer.text);
    assert_eq!(answer["detail"], detail, "{place}");
    assert!(answer.header("www-authenticate").is_some(), "{place}");
}
