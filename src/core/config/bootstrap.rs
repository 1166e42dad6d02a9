//! `BOOTSTRAP_WINDOW_MINUTES` and `ALLOWED_HOSTS`: for how long and under which host names
//! `/bootstrap` works without a token.

use super::reader::Reader;
use axum::http::uri::Authority;
use std::time::Duration;

/// Returns the window, or `None` for 0 minutes: the window never closes.
pub(super) fn window(r: &mut Reader) -> Option<Duration> {
    let minutes: u32 = r.parsed("BOOTSTRAP_WINDOW_MINUTES", 60, "a whole number of minutes");
    (minutes > 0).then(|| Duration::from_secs(u64::from(minutes) * 60))
}

/// Returns the host names in lower case, without ports.
pub(super) fn allowed_hosts(r: &mut Reader) -> Vec<String> {
    let texts: Vec<String> = r.list("ALLOWED_HOSTS", "a text");
    let mut names = vec![];
    for text in texts {
        let is_name = text.parse::<Authority>().is_ok_and(|authority| authority.host() == text);
        if is_name {
            names.push(text.to_ascii_lowercase());
        } else {
            r.problem(
                "ALLOWED_HOSTS",
                format_args!("contains {text:?}; expected a host name such as octopus.example"),
            );
        }
    }
    names
}
