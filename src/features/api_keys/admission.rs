//! Access control for `/bootstrap`: a request needs the bootstrap token, or must come from a
//! non-public address. Cross-origin browser requests and unknown host names (DNS rebinding) are
//! refused.

use crate::core::config::Config;
use crate::core::error::{Error, Result};
use crate::core::network;
use crate::http::{Client, RequestId, host};
use crate::security::secret::SecretHash;
use axum::http::HeaderMap;
use axum::http::uri::Authority;
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;

const WRONG_TOKEN: &str =
    "Bootstrap needs the right token in the header field Octopus-Bootstrap-Token";
const CROSS_SITE: &str = "Bootstrap cannot be called from another web site";
const OTHER_ORIGIN: &str = "Bootstrap cannot be called from a page of another origin: the header \
                            field Origin does not match Host";
const OTHER_HOST: &str = "Without a token, bootstrap accepts only requests for an IP address, \
                          localhost or a name in ALLOWED_HOSTS: the header field Host has another \
                          name";
const PUBLIC: &str = "Bootstrap from a public address, or through a proxy that is not in \
                      TRUSTED_PROXIES, needs the token in the header field Octopus-Bootstrap-Token: \
                      set BOOTSTRAP_TOKEN, or take the token that the server logged when it started";

/// The properties of a `/bootstrap` request that decide whether it is allowed.
pub struct BootstrapRequest<'r> {
    /// Value of `Octopus-Bootstrap-Token`.
    pub token: Option<&'r [u8]>,
    /// Value of `Sec-Fetch-Site`, which browsers set and web pages cannot forge.
    pub fetch_site: Option<&'r [u8]>,
    /// Values of `Origin`; empty for a value that is not text.
    pub origins: Vec<&'r str>,
    /// Requested host.
    pub host: Option<Authority>,
    /// Peer address of the connection.
    pub peer: IpAddr,
    /// The client: the peer, or the address that a trusted proxy reports.
    pub client: Client,
    /// Whether a proxy forwarded the request without naming the client: [`is_forwarded`].
    pub is_forwarded: bool,
    /// Request id.
    pub request_id: RequestId,
}

/// Returns whether the request has a header field that proxies add, but no `X-Forwarded-For`. That
/// is the only field from which Octopus reads the client address, so the real client is unknown.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    const FIELDS: [&str; 6] = [
        "forwarded",
        "via",
        "x-real-ip",
        "x-forwarded-host",
        "x-forwarded-prefix",
        "x-forwarded-proto",
    ];
    let has = |field: &str| headers.contains_key(field);
    !has("x-forwarded-for") && FIELDS.into_iter().any(has)
}

impl BootstrapRequest<'_> {
    /// Returns whether the request has the token: the configured one, or else the one that was
    /// `generated` at startup. Fails with 403 if the configured token is missing or wrong, if the
    /// request is cross-origin, and if a token is needed and missing.
    pub(super) fn admit(&self, config: &Config, generated: Option<&SecretString>) -> Result<bool> {
        let expected = config.bootstrap_token.as_ref().or(generated);
        let has_token = expected.is_some_and(|expected| self.has_token(expected));
        if config.bootstrap_token.is_some() && !has_token {
            return Err(Error::Forbidden(WRONG_TOKEN.into()));
        }
        self.refuse_other_sites()?;
        if !has_token {
            let is_own = |host: &Authority| host::is_own(host, &config.allowed_hosts);
            if !self.host.as_ref().is_some_and(is_own) {
                return Err(Error::Forbidden(OTHER_HOST.into()));
            }
            if self.is_public() {
                return Err(Error::Forbidden(PUBLIC.into()));
            }
        }
        Ok(has_token)
    }

    /// Returns whether the token is wrong, or missing although one is configured.
    pub(super) fn has_wrong_token(
        &self,
        config: &Config,
        generated: Option<&SecretString>,
    ) -> bool {
        let expected = config.bootstrap_token.as_ref().or(generated);
        let is_expected = config.bootstrap_token.is_some() || self.token.is_some();
        is_expected && !expected.is_some_and(|expected| self.has_token(expected))
    }

    /// Compares hashes, so that timing reveals nothing about the secret.
    fn has_token(&self, expected: &SecretString) -> bool {
        let sent = self.token.and_then(|token| std::str::from_utf8(token).ok());
        sent.is_some_and(|sent| SecretHash::of(sent) == SecretHash::of(expected.expose_secret()))
    }

    fn refuse_other_sites(&self) -> Result<()> {
        if self.fetch_site.is_some_and(|site| site != b"same-origin" && site != b"none") {
            return Err(Error::Forbidden(CROSS_SITE.into()));
        }
        let is_ours =
            |origin: &&str| self.host.as_ref().is_some_and(|host| host::is_origin_of(origin, host));
        if self.origins.iter().all(is_ours) {
            Ok(())
        } else {
            Err(Error::Forbidden(OTHER_ORIGIN.into()))
        }
    }

    /// Returns whether the request may come from the public internet: the peer or the client is
    /// public, or an untrusted proxy forwarded the request, which hides the client.
    fn is_public(&self) -> bool {
        network::is_public(self.peer)
            || network::is_public(self.client.ip)
            || self.client.forged_header
            || self.is_forwarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn admitted(peer: &str, client: &str, forged_header: bool, token: Option<&str>) -> bool {
        let call = BootstrapRequest {
            token: token.map(str::as_bytes),
            fetch_site: None,
            origins: vec![],
            host: "localhost:8000".parse().ok(),
            peer: peer.parse().unwrap(),
            client: Client { ip: client.parse().unwrap(), forged_header },
            is_forwarded: false,
            request_id: RequestId::of(None),
        };
        let config = Config::from_variables(HashMap::new()).unwrap();
        call.admit(&config, Some(&"generated token".into())).is_ok()
    }

    #[test]
    fn a_public_peer_or_client_needs_the_token_generated_at_startup() {
        let local = "172.17.0.1";
        assert!(admitted(local, local, false, None));
        for (peer, client, forged_header) in
            [("203.0.113.9", local, false), (local, "203.0.113.9", false), (local, local, true)]
        {
            assert!(!admitted(peer, client, forged_header, None), "{peer} {client}");
            assert!(!admitted(peer, client, forged_header, Some("another")), "{peer} {client}");
            assert!(admitted(peer, client, forged_header, Some("generated token")), "{peer}");
        }
    }
}
