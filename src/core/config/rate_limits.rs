//! The rate limits (`RATE_LIMIT_…`).

use super::reader::Reader;
use std::num::NonZeroU32;

/// Requests per minute for each kind of caller. See docs/API_KEY_SECURITY.md.
#[derive(Clone, Debug)]
pub struct RateLimits {
    /// Whether rate limits are enforced.
    pub enabled: bool,
    /// Requests without a valid credential, per client.
    pub ip: NonZeroU32,
    /// Invalid credentials, per client.
    pub auth_failures: NonZeroU32,
    /// API keys created, per key that creates them.
    pub key_creation: NonZeroU32,
    /// Registrations, per client without a credential.
    pub registration: NonZeroU32,
    /// Failed password attempts, per account.
    pub login: NonZeroU32,
    /// Failed password and token attempts, per client.
    pub login_client: NonZeroU32,
    /// Requests per API key.
    pub key: NonZeroU32,
    /// Requests per signed-in user.
    pub user: NonZeroU32,
}

/// Reads `RATE_LIMIT_…`.
pub(super) fn read(r: &mut Reader) -> RateLimits {
    RateLimits {
        enabled: r.flag("RATE_LIMIT_ENABLED", true),
        ip: r.rate("RATE_LIMIT_IP_PER_MINUTE", 100),
        auth_failures: r.rate("RATE_LIMIT_AUTH_FAILURES_PER_MINUTE", 10),
        key_creation: r.rate("RATE_LIMIT_KEY_CREATION_PER_MINUTE", 60),
        registration: r.rate("RATE_LIMIT_REGISTRATION_PER_MINUTE", 5),
        login: r.rate("RATE_LIMIT_LOGIN_PER_MINUTE", 10),
        login_client: r.rate("RATE_LIMIT_LOGIN_CLIENT_PER_MINUTE", 30),
        key: r.rate("RATE_LIMIT_KEY_PER_MINUTE", 6000),
        user: r.rate("RATE_LIMIT_USER_PER_MINUTE", 600),
    }
}
