//! Authentication and rate limits.

use crate::core::error::{Error, Result, ScopeMissing};
use crate::http::{Client, RequestId, Revalidation};
use crate::security::authenticate::{
    self, ADDRESS_DENIED, ADDRESS_NOT_ALLOWED, Credentials, MISSING, Outcome,
};
use crate::security::rate_limit::RemainingQuota;
use crate::security::usage::{self, Use};
use crate::security::{Actor, Caller, Denial, Key, SignedIn, revalidate, ticket};
use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chrono::SecondsFormat;
use tracing::Span;

/// The header field with the expiry of a rotated key that is in its grace period.
const KEY_EXPIRES: HeaderName = HeaderName::from_static("octopus-api-key-expires");

/// The caller whose remaining quota the response reports. A quota is `None` if rate limits are off.
enum CallerQuota {
    Anonymous,
    Key(Actor, Option<RemainingQuota>),
    User(Option<RemainingQuota>),
}

/// Authenticates the request and stores the [`Caller`] in its extensions. Enforces the rate limit
/// of the caller, and records the usage of an API key.
pub async fn authenticate(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let missing = || Error::Internal("the route has no `observe` layer".into());
    let client = request.extensions().get::<Client>().copied().ok_or_else(missing)?;
    let id = request.extensions().get::<RequestId>().cloned().ok_or_else(missing)?;
    let used = Use { at: app.clock.now(), ip: Some(client.ip) };
    let credentials = Credentials { keys: &app.keys, db: &app.db, sessions: &app.config.sessions };
    let outcome =
        authenticate::authenticate(credentials, used.at, request.headers(), &client, id).await;
    let mut quota = CallerQuota::Anonymous;
    let caller = match outcome {
        Ok(Outcome::Valid(actor)) => {
            Span::current().record("key_id", actor.key_id());
            let remaining = match app.throttle.key(actor.key(), &client) {
                Ok(remaining) => remaining,
                Err(limited) => {
                    app.usage.count(actor.key(), usage::UsageOutcome::RateLimited, used.at);
                    let mut response = limited.into_response();
                    add_key_headers(actor.key(), None, &mut response);
                    return Ok(response);
                }
            };
            app.usage.note(actor.key(), used);
            if !request.method().is_safe() {
                request.extensions_mut().insert(revalidate_key_after_body(&app, &actor));
            }
            quota = CallerQuota::Key(actor.clone(), remaining);
            Caller::Key(actor)
        }
        Ok(Outcome::SignedIn(user)) => {
            Span::current().record("user_id", user.user_id());
            quota = CallerQuota::User(app.throttle.user(&user, &client)?);
            app.session_uses.note(&user, used.at);
            if !request.method().is_safe() {
                request.extensions_mut().insert(revalidate_session_after_body(&app, &user));
            }
            Caller::SignedIn(user)
        }
        Ok(Outcome::AddressDenied(key)) => {
            record_failure(&app, ADDRESS_DENIED, Some(&key), &client);
            app.usage.count(&key, usage::UsageOutcome::DeniedAddress, used.at);
            app.throttle.anonymous(&client)?;
            return Err(Error::Forbidden(ADDRESS_NOT_ALLOWED.into()));
        }
        Ok(Outcome::Missing) => {
            // The route of event streams authenticates and counts a request with a ticket itself.
            if !ticket::is_presented(&request) {
                app.throttle.anonymous(&client)?;
            }
            Caller::Anonymous(MISSING)
        }
        Ok(Outcome::Invalid { why, reason, key }) => {
            record_failure(&app, reason, key.as_ref().map(|(key, _)| &**key), &client);
            if let Some((key, Denial::Expired)) = key {
                app.usage.count(&key, usage::UsageOutcome::Expired, used.at);
            }
            app.throttle.failure(&client)?;
            Caller::Anonymous(why)
        }
        Err(error) => {
            if matches!(error, Error::Refused(_)) {
                app.throttle.anonymous(&client)?;
            }
            return Err(error);
        }
    };
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    match quota {
        CallerQuota::Key(actor, remaining) => {
            let lacked_scope = response.extensions().get::<ScopeMissing>().is_some();
            let outcome = if lacked_scope {
                usage::UsageOutcome::DeniedScope
            } else {
                usage::UsageOutcome::Ok
            };
            app.usage.count(actor.key(), outcome, used.at);
            add_key_headers(actor.key(), remaining, &mut response);
        }
        CallerQuota::User(Some(remaining)) => remaining.write_headers(response.headers_mut()),
        CallerQuota::User(None) | CallerQuota::Anonymous => {}
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Checks the API key again after the request body arrived.
fn revalidate_key_after_body(app: &AppState, actor: &Actor) -> Revalidation {
    let (keys, clock, actor) = (app.keys.clone(), app.clock.clone(), actor.clone());
    Revalidation::new(move || {
        let (keys, now, actor) = (keys.clone(), clock.now(), actor.clone());
        async move { revalidate::unchanged(&keys, &actor, now).await }
    })
}

/// Checks the session again after the request body arrived.
fn revalidate_session_after_body(app: &AppState, user: &SignedIn) -> Revalidation {
    let (app, user) = (app.clone(), user.clone());
    Revalidation::new(move || {
        let (app, user) = (app.clone(), user.clone());
        async move { revalidate::session(&app.db, &user, &app.config.sessions, app.clock.now()).await }
    })
}

/// Logs a refused credential, and counts it for the metrics and the audit log.
fn record_failure(app: &AppState, reason: &'static str, key: Option<&Key>, client: &Client) {
    authenticate::refused(reason, key, client);
    app.failures.note(client.ip, reason);
}

/// Adds the header fields for the remaining quota and, during a grace period, for the expiry of the
/// key.
fn add_key_headers(key: &Key, remaining: Option<RemainingQuota>, response: &mut Response) {
    let headers = response.headers_mut();
    if let Some(remaining) = remaining {
        remaining.write_headers(headers);
    }
    if let Some(end) = key.grace_expires_at.and(key.ends_at())
        && let Ok(value) = HeaderValue::from_str(&end.to_rfc3339_opts(SecondsFormat::Micros, true))
    {
        headers.insert(KEY_EXPIRES, value);
    }
}
