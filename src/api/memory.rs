//! Charges large bodies and answers to whoever sent the request.

use crate::core::error::Result;
use crate::http::{Account, Meter, charged, may_write};
use crate::security::Caller;
use crate::state::AppState;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

/// What part of the budget a key may use: often all users of an application share it.
const OF_KEY: usize = 2;
/// What part a signed-in user may use.
const OF_USER: usize = 8;
/// What part all other callers may use together. Most of them get small answers.
const OF_OTHERS: usize = 4;

/// The route of imports.
const IMPORT: &str = "/api/v1/conversations/import";

/// Bounds the memory that requests of an account take. Inside `authenticate`, which leaves a
/// [`Caller`] on the request.
pub async fn bound(State(app): State<AppState>, request: Request, next: Next) -> Result<Response> {
    let is_read = request.method().is_safe();
    let account = account(&app, request.extensions().get::<Caller>(), is_read);
    if is_read {
        return Ok(charged(next.run(request).await, &account, true, None));
    }
    may_write(&account)?;
    if is_import(&request) {
        return Ok(charged(next.run(request).await, &account, false, None));
    }
    let (request, meter) = Meter::on(request, &account);
    Ok(charged(next.run(request).await, &account, false, meter.as_ref()))
}

/// Whether its lines are worked on one by one.
fn is_import(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>();
    route.is_some_and(|route| route.as_str() == IMPORT)
}

fn account(app: &AppState, caller: Option<&Caller>, is_read: bool) -> Account {
    match caller {
        Some(Caller::Known(actor)) => app.memory.account(("key", actor.key_id()), OF_KEY),
        Some(Caller::LoggedIn(user)) => app.memory.account(("user", user.user_id()), OF_USER),
        // Apart from signing in and registering: streams that are opened with a ticket must not use
        // up what these need.
        Some(Caller::Unknown(_)) | None if is_read => app.memory.account(("readers", 0), OF_OTHERS),
        Some(Caller::Unknown(_)) | None => app.memory.account(("others", 0), OF_OTHERS),
    }
}
