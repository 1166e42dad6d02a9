//! The credential that each operation requires: without a key, with a wrong key, with each scope,
//! and with valid and ended sessions.

use super::Needs::{AnyKey, Nothing, Scope, ScopeOrUser, User};
use super::OperationOf;
use super::operation::scopes;
use crate::support::{Answer, Backend, Call, TestApp};
use reqwest::Method;
use serde_json::json;

/// Calls each operation without a key, with a wrong key, and with a key of each scope.
///
/// # Panics
/// If an operation accepts another credential than it needs, or refuses that.
pub async fn check_credentials<W: 'static>(
    backend: &Backend,
    operations: impl IntoIterator<Item = &'static OperationOf<W>>,
) {
    let app = TestApp::new(backend).await;
    let admin = app.admin().await;
    let mut keys = vec![];
    for scope in scopes() {
        keys.push((scope, app.key(&admin, scope).await.0));
    }
    let wrong = "a-key-that-nobody-ever-made-0123456789";
    for OperationOf { method, path, needs, .. } in operations {
        let needs = *needs;
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

/// Calls each operation with a valid and with an ended session.
///
/// # Panics
/// If an operation accepts a session that it should refuse, or refuses one that it should accept.
pub async fn check_sessions<W: 'static>(
    backend: &Backend,
    operations: impl IntoIterator<Item = &'static OperationOf<W>>,
) {
    let app = TestApp::new(backend).await;
    app.admin().await;
    app.user("ada").await;
    let ended = app.login("ada").await;
    app.act("/api/v1/users/logout").session(&ended).send().await.expect(204);
    for OperationOf { method, path, needs, .. } in operations {
        let needs = *needs;
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
