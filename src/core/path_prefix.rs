//! Path prefixes: the path below which a proxy serves Octopus, such as `/octopus`.

/// Maximum length of a prefix in bytes.
const MAX_LENGTH: usize = 128;

/// Returns `text` without a trailing slash, or `None` unless it is empty, `/`, or an absolute path
/// whose characters are unreserved (RFC 3986, section 2.3).
///
/// A prefix becomes part of redirects, `Link` headers and JSON. Other characters could end a value
/// there, and `//` would make a redirect point to another host.
pub fn parse(text: &str) -> Option<&str> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let prefix = text.strip_suffix('/').unwrap_or(text);
    if prefix.is_empty() {
        return Some(prefix);
    }
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_segment =
        |text: &str| !["", ".", ".."].contains(&text) && text.bytes().all(is_unreserved);
    prefix.strip_prefix('/')?.split('/').all(is_segment).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_an_absolute_path_of_unreserved_characters() {
        for (text, prefix) in [
            ("", ""),
            ("/", ""),
            ("/octopus", "/octopus"),
            ("/octopus/", "/octopus"),
            ("/a/b-c/d_e/f.g~1", "/a/b-c/d_e/f.g~1"),
            ("/...", "/..."),
        ] {
            assert_eq!(parse(text), Some(prefix), "{text}");
        }
        for text in [
            "octopus",
            "//",
            "//evil.example",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a b",
            "/a%2f",
            "/a?b",
            "/a#b",
            "/a\\b",
            "/a\"b",
            "/a<b",
            "/a>",
            "/a;b",
            "/a,b",
            "/a, /b",
            "/a:b",
            "/a@b",
            "/é",
            "/a\r\nb",
            "https://evil.example",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        let longest = format!("/{}", "x".repeat(MAX_LENGTH - 1));
        assert_eq!(parse(&longest), Some(&*longest));
        assert_eq!(parse(&format!("{longest}x")), None);
    }
}
