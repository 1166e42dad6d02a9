//! Authenticates a request by its header fields.

use super::actor::Actor;
use super::key::{Denial, Key};
use super::key_cache::KeyCache;
use super::repository;
use super::secret::{SecretHash, TokenKind};
use super::session::{ENDED, SignedIn};
use crate::core::config::SessionLimits;
use crate::core::error::{Error, Result};
use crate::core::key_format::{self, SESSION_PREFIX};
use crate::core::metrics::REFUSALS;
use crate::db::Db;
use crate::http::{Client, RequestId};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName};
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// The header field of an API key.
pub const API_KEY_HEADER: HeaderName = HeaderName::from_static("octopus-api-key");

pub(super) const INVALID: &str = "Invalid or inactive API Key";
const MISTYPED: &str =
    "Invalid API key: its checksum is wrong; check for missing or changed characters";
pub(super) const EXPIRED: &str = "API Key has expired";
const TWO_CREDENTIALS: &str =
    "Two different credentials were sent: send one, in Octopus-API-Key or in Authorization";

/// The credential that a request presents.
enum Credential<'r> {
    None,
    Key(&'r str),
    Session(&'r str),
    /// A value that cannot be an API key.
    Malformed,
}

/// The result of authentication.
#[derive(Debug)]
pub enum Outcome {
    /// A valid API key, from an allowed address.
    Valid(Actor),
    /// A valid session.
    SignedIn(SignedIn),
    /// A valid API key, from an address that is not on its list.
    AddressDenied(Arc<Key>),
    /// No credential.
    Missing,
    /// An invalid credential, which counts as an authentication failure.
    Invalid {
        /// The `detail` of the 401.
        why: &'static str,
        /// The reason as an identifier, for logs, metrics and the audit log.
        reason: &'static str,
        /// The API key, if it exists, and why it is not valid.
        key: Option<(Arc<Key>, Denial)>,
    },
}

/// The `detail` of the 403 for [`Outcome::AddressDenied`].
pub const ADDRESS_NOT_ALLOWED: &str = "API key not authorized from this IP address";
/// The `detail` of the 401 for [`Outcome::Missing`].
pub const MISSING: &str = "API key required: send it in the header field Octopus-API-Key";
/// The reason of [`Outcome::AddressDenied`] as an identifier, for logs, metrics and the audit log.
pub const ADDRESS_DENIED: &str = "address_denied";

/// The sources that credentials are looked up in.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'s> {
    /// The API keys.
    pub keys: &'s KeyCache,
    /// The database, for sessions.
    pub db: &'s Db,
    /// The maximum age and idle time of sessions.
    pub sessions: &'s SessionLimits,
}

/// Authenticates the request `id` from `client` by its `headers`. Fails with 400 if they contain
/// two different credentials.
pub async fn authenticate(
    known: Credentials<'_>,
    now: DateTime<Utc>,
    headers: &HeaderMap,
    client: &Client,
    id: RequestId,
) -> Result<Outcome> {
    let invalid = |reason, why, key| Outcome::Invalid { why, reason, key };
    let presented = match credential(headers)? {
        Credential::None => return Ok(Outcome::Missing),
        Credential::Malformed => return Ok(invalid("key_invalid", INVALID, None)),
        Credential::Session(token) => {
            let found = if TokenKind::Session.matches(token) {
                let hash = SecretHash::of(token);
                repository::session_by_hash(known.db, hash, known.sessions, now).await?
            } else {
                None
            };
            return Ok(match found {
                Some(session) => {
                    let session = Arc::new(session);
                    Outcome::SignedIn(SignedIn { session, ip: client.ip, request_id: id })
                }
                None => invalid("session_invalid", ENDED, None),
            });
        }
        Credential::Key(secret) => secret,
    };
    let found =
        if key_format::is_plausible(presented) { known.keys.find(presented).await? } else { None };
    let Some(key) = found else {
        let why = if key_format::is_mistyped(presented) { MISTYPED } else { INVALID };
        return Ok(invalid("key_invalid", why, None));
    };
    Ok(match key.check(now, Some(client.ip)) {
        Ok(()) => {
            let credential = SecretHash::of(presented);
            Outcome::Valid(Actor { key, credential, ip: client.ip, request_id: id })
        }
        Err(why @ Denial::Expired) => invalid("key_expired", EXPIRED, Some((key, why))),
        Err(why @ Denial::Inactive) => invalid("key_inactive", INVALID, Some((key, why))),
        Err(why @ Denial::Unreadable) => invalid("key_unreadable", INVALID, Some((key, why))),
        Err(Denial::Address) => Outcome::AddressDenied(key),
    })
}

