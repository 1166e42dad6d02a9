//! Normalizes passwords, so that one typed on another device compares equal.

use crate::core::identity::is_forbidden;
use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use unicode_normalization::UnicodeNormalization;

/// Normalizes `password` for hashing by the profile OpaqueString of RFC 8265: every space becomes
/// U+0020, and letters are composed (NFC). `Err` contains a forbidden control or invisible
/// character.
///
/// The profile also refuses characters newer than Unicode 6.3 and joiners between emoji. This
/// function accepts them and applies the same two rules: they are visible, and users type them.
pub fn prepared(password: &str) -> Result<String, char> {
    let is_joiner = |c: char| matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}');
    if let Some(forbidden) = password.chars().find(|c| is_forbidden(*c) && !is_joiner(*c)) {
        return Err(forbidden);
    }
    Ok(OpaqueString::enforce(password)
        .map_or_else(|_| password.replace(char::is_whitespace, " ").nfc().collect(), String::from))
}

/// The texts to compare with a stored hash: the normalized form and, if it differs, the password as
/// typed, because hashes from before the normalization were made from that. Their number depends on
/// `password` alone, so the response time does not reveal whether the user exists.
pub(super) fn candidates(password: String) -> Vec<String> {
    match prepared(&password) {
        Ok(prepared) if prepared != password => vec![prepared, password],
        _ => vec![password],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_spellings_are_normalized_and_invisible_characters_are_refused() {
        for (password, expected) in [
            ("pa\u{a0}ss\u{3000}word", "pa ss word"),
            ("Jose\u{301}", "Jos\u{e9}"),
            ("\u{ff46}ull", "\u{ff46}ull"),
            ("Ab\u{1fae9}c e\u{301}", "Ab\u{1fae9}c \u{e9}"), // newer than the profile
            ("\u{1f468}\u{200d}\u{1f469}", "\u{1f468}\u{200d}\u{1f469}"),
            ("\u{2764}\u{fe0f}", "\u{2764}\u{fe0f}"),
        ] {
            assert_eq!(prepared(password), Ok(expected.to_owned()));
        }
        for forbidden in ['\0', '\n', '\u{7f}', '\u{ad}', '\u{200b}', '\u{202e}', '\u{feff}'] {
            assert_eq!(prepared(&format!("abc{forbidden}def")), Err(forbidden));
        }
    }
}
