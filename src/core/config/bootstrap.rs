//! `BOOTSTRAP_WINDOW_MINUTES` and `ALLOWED_HOSTS`: when and by which names `/bootstrap` works
//! without a token.

use super::Reader;
use axum::http::uri::Authority;
use std::time::Duration;

pub(super) fn window(r: &mut Reader) -> Option<Duration> {
    let minutes: u32 = r.parsed("BOOTSTRAP_WINDOW_MINUTES", 60, "a whole number of minutes");
    (minutes > 0).then(|| Duration::from_secs(u64::from(minutes) * 60))
}

/// Names in lower case, without ports.
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
                format_args!(
                    "has {text:?}, which is not the name of a host such as octopus.example"
                ),
            );
        }
    }
    names
}
