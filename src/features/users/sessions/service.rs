//! The rules of logging in and of sessions.

use super::model::{BegunSession, Login, LoginName, OwnSession};
use super::repository::{self, NewSession, SessionRow};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::core::key_format::SESSION_PREFIX;
use crate::db::Tx;
use crate::features::users::repository::{self as users, Credentials};
use crate::features::users::{names, password_reset};
use crate::http::{Client, Listed, NewestFirst, Window};
use crate::security::{Account, LoggedIn, authenticate, secret, session};
use crate::state::AppState;
use chrono::TimeDelta;

const INCORRECT: Error = Error::Unauthenticated("Incorrect email or password");
const NOT_FOUND: Error = Error::NotFound("Session");
/// Most sessions of a user; another one ends the oldest.
const MOST: i64 = 100;
/// How often a login begins anew because the user was changed while their password was checked.
const TRIES: usize = 3;
/// So long after they ended by not being used, sessions are deleted: another process may not have
/// written their last use yet.
const GRACE: TimeDelta = TimeDelta::hours(1);

/// Begins a session. Every failure says the same after the same work, so that it does not tell
/// whether there is such a user.
pub async fn log_in(
    app: &AppState,
    login: Login,
    client: &Client,
    user_agent: Option<&str>,
) -> Result<BegunSession> {
    let Login { name, password } = login;
    let mut known = find(app, &name).await?;
    // By the key of what was typed: spellings of a name share a limit. The email and the username of
    // a user do not, as that would reveal that they belong together.
    let account = Account::Named(secret::hash(name.key()));
    let attempt = app.throttle.attempt(client, Some(account))?;
    // Made by whoever is the first, known or not.
    let nobodys = app.passwords.nobodys().await?;
    for _ in 0..TRIES {
        let hash = known.as_ref().map_or(&nobodys, |user| &user.password_hash);
        let is_right = app.passwords.verify(password.clone(), hash.clone()).await?;
        let Some(user) = known.filter(|user| is_right && user.is_active) else { break };
        if let Some(token) = begin(app, &user, &password, client, user_agent).await? {
            attempt.succeeded();
            return Ok(token);
        }
        // Changed meanwhile; perhaps another login only renewed the hash.
        known = find(app, &name).await?;
    }
    Err(refused(app, "login_failed", client, INCORRECT))
}

async fn find(app: &AppState, name: &LoginName) -> sqlx::Result<Option<Credentials>> {
    match name {
        LoginName::Email { folded, key } => users::find_by_email_key(&app.db, folded, key).await,
        LoginName::Username { folded, key } => {
            users::find_by_username_key(&app.db, folded, key).await
        }
    }
}

/// Logs and counts that a password or a token was wrong, for the metrics and for the audit trail;
/// what to answer.
pub fn refused(app: &AppState, reason: &'static str, client: &Client, answer: Error) -> Error {
    authenticate::refused(reason, None, client);
    app.failures.note(client.ip, reason);
    answer
}

/// Begins a session of `user`, whose `password` was checked, and renews the hash of it where that
/// is outdated. `None` when they were changed since they were read.
async fn begin(
    app: &AppState,
    user: &Credentials,
    password: &str,
    client: &Client,
    user_agent: Option<&str>,
) -> Result<Option<BegunSession>> {
    let renewed = if app.passwords.is_outdated(&user.password_hash, password) {
        app.passwords.hash(password.to_owned()).await?
    } else {
        user.password_hash.clone()
    };
    let token = secret::make_token(SESSION_PREFIX, &mut rand::rng());
    let mut tx = app.db.begin().await?;
    let confirmed = users::confirm(&mut tx, user.id, &user.password_hash, &renewed).await?;
    let Some(user) = confirmed else {
        tx.rollback().await?; // they are read again, as they are by then
        return Ok(None);
    };
    let now = app.clock.now();
    let expires_at = now + app.config.sessions.absolute;
    let new = NewSession {
        user_id: user.id,
        token_hash: secret::hash(&token),
        ip: client.ip,
        user_agent,
        created_at: now,
        expires_at,
    };
    let session_id = repository::insert(&mut tx, &new).await?;
    repository::keep_newest(&mut tx, user.id, MOST).await?;
    tx.commit().await?;
    app.sign_ins.note(client.ip, user.id);
    tracing::info!(
        target: "octopus::security",
        event = "session.began",
        user_id = user.id,
        session_id,
        client = %client.ip,
        "somebody logged in"
    );
    let expires_at = Timestamp(expires_at);
    Ok(Some(BegunSession { access_token: token, token_type: "bearer", expires_at, user }))
}

