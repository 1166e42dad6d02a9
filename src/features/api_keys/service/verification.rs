//! Tells other services whether a key is good. Asks the database only when the key is not in memory.

use super::super::model::{KeyRateLimit, Question, VerificationCode as Code, VerifiedApiKey};
use crate::core::clock::Timestamp;
use crate::core::error::Result;
use crate::core::key_format;
use crate::http::quota::Allowance;
use crate::security::Key;
use crate::security::usage::{Outcome, Use};
use crate::state::AppState;
use secrecy::ExposeSecret;

/// Whether the key of `question` is good. Counts as a use of that key.
pub async fn verify(app: &AppState, question: &Question) -> Result<VerifiedApiKey> {
    let shown = question.key.expose_secret();
    let key = if key_format::is_plausible(shown) { app.keys.find(shown).await? } else { None };
    let Some(key) = key else { return Ok(answer(Code::NotFound, None, None)) };
    let (code, allowance) = judge(app, &key, question);
    let used = Use { at: app.clock.now(), ip: question.ip };
    if let Some(outcome) = outcome(code) {
        app.usage.count(&key, outcome, used.at);
    }
    if matches!(code, Code::Valid | Code::ScopeMissing) {
        app.usage.note(&key, used);
    }
    Ok(answer(code, Some(&key), allowance))
}

fn judge(app: &AppState, key: &Key, question: &Question) -> (Code, Option<KeyRateLimit>) {
    if let Err(denial) = key.check(app.clock.now(), question.ip) {
        return (denial.into(), None);
    }
    if question.scope.is_some_and(|scope| !key.scopes().allow(scope)) {
        return (Code::ScopeMissing, None);
    }
    match app.throttle.spend(key) {
        Ok(allowance) => (Code::Valid, allowance.map(KeyRateLimit::from)),
        Err(limited) => {
            let none_left = Allowance {
                policy: limited.policy,
                per_minute: limited.per_minute,
                remaining: 0,
                reset: limited.retry_after,
            };
            (Code::RateLimited, Some(none_left.into()))
        }
    }
}

/// How it is counted; a key that is switched off is not.
fn outcome(code: Code) -> Option<Outcome> {
    match code {
        Code::Valid => Some(Outcome::Ok),
        Code::ScopeMissing => Some(Outcome::DeniedScope),
        Code::IpNotAllowed => Some(Outcome::DeniedAddress),
        Code::RateLimited => Some(Outcome::RateLimited),
        Code::Expired => Some(Outcome::Expired),
        Code::NotFound | Code::Inactive => None,
    }
}

fn answer(code: Code, key: Option<&Key>, rate_limit: Option<KeyRateLimit>) -> VerifiedApiKey {
    VerifiedApiKey {
        valid: code == Code::Valid,
        code,
        key_id: key.map(|key| key.id),
        name: key.map(|key| key.name.to_string()),
        scopes: key.map(|key| key.scopes().to_string()),
        expires_at: key.and_then(Key::ends_at).map(Timestamp),
        rate_limit,
    }
}
