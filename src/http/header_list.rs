//! Header fields whose value is a list.

use axum::http::{HeaderMap, HeaderName};

/// The trimmed entries of the comma-separated field `name`, over all its lines. A line that is not
/// visible ASCII is skipped.
pub fn header_list<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',').map(str::trim))
}