/// Ends the session in use.
pub async fn log_out(app: &AppState, user: &LoggedIn) -> Result<()> {
    end(app, user, user.session().id).await
}

/// A page of one's own sessions, the newest first unless asked otherwise.
pub async fn list(
    app: &AppState,
    user: &LoggedIn,
    window: Window<NewestFirst>,
) -> Result<Listed<OwnSession>> {
    let slice = window.resolve(("sessions", user.user_id()))?;
    let (limits, now) = (&app.config.sessions, app.clock.now());
    let rows = repository::list(&app.db, user.user_id(), limits, now, &slice).await?;
    let sessions = rows.into_iter().map(|row| shown(app, row, user.session().id));
    Ok(slice.page(sessions.collect(), |session| session.id))
}

/// With its last use, which may not be written yet.
fn shown(app: &AppState, row: SessionRow, current: i64) -> OwnSession {
    let SessionRow { id, created_at, last_used_at, last_used_ip, user_agent, expires_at } = row;
    let used = app.session_uses.last(id).filter(|(at, _)| *at > last_used_at);
    let (last_used_at, last_used_ip) = match used {
        Some((at, ip)) => (at, Some(ip.to_string())),
        None => (last_used_at, last_used_ip),
    };
    let last_used_at = Timestamp(last_used_at);
    let current = id == current;
    OwnSession { id, created_at, last_used_at, last_used_ip, user_agent, expires_at, current }
}

/// Ends one of one's own sessions.
pub async fn end(app: &AppState, user: &LoggedIn, id: i64) -> Result<()> {
    let mut tx = app.db.begin().await?;
    if !repository::delete(&mut tx, id, user.user_id()).await? {
        return Err(NOT_FOUND);
    }
    Ok(tx.commit().await?)
}

/// Ends all of one's own sessions, but perhaps the one in use.
pub async fn end_all(app: &AppState, user: &LoggedIn, keep_current: bool) -> Result<()> {
    let mut tx = app.db.begin().await?;
    users::lock(&mut tx, user.user_id()).await?;
    still_going_on(app, &mut tx, user).await?;
    let kept = keep_current.then(|| user.session().id);
    repository::delete_all(&mut tx, user.user_id(), kept).await?;
    Ok(tx.commit().await?)
}

/// Fails when the session in use has ended since the request began.
pub async fn still_going_on(app: &AppState, tx: &mut Tx, user: &LoggedIn) -> Result<()> {
    session::still_going_on(tx, user, &app.config.sessions, app.clock.now()).await
}

/// Takes away what was given to a user before their rights changed: their sessions, but perhaps
/// one, and what would let somebody set a new password. Their row is locked.
pub async fn end_those_of(tx: &mut Tx, user_id: i64, kept: Option<i64>) -> Result<()> {
    repository::delete_all(tx, user_id, kept).await?;
    Ok(password_reset::withdraw(tx, user_id).await?)
}

/// Forgets sessions that have ended, tokens nobody spent in time, and usernames that are free again.
pub async fn forget_old(app: &AppState) -> Result<()> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    repository::forget(&mut tx, now, now - app.config.sessions.idle - GRACE).await?;
    password_reset::forget_expired(&mut tx, now).await?;
    names::forget_old(&mut tx, now).await?;
    Ok(tx.commit().await?)
}
