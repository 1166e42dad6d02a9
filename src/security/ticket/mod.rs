//! Tickets: single-use credentials in the URL of an event stream, for browsers. A ticket has the
//! access of the credential that created it, to one conversation.

mod repository;

use crate::core::clock::Clock;
use crate::db::{Db, Tx};
use crate::security::access::Access;
use crate::security::credential::CredentialId;
use crate::security::secret::{Secret, SecretHash, TokenKind};
use axum::extract::{MatchedPath, Request};
use axum::http::Uri;
use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::task::TaskTracker;

/// Validity of a ticket.
const LIFETIME: TimeDelta = TimeDelta::seconds(60);
/// The route that accepts tickets, declared in `features/conversations/events/router.rs`. It
/// authenticates and counts requests with a ticket itself; the middleware does not.
const ROUTE: &str = "/api/v1/conversations/{conversation_id}/events";
/// The query parameter with the ticket.
const PARAMETER: &str = "ticket";

/// A ticket that was created.
#[derive(Clone, Debug)]
pub struct NewTicket {
    /// The ticket in plain text. Only its hash is stored.
    pub secret: Secret,
    /// The time from which the ticket is refused.
    pub expires_at: DateTime<Utc>,
}

/// Creates a ticket for conversation `id` with `access`, which the caller has checked. The ticket
/// is valid for 60 seconds from `now`.
pub async fn create(
    tx: &mut Tx,
    id: i64,
    access: &Access,
    now: DateTime<Utc>,
) -> sqlx::Result<NewTicket> {
    let secret = TokenKind::Ticket.generate(&mut rand::rng());
    let expires_at = now + LIFETIME;
    let (hash, credential) = (SecretHash::of(secret.expose()), CredentialId::of(access));
    repository::insert(tx, hash, id, credential, expires_at).await?;
    Ok(NewTicket { secret, expires_at })
}

/// Returns whether the request presents a ticket, valid or not, on the route that accepts tickets.
pub fn is_presented(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>();
    route.is_some_and(|route| route.as_str() == ROUTE) && in_query(request.uri()).is_some()
}

/// The ticket in the query of `uri`, valid or not.
pub fn in_query(uri: &Uri) -> Option<Secret> {
    let query = form_urlencoded::parse(uri.query()?.as_bytes());
    let ticket = query.filter(|(name, _)| name == PARAMETER).last();
    ticket.map(|(_, ticket)| Secret::new(ticket.into_owned()))
}

/// Checks a ticket for conversation `id` without redeeming it, for HEAD. Returns the credential that
/// created it; `None` if the ticket is not valid.
pub async fn check(
    db: &Db,
    clock: &Clock,
    id: i64,
    ticket: &Secret,
) -> sqlx::Result<Option<CredentialId>> {
    if !TokenKind::Ticket.matches(ticket.expose()) {
        return Ok(None);
    }
    repository::find(db, SecretHash::of(ticket.expose()), id, clock.now()).await
}

/// Redeems a ticket for conversation `id`, after which it is not valid any more. Returns the
/// credential that created it; `None` if the ticket is not valid. Writes in a task of `tasks`.
pub async fn redeem(
    db: &Db,
    tasks: &TaskTracker,
    clock: &Clock,
    id: i64,
    ticket: &Secret,
) -> sqlx::Result<Option<CredentialId>> {
    // Check without a write transaction first: guessed tickets must not block writers.
    if check(db, clock, id, ticket).await?.is_none() {
        return Ok(None);
    }
    let hash = SecretHash::of(ticket.expose());
    let (db, clock) = (db.clone(), clock.clone());
    // In a separate task, like every write, so that a client disconnect does not cancel it.
    let redeemed = tasks.spawn(async move {
        let mut tx = db.begin().await?;
        let found = repository::take(&mut tx, hash, id, clock.now()).await?;
        tx.commit().await?;
        Ok(found)
    });
    redeemed.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

/// Deletes the tickets that are expired at `now`.
pub async fn delete_expired(db: &Db, now: DateTime<Utc>) -> sqlx::Result<()> {
    let mut tx = db.begin().await?;
    repository::delete_expired(&mut tx, now).await?;
    tx.commit().await
}
