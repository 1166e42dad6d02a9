//! From the header fields of a request to an [`Actor`].

use super::keys::Keys;
use super::session::{self, ENDED};
use super::{Actor, Denial, Key, LoggedIn, secret};
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

/// The header field a key goes in.
pub const API_KEY_HEADER: HeaderName = HeaderName::from_static("octopus-api-key");

pub(super) const INVALID: &str = "Invalid or inactive API Key";
pub(super) const EXPIRED: &str = "API Key has expired";
const TWO_CREDENTIALS: &str =
    "Two different credentials were sent: send one, in Octopus-API-Key or in Authorization";

/// What a request shows to prove who sent it.
#[derive(Debug, PartialEq, Eq)]
enum Credential<'r> {
    None,
    Key(&'r str),
    Session(&'r str),
    /// Nothing that could be a key.
    Garbage,
}

/// How authentication went.
#[derive(Debug)]
pub enum Outcome {
    /// A good key, from an address it may be used from.
    Good(Actor),
    /// A good session.
    LoggedIn(LoggedIn),
    /// A good key, from another address.
    Elsewhere(Arc<Key>),
    /// No credential.
    Missing,
    /// A credential that is not good: it counts as a failure.
    Bad {
        /// What a 401 says of it.
        why: &'static str,
        /// The same in a word, for logs, metrics and the audit trail.
        reason: &'static str,
        /// The key, where there is one, and why it is not good.
        key: Option<(Arc<Key>, Denial)>,
    },
}

/// What a 403 says of a good key from another address.
pub const ELSEWHERE: &str = "API key not authorized from this IP address";
/// What a 401 says of a request without a credential.
pub const MISSING: &str = "API key required";
/// The reason of [`Outcome::Elsewhere`] in a word.
pub const ADDRESS_DENIED: &str = "address_denied";

/// Where credentials are looked up.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'s> {
    /// Keys.
    pub keys: &'s Keys,
    /// Sessions.
    pub db: &'s Db,
    /// How long those go on.
    pub sessions: &'s SessionLimits,
}

/// Finds out who sent the request `id` with these `headers` from `client`. Fails with 400 when they
/// show two different credentials.
pub async fn authenticate(
    known: Credentials<'_>,
    now: DateTime<Utc>,
    headers: &HeaderMap,
    client: &Client,
    id: RequestId,
) -> Result<Outcome> {
    let bad = |reason, why, key| Outcome::Bad { why, reason, key };
    let shown = match credential(headers)? {
        Credential::None => return Ok(Outcome::Missing),
        Credential::Garbage => return Ok(bad("key_invalid", INVALID, None)),
        Credential::Session(token) => {
            let found = if key_format::is_token(SESSION_PREFIX, token) {
                session::find(known.db, token, known.sessions, now).await?
            } else {
                None
            };
            return Ok(match found {
                Some(session) => {
                    let session = Arc::new(session);
                    Outcome::LoggedIn(LoggedIn { session, ip: client.ip, request_id: id })
                }
                None => bad("session_invalid", ENDED, None),
            });
        }
        Credential::Key(shown) => shown,
    };
    if !key_format::is_plausible(shown) {
        return Ok(bad("key_invalid", INVALID, None));
    }
    let Some(key) = known.keys.find(shown).await? else {
        return Ok(bad("key_invalid", INVALID, None));
    };
    Ok(match key.check(now, Some(client.ip)) {
        Ok(()) => {
            let credential = secret::hash(shown);
            Outcome::Good(Actor { key, credential, ip: client.ip, request_id: id })
        }
        Err(why @ Denial::Expired) => bad("key_expired", EXPIRED, Some((key, why))),
        Err(why @ Denial::Inactive) => bad("key_inactive", INVALID, Some((key, why))),
        Err(why @ Denial::Unreadable) => bad("key_unreadable", INVALID, Some((key, why))),
        Err(Denial::Address) => Outcome::Elsewhere(key),
    })
}

/// Logs and counts that a credential was refused for this `reason`.
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

/// `Octopus-API-Key` wins over `Authorization`, where gateways put credentials of their own.
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
    let Ok(key) = field.to_str().map(str::trim) else { return Ok(Credential::Garbage) };
    let ours =
        |token: &str| token.starts_with(key_format::PREFIX) || token.starts_with(SESSION_PREFIX);
    if bearer.is_some_and(|token| ours(token) && token != key) {
        return Err(Error::Refused(TWO_CREDENTIALS.into()));
    }
    Ok(Credential::Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(fields: &[(&str, &str)]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let credential = credential(&headers).map(|credential| format!("{credential:?}"));
        credential.map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_goes_in_either_field() {
        assert_eq!(shown(&[("octopus-api-key", "k")]).unwrap(), r#"Key("k")"#);
        assert_eq!(shown(&[("authorization", "bearer  k")]).unwrap(), r#"Key("k")"#);
        assert_eq!(shown(&[("authorization", "Basic eDp5")]).unwrap(), "None");
        assert_eq!(shown(&[]).unwrap(), "None");
    }

    #[test]
    fn a_gateway_s_authorization_is_ignored_beside_a_key() {
        let both = [("octopus-api-key", "octopus_k"), ("authorization", "Bearer eyJhbGciOi")];
        assert_eq!(shown(&both).unwrap(), r#"Key("octopus_k")"#);
        let same = [("octopus-api-key", "octopus_k"), ("authorization", "Bearer octopus_k")];
        assert_eq!(shown(&same).unwrap(), r#"Key("octopus_k")"#);
    }

    #[test]
    fn two_credentials_of_ours_are_refused() {
        for other in ["Bearer octopus_x", "Bearer octs_x"] {
            let both = [("octopus-api-key", "octopus_k"), ("authorization", other)];
            assert_eq!(shown(&both), Err(TWO_CREDENTIALS.to_owned()));
        }
        let twice = [("octopus-api-key", "a"), ("octopus-api-key", "b")];
        assert_eq!(shown(&twice), Err(TWO_CREDENTIALS.to_owned()));
    }
}
