//! Charges large bodies and answers to whoever sent the request.

use crate::core::error::Result;
use crate::http::{Account, Meter, charged, may_write};
use crate::security::Caller;
use crate::state::AppState;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

/// What part of the budget a key may use: often all users of an application share it.
const OF_KEY: usize = 2;
/// What part a signed-in user may use.
const OF_USER: usize = 8;
/// What part all other callers may use together. Most of them get small answers.
const OF_OTHERS: usize = 4;

/// Bounds the memory that requests of an account take. Inside `authenticate`, which leaves a
/// [`Caller`] on the request.
pub async fn bound(State(app): State<AppState>, request: Request, next: Next) -> Result<Response> {
    let account = account(&app, request.extensions().get::<Caller>());
    if request.method().is_safe() {
        return Ok(charged(next.run(request).await, &account, true, None));
    }
    may_write(&account)?;
    let (request, meter) = Meter::on(request, &account);
    Ok(charged(next.run(request).await, &account, false, meter.as_ref()))
}

fn account(app: &AppState, caller: Option<&Caller>) -> Account {
    match caller {
        Some(Caller::Known(actor)) => app.memory.account(("key", actor.key_id()), OF_KEY),
        Some(Caller::LoggedIn(user)) => app.memory.account(("user", user.user_id()), OF_USER),
        Some(Caller::Unknown(_)) | None => app.memory.account(("others", 0), OF_OTHERS),
    }
}
