//! Who may make the first key by `/bootstrap`: whoever has the token, and otherwise callers that a
//! web page of another site cannot pose as, and that are not on the public internet.

use crate::core::config::Config;
use crate::core::error::{Error, Result};
use crate::core::network;
use crate::http::{Client, RequestId, host};
use crate::security::secret;
use axum::http::HeaderMap;
use axum::http::uri::Authority;
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;

const WRONG_TOKEN: &str =
    "Bootstrap needs the right token in the header field Octopus-Bootstrap-Token";
const CROSS_SITE: &str = "Bootstrap cannot be called from another web site";
const OTHER_ORIGIN: &str = "Bootstrap cannot be called from a page of another origin: the header \
                            field Origin does not match Host";
const OTHER_HOST: &str = "Without a token, bootstrap answers only to an IP address, to localhost and \
                          to the names in ALLOWED_HOSTS: the header field Host has another name";
const PUBLIC: &str = "Bootstrap from a public address, or through a proxy that is not in \
                      TRUSTED_PROXIES, needs the token in the header field Octopus-Bootstrap-Token: \
                      set BOOTSTRAP_TOKEN, or take the token that the server logged when it started";

/// What a call of `/bootstrap` shows of itself.
#[derive(Debug)]
pub struct BootstrapCall<'r> {
    /// `Octopus-Bootstrap-Token`.
    pub token: Option<&'r [u8]>,
    /// `Sec-Fetch-Site`, which browsers send and pages cannot forge.
    pub fetch_site: Option<&'r [u8]>,
    /// Each `Origin`; one that is no text is empty.
    pub origins: Vec<&'r str>,
    /// The host it is for.
    pub host: Option<Authority>,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Where it comes from: the peer, or whom a trusted proxy names.
    pub client: Client,
    /// Whether a proxy that does not name the client passed it on: [`is_forwarded`].
    pub is_forwarded: bool,
    /// Its id.
    pub request_id: RequestId,
}

/// Whether a header field that proxies add says that a request came through one, while
/// `X-Forwarded-For`, the only field that Octopus takes the client from, does not name the client.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    const FIELDS: [&str; 5] =
        ["forwarded", "via", "x-real-ip", "x-forwarded-host", "x-forwarded-proto"];
    let has = |field: &str| headers.contains_key(field);
    !has("x-forwarded-for") && FIELDS.into_iter().any(has)
}

impl BootstrapCall<'_> {
    /// Whether it shows the token: the configured one, or else the one that was `made` for this
    /// start. Fails with 403 where the configured one is missing or wrong, when it comes from a
    /// page of another site, and when it has no token and needs one.
    pub(super) fn admit(&self, config: &Config, made: Option<&SecretString>) -> Result<bool> {
        let expected = config.bootstrap_token.as_ref().or(made);
        let has_token = expected.is_some_and(|expected| self.shows(expected));
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

    /// Whether it shows a wrong token, or none where one is configured.
    pub(super) fn lacks_token(&self, config: &Config, made: Option<&SecretString>) -> bool {
        let expected = config.bootstrap_token.as_ref().or(made);
        let is_expected = config.bootstrap_token.is_some() || self.token.is_some();
        is_expected && !expected.is_some_and(|expected| self.shows(expected))
    }

    /// Compares hashes, so that the time it takes tells nothing about the secret.
    fn shows(&self, expected: &SecretString) -> bool {
        let shown = self.token.and_then(|token| std::str::from_utf8(token).ok());
        shown.is_some_and(|shown| secret::hash(shown) == secret::hash(expected.expose_secret()))
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

    /// Whether it may come from the public internet: by its peer, by whom a trusted proxy names, or
    /// because another proxy passed it on, which hides who sent it.
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
        let call = BootstrapCall {
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
        call.admit(&config, Some(&"made at the start".into())).is_ok()
    }

    #[test]
    fn a_public_peer_or_client_needs_the_token_that_was_made_at_the_start() {
        let local = "172.17.0.1";
        assert!(admitted(local, local, false, None));
        for (peer, client, forged_header) in
            [("203.0.113.9", local, false), (local, "203.0.113.9", false), (local, local, true)]
        {
            assert!(!admitted(peer, client, forged_header, None), "{peer} {client}");
            assert!(!admitted(peer, client, forged_header, Some("another")), "{peer} {client}");
            assert!(admitted(peer, client, forged_header, Some("made at the start")), "{peer}");
        }
    }
}
