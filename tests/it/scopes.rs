//! What each route needs: one row for every operation, tried with no key, a wrong one, each scope,
//! and a session, good and bad. A route without a row fails.

use crate::support::{Answer, Backend, Call, TestApp, tests};
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeSet;

tests!(on_both: [
    every_operation_needs_what_its_row_says,
    every_operation_lets_a_session_do_what_its_row_says,
    scopes_on_a_key_add_up_and_admin_may_do_everything,
], once: [
    every_operation_has_exactly_one_row,
]);

/// What a caller needs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Needs {
    Nothing,
    AnyKey,
    /// A key with this scope, or one that includes it.
    Scope(&'static str),
    /// The same, or somebody logged in.
    ScopeOrUser(&'static str),
    /// Somebody logged in, and no key.
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
const SEE_TALKS: Needs = ScopeOrUser("conversations:read");
const TALK: Needs = ScopeOrUser("conversations:write");

/// A path below one conversation.
macro_rules! talk {
    ($rest:literal) => {
        concat!("/api/v1/conversations/{conversation_id}", $rest)
    };
}

const ROWS: &[(&str, &str, Needs)] = &[
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
    ("get", "/api/v1/conversations", SEE_TALKS),
    ("post", "/api/v1/conversations", TALK),
    ("get", "/api/v1/conversations/search", SEE_TALKS),
    ("post", "/api/v1/conversations/import", ADMIN),
    ("get", "/api/v1/conversations/user/{user_id}", SEE_TALKS),
    ("get", talk!(""), SEE_TALKS),
    ("put", talk!(""), Scope("conversations:write")),
    ("delete", talk!(""), Scope("conversations:write")),
    ("get", talk!("/events"), SEE_TALKS),
    ("post", talk!("/events/ticket"), SEE_TALKS),
    ("get", talk!("/export"), SEE_TALKS),
    ("get", talk!("/messages"), SEE_TALKS),
    ("post", talk!("/messages"), TALK),
    ("post", talk!("/messages/batch"), TALK),
    ("get", talk!("/messages/{message_id}"), SEE_TALKS),
    ("patch", talk!("/messages/{message_id}"), TALK),
    ("delete", talk!("/messages/{message_id}"), TALK),
    ("get", talk!("/participants"), SEE_TALKS),
    ("post", talk!("/participants"), TALK),
    ("delete", talk!("/participants/{user_id}"), TALK),
    ("get", talk!("/search"), SEE_TALKS),
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

/// Each operation's method and path, with the scope that a key needs for it, if it needs one.
pub fn scopes_of_rows() -> impl Iterator<Item = (&'static str, &'static str, Option<&'static str>)>
{
    ROWS.iter().map(|(method, path, needs)| match needs {
        Scope(scope) | ScopeOrUser(scope) => (*method, *path, Some(*scope)),
        Nothing | AnyKey | User => (*method, *path, None),
    })
}

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
    let rows: BTreeSet<_> =
        ROWS.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    let missing: Vec<_> = operations.difference(&rows).collect();
    let surplus: Vec<_> = rows.difference(&operations).collect();
    assert!(missing.is_empty(), "operations without a row: {missing:?}");
    assert!(surplus.is_empty(), "rows without an operation: {surplus:?}");
    assert_eq!(rows.len(), ROWS.len(), "an operation has two rows");
}

async fn every_operation_needs_what_its_row_says(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let admin = app.admin().await;
    let mut keys = vec![];
    for scope in SCOPES {
        keys.push((scope, app.key(&admin, scope).await.0));
    }
    let wrong = "a-key-that-nobody-ever-made-0123456789";
    for (method, path, needs) in ROWS.iter().copied() {
        let place = format!("{method} {path}");
        let nobody = call(&app, method, path).send().await;
        let stranger = call(&app, method, path).key(wrong).send().await;
        if needs == Nothing {
            let_in(&nobody, &format!("{place} without a key"));
            let_in(&stranger, &format!("{place} with a wrong key"));
        } else {
            turned_away(&nobody, "API key required", &place);
            turned_away(&stranger, "Invalid or inactive API Key", &place);
        }
        for (scope, key) in &keys {
            let answer = call(&app, method, path).key(key).send().await;
            let place = format!("{place} with {scope}");
            let (Scope(needed) | ScopeOrUser(needed)) = needs else {
                if needs == User {
                    answer.refused(403, "A logged-in user is required");
                } else {
                    let_in(&answer, &place);
                }
                continue;
            };
            if [needed, broad(needed), "admin"].contains(scope) {
                let_in(&answer, &place);
                continue;
            }
            assert_eq!(answer.status, 403, "{place}: {}", answer.text);
            let detail = answer["detail"].as_str().expect(&place).to_lowercase();
            let start = format!("{} scope required to ", broad(needed));
            assert!(detail.len() > start.len() && detail.starts_with(&start), "{detail}");
            let challenge = answer.header("www-authenticate").expect(&place);
            let told = format!(r#"error="insufficient_scope", scope="{needed}""#);
            assert!(challenge.starts_with("Bearer ") && challenge.ends_with(&told), "{challenge}");
        }
    }
}

async fn every_operation_lets_a_session_do_what_its_row_says(backend: Backend) {
    let app = TestApp::new(&backend).await;
    app.admin().await;
    app.user("ada").await;
    let ended = app.login("ada").await;
    app.act("/api/v1/users/logout").session(&ended).send().await.expect(204);
    for (method, path, needs) in ROWS.iter().copied() {
        let place = format!("{method} {path} with a session");
        // What it is allowed may be to end itself.
        let token = app.login("ada").await;
        let answer = call(&app, method, path).session(&token).send().await;
        let stranger = call(&app, method, path).session(&ended).send().await;
        let hidden = call(&app, method, path).key(&token).send().await;
        if needs == Nothing {
            let_in(&stranger, &place);
            let_in(&hidden, &place);
        } else {
            turned_away(&stranger, "Invalid or expired session", &place);
            turned_away(&hidden, "Invalid or inactive API Key", &place);
        }
        match needs {
            Nothing | ScopeOrUser(_) | User => let_in(&answer, &place),
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

/// The broad scope that `scope` is, or is a part of.
fn broad(scope: &'static str) -> &'static str {
    match scope.rsplit_once(':') {
        None => scope,
        Some(("audit", _)) => "admin",
        Some((_, "read")) => "read",
        Some((_, "write")) => "write",
        _ => "admin",
    }
}

async fn scopes_on_a_key_add_up_and_admin_may_do_everything(backend: Backend) {
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

/// Calls an operation for things that do not exist, with a body that lacks what it needs.
fn call(app: &TestApp, method: &str, path: &str) -> Call {
    let steps = path.split('/').map(|step| if step.starts_with('{') { "999999" } else { step });
    let path = steps.collect::<Vec<_>>().join("/");
    let method: Method = method.to_uppercase().parse().unwrap();
    let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
    let call = app.call(method, &path);
    if has_body { call.json(json!({})) } else { call }
}

#[track_caller]
fn let_in(answer: &Answer, place: &str) {
    let refused = [401, 403, 405].contains(&answer.status) || answer.is_server_error();
    // A path that no row meant to name would be let in, too.
    let no_route = answer.status == 404 && answer["detail"] == "Not Found";
    assert!(!refused && !no_route, "{place}: {} {}", answer.status, answer.text);
}

#[track_caller]
fn turned_away(answer: &Answer, detail: &str, place: &str) {
    assert_eq!(answer.status, 401, "{place}: {}", answer.text);
    assert_eq!(answer["detail"], detail, "{place}");
    assert!(answer.header("www-authenticate").is_some(), "{place}");
}
