//! Charges the memory of large request bodies and responses to the account of the caller.

use crate::core::error::Result;
use crate::http::{Account, Meter, charged, ensure_room_to_write};
use crate::security::Caller;
use crate::state::AppState;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

/// A key may use one half of the budget: often all users of an application share one key.
const KEY_DIVISOR: usize = 2;
/// A signed-in user may use one eighth of the budget.
const USER_DIVISOR: usize = 8;
/// All other callers together may use one quarter of the budget. Most get small responses.
const OTHERS_DIVISOR: usize = 4;

/// The route that imports conversations.
const IMPORT: &str = "/api/v1/conversations/import";

/// Middleware that limits the memory of the requests of each account. Must run inside
/// `authenticate`, which stores the [`Caller`] in the request's extensions.
pub async fn bound(State(app): State<AppState>, request: Request, next: Next) -> Result<Response> {
    let is_read = request.method().is_safe();
    let account = account(&app, request.extensions().get::<Caller>(), is_read);
    if is_read {
        return Ok(charged(next.run(request).await, &account, true, None));
    }
    ensure_room_to_write(&account)?;
    if is_import(&request) {
        return Ok(charged(next.run(request).await, &account, false, None));
    }
    let (request, meter) = Meter::on(request, &account);
    Ok(charged(next.run(request).await, &account, false, meter.as_ref()))
}

/// Returns whether the request is an import, whose body is processed line by line and not held in
/// memory.
fn is_import(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>();
    route.is_some_and(|route| route.as_str() == IMPORT)
}

fn account(app: &AppState, caller: Option<&Caller>, is_read: bool) -> Account {
    match caller {
        Some(Caller::Key(actor)) => app.memory.account(("key", actor.key_id()), KEY_DIVISOR),
        Some(Caller::SignedIn(user)) => app.memory.account(("user", user.user_id()), USER_DIVISOR),
        // Reads have an account of their own, so that streams opened with a ticket cannot use up
        // the memory that sign-in and registration need.
        Some(Caller::Anonymous(_)) | None if is_read => {
            app.memory.account(("readers", 0), OTHERS_DIVISOR)
        }
        Some(Caller::Anonymous(_)) | None => app.memory.account(("others", 0), OTHERS_DIVISOR),
    }
}
