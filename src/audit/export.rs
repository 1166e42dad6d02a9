//! Exports signed audit entries for a log collector.

use super::audit_log::Audit;
use super::chain::Row;
use super::repository::{self, BATCH};
use crate::db::Db;
use serde::Serialize;

/// An audit entry as exported: the signed JSON and its HMAC.
#[derive(Debug, Serialize)]
pub struct ExportedEntry {
    /// The position in the chain: 1, 2, 3 …
    seq: i64,
    /// The id of the audit key that signed it: the first 4 bytes of
    /// SHA-256("octopus-audit-key-id\0" ‖ key) as an unsigned big-endian number.
    hash_key_id: Option<i64>,
    /// The entry as JSON, byte for byte as signed.
    payload: Option<String>,
    /// The HMAC-SHA256, in hexadecimal.
    hash: Option<String>,
}

impl ExportedEntry {
    /// The position in the chain.
    pub fn seq(&self) -> i64 {
        self.seq
    }
}

impl From<Row> for ExportedEntry {
    fn from(row: Row) -> Self {
        let hash = row.hash.map(hex::encode);
        Self { seq: row.seq, hash_key_id: row.hash_key_id, payload: row.payload, hash }
    }
}

impl Audit {
    /// The entries after position `after`, at most `limit` and at most 500.
    pub async fn entries(
        &self,
        db: &Db,
        after: i64,
        limit: i64,
    ) -> sqlx::Result<Vec<ExportedEntry>> {
        let first = after.saturating_add(1);
        let rows = repository::rows_from(db, first, limit.min(BATCH)).await?;
        Ok(rows.into_iter().map(ExportedEntry::from).collect())
    }
}
