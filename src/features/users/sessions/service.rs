//! Sign-in and session operations.

use super::model::{BegunSession, Login, LoginName, OwnSession};
use super::repository::{self, NewSession, SessionRow};
use crate::core::clock::Timestamp;
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::features::users::credentials::refused;
use crate::features::users::repository::{self as users, Credentials};
use crate::http::{Client, ListPage, NewestFirst, Window};
use crate::security::secret::{SecretHash, TokenKind};
use crate::security::{Account, SignedIn, revalidate};
use crate::state::AppState;

const INCORRECT: Error = Error::Unauthenticated("Incorrect email or password");
const NOT_FOUND: Error = Error::NotFound("Session");
/// Maximum number of sessions per user. A further sign-in ends the oldest session.
const MAX_SESSIONS: i64 = 100;
/// Maximum number of attempts per sign-in. An attempt fails if the user is changed while the
/// password is checked.
const MAX_ATTEMPTS: usize = 3;

/// Creates a session. Every failure returns the same error after the same amount of work, so that
/// the response does not reveal whether the user exists.
pub async fn log_in(
    app: &AppState,
    login: Login,
    client: &Client,
    user_agent: Option<&str>,
) -> Result<BegunSession> {
    let Login { name, password } = login;
    let mut known = find(app, &name).await?;
    // The rate limit uses the canonical key, so that all spellings of a name share a limit. The
    // email and the username of a user have separate limits: a shared one would reveal that they
    // belong together.
    let account = Account::Named(SecretHash::of(name.key()));
    let attempt = app.throttle.attempt(client, Some(account))?;
    // Computed on first use, for known and unknown users alike, so that timing does not differ.
    let dummy_hash = app.passwords.dummy_hash().await?;
    for _ in 0..MAX_ATTEMPTS {
        let hash = known.as_ref().map_or(&dummy_hash, |user| &user.password_hash);
        let is_right = app.passwords.verify(password.clone(), hash.clone()).await?;
        let Some(user) = known.filter(|user| is_right && user.is_active) else { break };
        if let Some(token) = begin(app, &user, &password, client, user_agent).await? {
            attempt.succeeded();
            return Ok(token);
        }
        // The user was changed at the same time; another sign-in may only have renewed the hash.
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

/// Creates a session for `user`, whose `password` has been verified, and renews an outdated hash.
/// Returns `None` if the user was changed since it was read.
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
    let token = TokenKind::Session.generate(&mut rand::rng());
    let mut tx = app.db.begin().await?;
    let confirmed = users::confirm(&mut tx, user.id, &user.password_hash, &renewed).await?;
    let Some(user) = confirmed else {
        tx.rollback().await?; // the caller reads the user again
        return Ok(None);
    };
    let now = app.clock.now();
    let expires_at = now + app.config.sessions.absolute;
    let new = NewSession {
        user_id: user.id,
        token_hash: SecretHash::of(token.expose()),
        ip: client.ip,
        user_agent,
        created_at: now,
        expires_at,
    };
    let session_id = repository::insert(&mut tx, &new).await?;
    repository::keep_newest(&mut tx, user.id, MAX_SESSIONS).await?;
    tx.commit().await?;
    app.sign_ins.note(client.ip, user.id);
    tracing::info!(
        target: "octopus::security",
        event = "session.created",
        user_id = user.id,
        session_id,
        client = %client.ip,
        "user signed in"
    );
    let expires_at = Timestamp(expires_at);
    Ok(Some(BegunSession { access_token: token, token_type: "bearer", expires_at, user }))
}

/// Revokes the current session.
pub async fn log_out(app: &AppState, user: &SignedIn) -> Result<()> {
    end(app, user, user.session().id).await
}

/// Lists the sessions of the current user, newest first by default.
pub async fn list(
    app: &AppState,
    user: &SignedIn,
    window: Window<NewestFirst>,
) -> Result<ListPage<OwnSession>> {
    let slice = window.resolve(("sessions", user.user_id()))?;
    let (limits, now) = (&app.config.sessions, app.clock.now());
    let rows = repository::list(&app.db, user.user_id(), limits, now, &slice).await?;
    let sessions = rows.into_iter().map(|row| with_last_use(app, row, user.session().id));
    Ok(slice.page(sessions.collect(), |session| session.id))
}

/// Converts a row, with a last use that may not be in the database yet.
fn with_last_use(app: &AppState, row: SessionRow, current: i64) -> OwnSession {
    let SessionRow { id, created_at, last_used_at, last_used_ip, user_agent, expires_at } = row;
    let used = app.session_uses.last(id).filter(|(at, _)| *at > last_used_at.0);
    let (last_used_at, last_used_ip) = match used {
        Some((at, ip)) => (Timestamp(at), Some(ip.to_string())),
        None => (last_used_at, last_used_ip),
    };
    let current = id == current;
    OwnSession { id, created_at, last_used_at, last_used_ip, user_agent, expires_at, current }
}

/// Revokes session `id` of the current user.
pub async fn end(app: &AppState, user: &SignedIn, id: i64) -> Result<()> {
    let mut tx = app.db.begin().await?;
    if !repository::delete(&mut tx, id, user.user_id()).await? {
        return Err(NOT_FOUND);
    }
    Ok(tx.commit().await?)
}

/// Revokes all sessions of the current user; with `keep_current`, all except the current one.
pub async fn end_all(app: &AppState, user: &SignedIn, keep_current: bool) -> Result<()> {
    let mut tx = app.db.begin().await?;
    users::lock(&mut tx, user.user_id()).await?;
    require_active_session(app, &mut tx, user).await?;
    let kept = keep_current.then(|| user.session().id);
    repository::delete_all(&mut tx, user.user_id(), kept).await?;
    Ok(tx.commit().await?)
}

/// Fails if the current session has ended since the request began.
pub async fn require_active_session(app: &AppState, tx: &mut Tx, user: &SignedIn) -> Result<()> {
    revalidate::session(tx, user, &app.config.sessions, app.clock.now()).await
}