/// Logs and counts the refusal of a credential for `reason`.
pub fn refused(reason: &'static str, key: Option<&Key>, client: &Client) {
    tracing::warn!(
        target: "octopus::security",
        event = %format_args!("auth.{reason}"),
        key_id = key.map(|key| key.id),
        client = %client.ip,
        "a credential was refused"
    );
    metrics::counter!(REFUSALS, "reason" => reason).increment(1);
}

/// Extracts the credential. `Octopus-API-Key` takes precedence over `Authorization`, which gateways
/// use for their own credentials.
fn credential(headers: &HeaderMap) -> Result<Credential<'_>> {
    let bearer = headers.get_all(AUTHORIZATION).iter().find_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let mut fields = headers.get_all(API_KEY_HEADER).iter();
    let Some(field) = fields.next() else {
        return Ok(match bearer {
            Some(token) if token.starts_with(SESSION_PREFIX) => Credential::Session(token),
            Some(token) => Credential::Key(token),
            None => Credential::None,
        });
    };
    if fields.any(|other| other != field) {
        return Err(Error::Refused(TWO_CREDENTIALS.into()));
    }
    let Ok(key) = field.to_str().map(str::trim) else { return Ok(Credential::Malformed) };
    let is_octopus_credential =
        |token: &str| token.starts_with(key_format::PREFIX) || token.starts_with(SESSION_PREFIX);
    if bearer.is_some_and(|token| is_octopus_credential(token) && token != key) {
        return Err(Error::Refused(TWO_CREDENTIALS.into()));
    }
    Ok(Credential::Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(fields: &[(&str, &str)]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        match credential(&headers) {
            Ok(Credential::None) => Ok("None".to_owned()),
            Ok(Credential::Key(key)) => Ok(format!("Key({key:?})")),
            Ok(Credential::Session(token)) => Ok(format!("Session({token:?})")),
            Ok(Credential::Malformed) => Ok("Malformed".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_key_is_accepted_in_either_field() {
        assert_eq!(presented(&[("octopus-api-key", "k")]).unwrap(), r#"Key("k")"#);
        assert_eq!(presented(&[("authorization", "bearer  k")]).unwrap(), r#"Key("k")"#);
        assert_eq!(presented(&[("authorization", "Basic eDp5")]).unwrap(), "None");
        assert_eq!(presented(&[]).unwrap(), "None");
    }

    #[test]
    fn a_gateway_s_authorization_is_ignored_beside_a_key() {
        let both = [("octopus-api-key", "octopus_k"), ("authorization", "Bearer eyJhbGciOi")];
        assert_eq!(presented(&both).unwrap(), r#"Key("octopus_k")"#);
        let same = [("octopus-api-key", "octopus_k"), ("authorization", "Bearer octopus_k")];
        assert_eq!(presented(&same).unwrap(), r#"Key("octopus_k")"#);
    }

    #[test]
    fn two_octopus_credentials_are_refused() {
        for other in ["Bearer octopus_x", "Bearer octs_x"] {
            let both = [("octopus-api-key", "octopus_k"), ("authorization", other)];
            assert_eq!(presented(&both), Err(TWO_CREDENTIALS.to_owned()));
        }
        let twice = [("octopus-api-key", "a"), ("octopus-api-key", "b")];
        assert_eq!(presented(&twice), Err(TWO_CREDENTIALS.to_owned()));
    }
}
