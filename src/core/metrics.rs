//! The names of all metrics. docs/MONITORING.md describes each.

/// Requests that have received a response. Labels: `method`, `route`, `status`.
pub const REQUESTS: &str = "octopus_http_requests_total";
/// Seconds from the head of a request to the head of its response. Labels: `method`, `route`,
/// `status`.
pub const LATENCY: &str = "octopus_http_request_duration_seconds";
/// Requests in progress.
pub const IN_FLIGHT: &str = "octopus_http_requests_in_flight";
/// Requests refused. Label: `reason`.
pub const REFUSALS: &str = "octopus_refusals_total";
/// Open connections.
pub const CONNECTIONS: &str = "octopus_connections";
/// Connections refused because too many were open.
pub const CONNECTIONS_REFUSED: &str = "octopus_connections_refused_total";
/// Connections of a database connection pool. Labels: `pool`, `state` (`idle`, `used`).
pub const POOL: &str = "octopus_db_pool_connections";
/// Bytes in SQLite's write-ahead log.
pub const WAL_BYTES: &str = "octopus_db_wal_bytes";
/// Bytes of `MEMORY_BUDGET_BYTES` in use.
pub const MEMORY_USED: &str = "octopus_memory_budget_used_bytes";
/// Entries in a queue. Label: `queue` (`passwords`, `usage`, `webhooks`, `writes`).
pub const QUEUE: &str = "octopus_queue_length";
/// API keys in the cache.
pub const CACHED_KEYS: &str = "octopus_cached_keys";
/// Open event streams.
pub const EVENT_STREAMS: &str = "octopus_event_streams";
/// Clients, API keys or users that a rate limiter tracks. Label: `policy`.
pub const BUCKETS: &str = "octopus_rate_limit_buckets";
/// Deliveries of webhook events. Label: `outcome` (`delivered`, `failed`, `abandoned`).
pub const WEBHOOK_DELIVERIES: &str = "octopus_webhook_deliveries_total";
/// Scheduled backups. Label: `outcome` (`made`, `failed`).
pub const BACKUPS: &str = "octopus_backups_total";
/// Time of the newest scheduled backup, in seconds since the Unix epoch.
pub const BACKUP_TIME: &str = "octopus_backup_last_success_timestamp_seconds";
