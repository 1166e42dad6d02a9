//! SQL statements for installation statistics.

use super::model::Counts;
use crate::db::{Executor, query};
use sqlx::Result;

pub async fn counts(on: impl Into<Executor<'_>>) -> Result<Counts> {
    const SQL: &str = "SELECT \
        (SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys) AS api_keys, \
        (SELECT CAST(COUNT(*) AS BIGINT) FROM api_keys WHERE is_active = TRUE) AS active_api_keys, \
        (SELECT CAST(COUNT(*) AS BIGINT) FROM users) AS users, \
        (SELECT CAST(COUNT(*) AS BIGINT) FROM conversations) AS conversations, \
        (SELECT CAST(COALESCE(SUM(last_seq), 0) AS BIGINT) FROM conversations) AS messages, \
        (SELECT CAST(COUNT(*) AS BIGINT) FROM items) AS items, \
        (SELECT CAST(COUNT(*) AS BIGINT) FROM api_key_audit_logs) AS audit_logs";
    query(on, SQL).one().await
}
