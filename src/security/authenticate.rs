//! From the header fields of a request to an [`Actor`].

use super::actor::{Addresses, Key};
use super::{Actor, Caller, secret};
use crate::core::error::{Error, Result};
use crate::core::key_format;
use crate::core::metrics::REFUSALS;
use crate::db::{Db, query};
use crate::http::Client;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName};
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// The header field a key goes in.
pub const API_KEY_HEADER: HeaderName = HeaderName::from_static("octopus-api-key");

const MISSING: &str = "API key required";
const INVALID: &str = "Invalid or inactive API Key";
const EXPIRED: &str = "API Key has expired";
const TWO_CREDENTIALS: &str =
    "Two different credentials were sent: send one, in Octopus-API-Key or in Authorization";

/// What a request shows to prove who sent it.
#[derive(Debug, PartialEq, Eq)]
enum Credential<'r> {
    None,
    Key(&'r str),
    /// Nothing that could be a key.
    Garbage,
}

/// How authentication went.
#[derive(Debug)]
pub enum Outcome {
    /// A good key, from an address it may be used from.
    Good(Actor),
    /// No credential.
    Missing(Caller),
    /// A credential that is not good: it counts as a failure.
    Bad(Caller),
}

/// Finds out who sent a request with these `headers`. Fails with 400 when they show two different
/// credentials, with 403 when a good key is used from an address that is not on its list.
pub async fn authenticate(
    db: &Db,
    now: DateTime<Utc>,
    headers: &HeaderMap,
    client: &Client,
) -> Result<Outcome> {
    let key = match credential(headers)? {
        Credential::None => return Ok(Outcome::Missing(Caller::Unknown(MISSING))),
        Credential::Garbage => return Ok(bad("auth.key_invalid", INVALID, None, client)),
        Credential::Key(key) => key,
    };
    if !key_format::is_plausible(key) {
        return Ok(bad("auth.key_invalid", INVALID, None, client));
    }
    let Some(row) = find(db, secret::hash(key)).await? else {
        return Ok(bad("auth.key_invalid", INVALID, None, client));
    };
    if row.expires_at.is_some_and(|end| end <= now) {
        return Ok(bad("auth.key_expired", EXPIRED, Some(row.id), client));
    }
    if !row.is_active {
        return Ok(bad("auth.key_inactive", INVALID, Some(row.id), client));
    }
    let id = row.id;
    let Some(key) = row.into_key() else {
        return Ok(bad("auth.key_unreadable", INVALID, Some(id), client));
    };
    if !key.addresses.allow(client.ip) {
        tracing::warn!(
            target: "octopus::security",
            event = "auth.address_denied",
            key_id = key.id,
            client = %client.ip,
            "a key was used from an address that is not on its list"
        );
        metrics::counter!(REFUSALS, "reason" => "address_denied").increment(1);
        return Err(Error::Forbidden("API key not authorized from this IP address".into()));
    }
    Ok(Outcome::Good(Actor { key: Arc::new(key), ip: client.ip }))
}

fn bad(event: &'static str, why: &'static str, key_id: Option<i64>, client: &Client) -> Outcome {
    tracing::warn!(
        target: "octopus::security",
        event,
        key_id,
        client = %client.ip,
        "a credential was refused"
    );
    metrics::counter!(REFUSALS, "reason" => event.trim_start_matches("auth.")).increment(1);
    Outcome::Bad(Caller::Unknown(why))
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
            Some(token) => Credential::Key(token),
            None => Credential::None,
        });
    };
    if fields.any(|other| other != field) {
        return Err(Error::Refused(TWO_CREDENTIALS.into()));
    }
    let Ok(key) = field.to_str().map(str::trim) else { return Ok(Credential::Garbage) };
    let ours = |token: &str| token.starts_with("octopus_") || token.starts_with("octs_");
    if bearer.is_some_and(|token| ours(token) && token != key) {
        return Err(Error::Refused(TWO_CREDENTIALS.into()));
    }
    Ok(Credential::Key(key))
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    scopes: String,
    is_active: bool,
    expires_at: Option<DateTime<Utc>>,
    allowed_ips: Option<String>,
}

impl Row {
    /// What cannot be read denies: a broken list must not become "every address". `None` where
    /// the scopes are broken.
    fn into_key(self) -> Option<Key> {
        let unreadable = |column| {
            tracing::error!(event = "key.unreadable", key_id = self.id, column, "it denies");
        };
        let scopes = self.scopes.parse().inspect_err(|_| unreadable("scopes")).ok()?;
        let addresses = match self.allowed_ips.as_deref().map(str::parse) {
            None => Addresses::All,
            Some(Ok(list)) => Addresses::Listed(list),
            Some(Err(_)) => {
                unreadable("allowed_ips");
                Addresses::None
            }
        };
        Some(Key { id: self.id, scopes, addresses })
    }
}

async fn find(db: &Db, hash: secret::Hash) -> Result<Option<Row>> {
    const SQL: &str = "SELECT id, scopes, is_active, expires_at, allowed_ips \
                       FROM api_keys WHERE key_hash = $1";
    Ok(query(db, SQL).bind(hash.to_vec()).optional().await?)
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
