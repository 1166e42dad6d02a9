//! The base of the URLs in responses, where a proxy serves Octopus at another URL than its own.

use crate::core::path_prefix;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName};
use std::convert::Infallible;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// What clients put before the paths of Octopus: an absolute URL such as
/// `https://example.com/octopus`, a path such as `/octopus`, or nothing. No trailing slash. Stored
/// in the request's extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlBase(Arc<str>);

impl UrlBase {
    /// Determines the base: `public_url` (`PUBLIC_URL`), or else the path in `X-Forwarded-Prefix`,
    /// which only a trusted proxy may send. An invalid or repeated field is ignored.
    pub fn of(
        public_url: Option<&Arc<str>>,
        headers: &HeaderMap,
        from_trusted_proxy: bool,
    ) -> Self {
        match public_url {
            Some(url) => Self(url.clone()),
            None if from_trusted_proxy => {
                forwarded_prefix(headers).map_or_else(Self::default, |prefix| Self(prefix.into()))
            }
            None => Self::default(),
        }
    }

    /// The base of the request with these extensions.
    pub fn in_request(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// The base as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether clients use the paths of Octopus unchanged, as far as it is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Display for UrlBase {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for UrlBase {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::in_request(&parts.extensions))
    }
}

fn forwarded_prefix(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(FORWARDED_PREFIX).iter();
    let prefix = path_prefix::parse(fields.next()?.to_str().ok()?)?;
    fields.next().is_none().then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(public_url: Option<&str>, prefixes: &[&str], from_trusted_proxy: bool) -> String {
        let mut headers = HeaderMap::new();
        for prefix in prefixes {
            headers.append(FORWARDED_PREFIX, prefix.parse().unwrap());
        }
        let public_url = public_url.map(Arc::from);
        UrlBase::of(public_url.as_ref(), &headers, from_trusted_proxy).to_string()
    }

    #[test]
    fn the_setting_counts_before_the_header_field_and_only_proxies_may_send_that() {
        assert_eq!(base(None, &[], true), "");
        assert_eq!(base(None, &["/octopus/"], true), "/octopus");
        assert_eq!(base(None, &["/octopus"], false), "");
        let url = Some("https://a.example/b");
        assert_eq!(base(url, &["/octopus"], true), "https://a.example/b");
        assert_eq!(base(url, &["//evil.example"], false), "https://a.example/b");
    }

    #[test]
    fn an_invalid_or_repeated_field_is_ignored() {
        for prefixes in [&["//evil.example"][..], &["/a", "/a"], &["/a, /b"], &["/a/../b"]] {
            assert_eq!(base(None, prefixes, true), "", "{prefixes:?}");
        }
    }
}
