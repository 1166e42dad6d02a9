//! The refusal of a request by a rate limit.

use crate::core::error::{Error, RateLimited};
use crate::core::metrics::REFUSALS;
use crate::http::Client;

/// Logs and counts a refusal. Returns the error of the response.
pub(super) fn refuse(limited: RateLimited, client: Option<&Client>) -> Error {
    tracing::warn!(
        target: "octopus::security",
        event = "rate_limited",
        policy = limited.policy,
        client = client.map(|client| tracing::field::display(client.ip)),
        retry_after = limited.retry_after,
        "rate limit exceeded"
    );
    metrics::counter!(REFUSALS, "reason" => "rate_limited").increment(1);
    Error::RateLimited(limited)
}
