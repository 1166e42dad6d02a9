//! Verifies API keys for other services. Reads the database only if the key is not cached.

use super::super::model::{
    KeyRateLimit, VerificationCode as Code, VerificationRequest, VerifiedApiKey,
};
use crate::core::clock::Timestamp;
use crate::core::error::Result;
use crate::core::key_format;
use crate::security::Key;
use crate::security::rate_limit::RemainingQuota;
use crate::security::usage::{UsageOutcome, Use};
use crate::state::AppState;
use secrecy::ExposeSecret;

/// Verifies the key in `request`. Counts as a use of that key.
pub async fn verify(app: &AppState, request: &VerificationRequest) -> Result<VerifiedApiKey> {
    let secret = request.key.expose_secret();
    let key = if key_format::is_plausible(secret) { app.keys.find(secret).await? } else { None };
    let Some(key) = key else { return Ok(response(Code::NotFound, None, None)) };
    let (code, remaining) = evaluate(app, &key, request);
    let used = Use { at: app.clock.now(), ip: request.ip };
    if let Some(outcome) = outcome(code) {
        app.usage.count(&key, outcome, used.at);
    }
    if matches!(code, Code::Valid | Code::ScopeMissing) {
        app.usage.note(&key, used);
    }
    Ok(response(code, Some(&key), remaining))
}

fn evaluate(
    app: &AppState,
    key: &Key,
    request: &VerificationRequest,
) -> (Code, Option<KeyRateLimit>) {
    if let Err(denial) = key.check(app.clock.now(), request.ip) {
        return (denial.into(), None);
    }
    if request.scope.is_some_and(|scope| !key.scopes().allow(scope)) {
        return (Code::ScopeMissing, None);
    }
    match app.throttle.spend(key) {
        Ok(remaining) => (Code::Valid, remaining.map(KeyRateLimit::from)),
        Err(limited) => {
            let none_left = RemainingQuota {
                policy: limited.policy,
                per_minute: limited.per_minute,
                remaining: 0,
                reset: limited.retry_after,
            };
            (Code::RateLimited, Some(none_left.into()))
        }
    }
}

/// The usage counter for a result; unknown and deactivated keys are not counted.
fn outcome(code: Code) -> Option<UsageOutcome> {
    match code {
        Code::Valid => Some(UsageOutcome::Ok),
        Code::ScopeMissing => Some(UsageOutcome::DeniedScope),
        Code::IpNotAllowed => Some(UsageOutcome::DeniedAddress),
        Code::RateLimited => Some(UsageOutcome::RateLimited),
        Code::Expired => Some(UsageOutcome::Expired),
        Code::NotFound | Code::Inactive => None,
    }
}

fn response(code: Code, key: Option<&Key>, rate_limit: Option<KeyRateLimit>) -> VerifiedApiKey {
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
