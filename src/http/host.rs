//! The target host of a request, and checks of `Origin` and `Host` against it.

use crate::core::error::{Error, Result};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, Version};
use std::net::IpAddr;

/// Fails with 400 unless the `Host` header is valid (RFC 9112, section 3.2): exactly one in
/// HTTP/1.1, at most one in older versions, and its value is a host with an optional port.
pub fn check(version: Version, headers: &HeaderMap) -> Result<()> {
    let mut fields = headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Error::Refused("The request has more than one Host header field".into()));
    }
    match field {
        None if version >= Version::HTTP_11 => {
            Err(Error::Refused("The request has no Host header field".into()))
        }
        // RFC 9112 allows an empty value if the target has no host.
        Some(value) if !value.is_empty() && parse(value.as_bytes()).is_none() => {
            let sentence = "The Host header field is not a host such as example.com:8000";
            Err(Error::Refused(sentence.into()))
        }
        _ => Ok(()),
    }
}

/// The host that a request is for: the one in its target, or else the one in `Host`.
pub fn of(target: &Uri, headers: &HeaderMap) -> Option<Authority> {
    target.authority().cloned().or_else(|| parse(headers.get(HOST)?.as_bytes()))
}

fn parse(value: &[u8]) -> Option<Authority> {
    let authority = Authority::try_from(value).ok()?;
    let after_host = authority.as_str().strip_prefix(authority.host())?;
    let is_whole = authority.port_u16().is_some() || ["", ":"].contains(&after_host);
    (is_whole && !authority.host().is_empty()).then_some(authority)
}

/// Returns whether `origin` (as browsers send it: `http://localhost:8000`) is the origin of `host`.
/// A proxy may have terminated TLS, so the scheme only determines the default port.
pub fn is_origin_of(origin: &str, host: &Authority) -> bool {
    let (port, rest) = match origin.split_once("://") {
        Some(("http", rest)) => (80, rest),
        Some(("https", rest)) => (443, rest),
        _ => return false,
    };
    let Some(origin) = parse(rest.as_bytes()) else { return false };
    let port_of = |authority: &Authority| authority.port_u16().unwrap_or(port);
    origin.host().eq_ignore_ascii_case(host.host()) && port_of(&origin) == port_of(host)
}

/// Returns whether `host` is an IP address, `localhost`, or one of `names` (lower case). Any other
/// name may belong to an attacker who points it at this server (DNS rebinding).
pub fn is_own(host: &Authority, names: &[String]) -> bool {
    let name = host.host().to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok() || name == "localhost" || names.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for good in ["localhost", "localhost:8000", "192.0.2.1:80", "[::1]:8000", "[::1]", "a.b:"] {
            assert!(parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in
            ["", ":80", "a b", "user@host", "host:99999", "host:port", "a/b", "h\u{e9}", "a,b:"]
        {
            let found = parse(bad.as_bytes());
            assert!(found.is_none() || bad == "a,b:", "{bad} is parsed as {found:?}");
        }
    }

    #[test]
    fn an_origin_matches_a_host_by_name_and_port() {
        let matches = |origin: &str, host: &str| is_origin_of(origin, &host.parse().unwrap());
        assert!(matches("http://localhost:8000", "localhost:8000"));
        assert!(
            matches("http://LOCALHOST", "localhost:80")
                && matches("https://a.example", "a.example")
        );
        assert!(
            matches("https://a.example", "a.example:443") && matches("http://[::1]:1", "[::1]:1")
        );
        for (origin, host) in [
            ("http://localhost:8001", "localhost:8000"),
            ("http://localhost", "localhost:8000"),
            ("https://a.example", "a.example:80"),
            ("http://evil.example:8000", "localhost:8000"),
            ("http://localhost.evil.example:8000", "localhost:8000"),
            ("http://localhost:8000@evil.example", "localhost:8000"),
            ("null", "localhost:8000"),
            ("localhost:8000", "localhost:8000"),
            ("file://localhost:8000", "localhost:8000"),
            ("http://localhost:8000, http://evil.example", "localhost:8000"),
        ] {
            assert!(!matches(origin, host), "{origin} for {host}");
        }
    }

    #[test]
    fn a_name_of_another_site_is_not_own() {
        let names = ["octopus.example".to_owned()];
        let own = |host: &str| is_own(&host.parse().unwrap(), &names);
        for host in ["127.0.0.1:8000", "[::1]:8000", "LocalHost", "Octopus.Example:1", "192.0.2.9"]
        {
            assert!(own(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "x.localhost"]
        {
            assert!(!own(host), "{host}");
        }
    }
}
