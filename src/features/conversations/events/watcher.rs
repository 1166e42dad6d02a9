//! Who watches a conversation: whoever shows a credential, or a ticket that stands for one.

use super::WatchConversations;
use super::service;
use crate::core::error::{Error, Result};
use crate::http::{Client, Path, RequestId};
use crate::security::authenticate::{self, Credentials};
use crate::security::usage::{Outcome, Use};
use crate::security::{Access, AllowedOrUser, Caller, credential};
use crate::state::AppState;
use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use tracing::Span;

/// The route that takes tickets. It finds out by itself whose request it is that shows one, and
/// counts it.
pub const ROUTE: &str = "/api/v1/conversations/{conversation_id}/events";

const INVALID: &str = "Invalid or expired ticket";
const TWO_CREDENTIALS: &str = "Send either a ticket or a credential, not both";

/// Somebody who may watch conversations, those within their reach.
#[derive(Debug)]
pub struct Watcher {
    /// Who it is.
    pub access: Access,
}

/// The ticket in a query, be it good or not.
pub fn shown_ticket(uri: &Uri) -> Option<String> {
    let query = form_urlencoded::parse(uri.query()?.as_bytes());
    query.filter(|(name, _)| name == "ticket").last().map(|(_, ticket)| ticket.into_owned())
}

impl FromRequestParts<AppState> for Watcher {
    type Rejection = Error;

    /// Fails with 401 or 403 unless the caller may watch conversations.
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self> {
        let Some(ticket) = shown_ticket(&parts.uri) else {
            let allowed = AllowedOrUser::<WatchConversations>::from_request_parts(parts, app).await;
            return allowed.map(|allowed| Self { access: allowed.access });
        };
        if !matches!(parts.extensions.get::<Caller>(), Some(Caller::Unknown(_))) {
            return Err(Error::Refused(TWO_CREDENTIALS.into()));
        }
        let missing = || Error::Internal("a request that was not observed".into());
        let client = parts.extensions.get::<Client>().copied().ok_or_else(missing)?;
        let request_id = parts.extensions.get::<RequestId>().cloned().ok_or_else(missing)?;
        let id = match Path::<i64>::from_request_parts(parts, app).await {
            Ok(Path(id)) => id,
            Err(error) => {
                app.throttle.anonymous(&client)?;
                return Err(error);
            }
        };
        let caller = match service::spend_ticket(app, id, &ticket).await? {
            Some(made_by) => {
                let known =
                    Credentials { keys: &app.keys, db: &app.db, sessions: &app.config.sessions };
                let now = app.clock.now();
                credential::find(known, made_by, client.ip, request_id, now).await?
            }
            None => None,
        };
        let Some(caller) = caller else {
            authenticate::refused("ticket_invalid", None, &client);
            app.failures.note(client.ip, "ticket_invalid");
            app.throttle.failure(&client)?;
            return Err(Error::Unauthenticated(INVALID));
        };
        count(app, &caller, &client)?;
        AllowedOrUser::<WatchConversations>::check(&caller)
            .map(|allowed| Self { access: allowed.access })
    }
}

/// Counts the request as one of whoever made the ticket.
fn count(app: &AppState, caller: &Caller, client: &Client) -> Result<()> {
    match caller {
        Caller::Known(actor) => {
            let used = Use { at: app.clock.now(), ip: Some(client.ip) };
            Span::current().record("key_id", actor.key_id());
            let counted = app.throttle.key(actor.key(), client);
            let outcome = if counted.is_ok() { Outcome::Ok } else { Outcome::RateLimited };
            app.usage.count(actor.key(), outcome, used.at);
            counted?;
            app.usage.note(actor.key(), used);
        }
        Caller::LoggedIn(user) => {
            Span::current().record("user_id", user.user_id());
            app.throttle.user(user, client)?;
            app.session_uses.note(user, app.clock.now());
        }
        Caller::Unknown(_) => {}
    }
    Ok(())
}
