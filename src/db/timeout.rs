//! The timeout that the connection pools of both back ends share.

use std::time::Duration;

/// How long a request waits for a connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
