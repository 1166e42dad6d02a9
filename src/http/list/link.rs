//! The `Link` header: the URLs of the next and the previous page of a list.

use crate::http::extract::query::QueryPairs;
use axum::http::HeaderValue;
use axum::http::header::LINK;
use axum::response::{IntoResponseParts, ResponseParts};
use std::convert::Infallible;

/// Maximum size in bytes of a parameter that is repeated in a link. All parameters that routes
/// accept are shorter.
const MAX_LINKED: usize = 2048;

/// The parameters that determine the position of a page.
const POSITION_PARAMS: [&str; 3] = ["skip", "after", "before"];

/// The URL of a request, for building links to other pages.
#[derive(Debug)]
pub(super) struct RequestTarget {
    /// The URL without its query.
    url: String,
    pairs: Vec<(String, String)>,
}

impl RequestTarget {
    /// The target of the request with `query`, without overlong parameters.
    pub(super) fn of(query: &QueryPairs) -> Self {
        let is_short = |(name, value): &&(String, String)| name.len() + value.len() <= MAX_LINKED;
        let pairs = query.pairs().iter().filter(is_short).cloned().collect();
        Self { url: query.url().to_owned(), pairs }
    }

    /// The URL of another page: the same query with the position `name=position`.
    pub(super) fn beside(&self, name: &str, position: &str) -> String {
        let kept = self.pairs.iter().filter(|(name, _)| !POSITION_PARAMS.contains(&name.as_str()));
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(kept).append_pair(name, position);
        format!("{}?{}", self.url, query.finish())
    }
}

/// The `Link` header of a response (RFC 8288), if there is another page.
#[derive(Clone, Debug)]
pub struct Link(Option<HeaderValue>);

impl Link {
    /// Joins `links`, each a URL in angle brackets with its parameters.
    pub(super) fn of(links: &[String]) -> Self {
        Self(HeaderValue::try_from(links.join(", ")).ok().filter(|value| !value.is_empty()))
    }
}

impl IntoResponseParts for Link {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        if let Some(value) = self.0 {
            parts.headers_mut().insert(LINK, value);
        }
        Ok(parts)
    }
}
