//! Case folding.

/// Folds the case of `text` for comparison. Converts to upper case first and then each character to
/// lower case: lower case of the whole text would distinguish a final sigma from other sigmas, and
/// ß from ss.
pub fn folded(text: &str) -> String {
    text.to_uppercase().chars().flat_map(char::to_lowercase).collect()
}
