//! `ETag` and `If-Match` (RFC 9110, sections 8.8.3 and 13.1.1) for resources with a version number.

use crate::core::error::{Error, Result};
use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponseParts, ResponseParts};
use std::convert::Infallible;

/// The `ETag` of a resource: its version number in quotes.
#[derive(Clone, Copy, Debug)]
pub struct VersionTag(pub i64);

impl IntoResponseParts for VersionTag {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", self.0)) {
            parts.headers_mut().insert(ETAG, tag);
        }
        Ok(parts)
    }
}

/// The `If-Match` condition of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// Any version: no `If-Match`, or `*`.
    Any,
    /// One of these versions. A tag in another format matches none.
    OneOf(Vec<i64>),
}

impl IfMatch {
    fn read(headers: &HeaderMap) -> Self {
        let mut versions = vec![];
        let fields = headers.get_all(IF_MATCH);
        for tag in fields.iter().flat_map(|field| field.to_str().unwrap_or("?").split(',')) {
            if tag.trim() == "*" {
                return Self::Any;
            }
            // RFC 9110 requires the strong comparison here, which no weak tag passes. A tag of
            // ours is a version number, and proxies that compress a response, such as nginx, turn
            // `"3"` into `W/"3"`: both are version 3. Otherwise a client behind one gets only 412.
            let tag = tag.trim();
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            let quoted = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            versions.extend(quoted.and_then(|digits| digits.parse::<i64>().ok()));
        }
        if headers.contains_key(IF_MATCH) { Self::OneOf(versions) } else { Self::Any }
    }

    /// Fails with 412 unless the condition matches `version`.
    pub fn check(&self, version: i64) -> Result<()> {
        match self {
            Self::OneOf(versions) if !versions.contains(&version) => Err(Error::PreconditionFailed),
            _ => Ok(()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::read(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use proptest::prelude::*;

    fn read(fields: &[&'static str]) -> IfMatch {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(IF_MATCH, HeaderValue::from_static(field));
        }
        IfMatch::read(&headers)
    }

    #[test]
    fn strong_and_weak_version_tags_match() {
        assert_eq!(read(&[]), IfMatch::Any);
        assert_eq!(read(&["*"]), IfMatch::Any);
        assert_eq!(read(&["\"1\", \"3\"", "\"4\""]), IfMatch::OneOf(vec![1, 3, 4]));
        assert_eq!(read(&["W/\"3\",W/\"4\""]), IfMatch::OneOf(vec![3, 4]));
        for none in ["w/\"1\"", "W/1", "W/ \"1\"", "W/W/\"1\"", "1", "\"one\"", "", "\"1", "'1'"] {
            assert_eq!(read(&[none]), IfMatch::OneOf(vec![]), "{none}");
        }
        assert!(read(&["\"3\""]).check(3).is_ok() && read(&["\"3\""]).check(4).is_err());
    }

    proptest! {
        #[test]
        fn a_tag_matches_the_version_it_was_written_for(version: i64, others: Vec<i64>) {
            let response = (VersionTag(version), ()).into_response();
            let mut headers = HeaderMap::new();
            let of_others = others.iter().map(|other| format!("\"x{version}\", W/\"{other}\""));
            for text in of_others {
                headers.append(IF_MATCH, text.parse().unwrap());
            }
            let matches = |headers: &HeaderMap| IfMatch::read(headers).check(version).is_ok();
            prop_assert_eq!(matches(&headers), others.is_empty() || others.contains(&version));
            headers.append(IF_MATCH, response.headers()[ETAG].clone());
            prop_assert!(matches(&headers));
        }

        #[test]
        fn nothing_else_matches(bytes: Vec<u8>, version: i64) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let text = value.to_str().unwrap_or("?").to_owned();
            let read = IfMatch::read(&HeaderMap::from_iter([(IF_MATCH, value)]));
            let names = |tag: &str| text.split(',').any(|part| part.trim() == tag);
            let quoted = format!("\"{version}\"");
            let should_match = names("*") || names(&quoted) || names(&format!("W/{quoted}"));
            prop_assert!(read.check(version).is_err() || should_match, "{}", text);
        }
    }
}
