//! `PUBLIC_URL`: the URL at which clients reach the server, if a proxy is in front of it.

use super::reader::Reader;
use crate::core::path_prefix;
use std::sync::Arc;
use url::Url;

/// Reads `PUBLIC_URL`. The result has no trailing slash.
pub(super) fn public_url(r: &mut Reader) -> Option<Arc<str>> {
    let text = r.text("PUBLIC_URL")?;
    let url = parse(&text);
    if url.is_none() {
        r.problem(
            "PUBLIC_URL",
            "must be an http or https URL such as https://example.com/octopus, without a user, \
             query or fragment; its path may contain letters, digits and -._~",
        );
    }
    url.map(Arc::from)
}

fn parse(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let is_plain = ["http", "https"].contains(&url.scheme())
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    // The path as it was written: `Url` resolves `..`, and reads `\` as `/`.
    let (_, after_scheme) = text.split_once("://")?;
    let written = after_scheme.find('/').map_or("", |start| &after_scheme[start..]);
    let prefix = path_prefix::parse(written)?;
    let is_same = url.path().trim_end_matches('/') == prefix;
    (is_plain && is_same).then(|| format!("{}{prefix}", url.origin().ascii_serialization()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_has_a_host_and_may_have_a_port_and_a_path() {
        for (text, url) in [
            ("https://octopus.example", "https://octopus.example"),
            ("https://octopus.example/", "https://octopus.example"),
            ("HTTPS://Octopus.Example:443/Sub/", "https://octopus.example/Sub"),
            ("http://localhost:8080/a/b", "http://localhost:8080/a/b"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(parse(text).as_deref(), Some(url), "{text}");
        }
        for text in [
            "octopus.example",
            "/octopus",
            "//octopus.example",
            "ftp://octopus.example",
            "https://",
            "https:///octopus",
            "https:octopus.example",
            "https://me@octopus.example",
            "https://:hunter2@octopus.example",
            "https://octopus.example?a",
            "https://octopus.example/#a",
            "https://octopus.example//a",
            "https://octopus.example/a/../b",
            "https://octopus.example\\a",
            "https://octopus.example/a b",
            "https://octopus.example/%61",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
