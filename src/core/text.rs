//! Case folding and the comparison of names.

/// Folds the case of `text` for comparison. Converts to upper case first and then each character to
/// lower case: lower case of the whole text would distinguish a final sigma from other sigmas, and
/// ß from ss.
pub fn folded(text: &str) -> String {
    text.to_uppercase().chars().flat_map(char::to_lowercase).collect()
}

/// How similar two names must be for [`nearest`]: 1 is equal, 0 has nothing in common.
const SIMILAR: f64 = 0.6;

/// The one of `known` that a person who wrote `name` most likely meant; `None` if none is similar.
/// Case, `-` and `_` make no difference.
pub fn nearest<'k>(name: &str, known: &'k [impl AsRef<str>]) -> Option<&'k str> {
    // Longer names than any known one are not compared, because that takes quadratic time.
    if name.len() > 100 {
        return None;
    }
    let plain = |name: &str| name.replace(['-', '_'], "").to_lowercase();
    let wanted = plain(name);
    let similarity = |known: &str| strsim::normalized_damerau_levenshtein(&wanted, &plain(known));
    let rated = known.iter().map(|known| (similarity(known.as_ref()), known.as_ref()));
    let best = rated.reduce(|best, other| if other.0 > best.0 { other } else { best });
    best.filter(|(similarity, _)| *similarity >= SIMILAR).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_what_the_writer_meant_or_nothing() {
        let known = ["limit", "after", "last_event_id", "include_inactive"];
        for (name, expected) in [
            ("limt", Some("limit")),
            ("LIMIT", Some("limit")),
            ("limits", Some("limit")),
            ("lastEventId", Some("last_event_id")),
            ("include-inactive", Some("include_inactive")),
            ("nonsense", None),
            ("", None),
            (&"limit".repeat(100), None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
        assert_eq!(nearest("limit", &[] as &[&str]), None);
    }
}
