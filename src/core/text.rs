//! Text as people compare it.

/// What `text` is compared by, without regard to case. By way of upper case, and letter by letter:
/// as a whole, a final sigma stays another letter than sigma, and ß another than ss.
pub fn folded(text: &str) -> String {
    text.to_uppercase().chars().flat_map(char::to_lowercase).collect()
}
