//! The subscriber of an event stream, authenticated by a credential or a ticket. The middleware
//! `authenticate` leaves requests with a ticket to [`Subscriber`], which counts them too.

use super::permissions::SubscribeToConversations;
use crate::core::error::{Error, Result};
use crate::http::{Client, Path, RequestId};
use crate::security::authenticate::{self, Credentials};
use crate::security::usage::{UsageOutcome, Use};
use crate::security::{Access, AllowedOrUser, Caller, credential, ticket};
use crate::state::AppState;
use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use tracing::Span;

const INVALID_TICKET: &str = "Invalid or expired ticket";
const TWO_CREDENTIALS: &str = "Send either a ticket or a credential, not both";

/// A caller with permission to subscribe to the conversations visible to them.
#[derive(Debug)]
pub struct Subscriber {
    /// The access of the caller.
    pub access: Access,
}

impl FromRequestParts<AppState> for Subscriber {
    type Rejection = Error;

    /// Fails with 401 or 403 unless the caller may subscribe to conversations.
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self> {
        let Some(presented) = ticket::in_query(&parts.uri) else {
            let allowed =
                AllowedOrUser::<SubscribeToConversations>::from_request_parts(parts, app).await;
            return allowed.map(|allowed| Self { access: allowed.access });
        };
        if !matches!(parts.extensions.get::<Caller>(), Some(Caller::Anonymous(_))) {
            return Err(Error::Refused(TWO_CREDENTIALS.into()));
        }
        let missing = || Error::Internal("the request has no client or request id".into());
        let client = parts.extensions.get::<Client>().copied().ok_or_else(missing)?;
        let request_id = parts.extensions.get::<RequestId>().cloned().ok_or_else(missing)?;
        let id = match Path::<i64>::from_request_parts(parts, app).await {
            Ok(Path(id)) => id,
            Err(error) => {
                app.throttle.anonymous(&client)?;
                return Err(error);
            }
        };
        let redeemed = if parts.method == Method::HEAD {
            ticket::check(&app.db, &app.clock, id, &presented).await?
        } else {
            ticket::redeem(&app.db, &app.tasks, &app.clock, id, &presented).await?
        };
        let caller = match redeemed {
            Some(credential_id) => {
                let known =
                    Credentials { keys: &app.keys, db: &app.db, sessions: &app.config.sessions };
                let now = app.clock.now();
                credential::find(known, credential_id, client.ip, request_id, now).await?
            }
            None => None,
        };
        let Some(caller) = caller else {
            authenticate::refused("ticket_invalid", None, &client);
            app.failures.note(client.ip, "ticket_invalid");
            app.throttle.failure(&client)?;
            return Err(Error::Unauthenticated(INVALID_TICKET));
        };
        count(app, &caller, &client)?;
        AllowedOrUser::<SubscribeToConversations>::check(&caller)
            .map(|allowed| Self { access: allowed.access })
    }
}

/// Counts the request for the credential that created the ticket. Fails with 429 if its rate limit
/// is exceeded.
fn count(app: &AppState, caller: &Caller, client: &Client) -> Result<()> {
    match caller {
        Caller::Key(actor) => {
            let used = Use { at: app.clock.now(), ip: Some(client.ip) };
            Span::current().record("key_id", actor.key_id());
            let counted = app.throttle.key(actor.key(), client);
            let outcome =
                if counted.is_ok() { UsageOutcome::Ok } else { UsageOutcome::RateLimited };
            app.usage.count(actor.key(), outcome, used.at);
            counted?;
            app.usage.note(actor.key(), used);
        }
        Caller::SignedIn(user) => {
            Span::current().record("user_id", user.user_id());
            app.throttle.user(user, client)?;
            app.session_uses.note(user, app.clock.now());
        }
        Caller::Anonymous(_) => {}
    }
    Ok(())
}
