//! `If-None-Match` (RFC 9110, section 13.1.2).

use crate::http::header_list::header_list;
use axum::http::header::IF_NONE_MATCH;
use axum::http::{HeaderMap, HeaderValue};

/// Returns whether `If-None-Match` in `headers` contains `tag` or `*`, by weak comparison. Tags of
/// Octopus contain no comma.
pub fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let Ok(tag) = tag.to_str() else { return false };
    let without_weakness = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let tag = without_weakness(tag);
    header_list(headers, &IF_NONE_MATCH).any(|known| known == "*" || without_weakness(known) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_without_their_weakness() {
        let known = |field: &'static str, tag: &'static str| {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(field))]);
            is_known(&headers, &HeaderValue::from_static(tag))
        };
        for field in ["\"1\"", "W/\"1\"", "\"0\", W/\"1\"", "\"0\",\"1\" ", "*"] {
            assert!(known(field, "\"1\"") && known(field, "W/\"1\""), "{field}");
        }
        for field in ["", "1", "\"2\"", "\"1", "w/\"1\"", "W/W/\"1\""] {
            assert!(!known(field, "\"1\"") && !known(field, "W/\"1\""), "{field}");
        }
        assert!(!is_known(&HeaderMap::new(), &HeaderValue::from_static("\"1\"")));
    }
}
