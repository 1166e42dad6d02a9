//! What a migration cannot do, as the two databases have no function for it in common.

use super::{Db, query};
use crate::core::text::folded;
use sqlx::Result;

/// Keys written in one transaction.
const BATCH: i64 = 500;

/// Fills in what names of keys are searched by, where a migration left it out: SQLite folds the
/// case of ASCII alone, Postgres as its locale does.
pub(super) async fn name_keys(db: &Db) -> Result<()> {
    const MISSING: &str = "SELECT id, name FROM api_keys WHERE name_key = '' ORDER BY id LIMIT $1";
    const FILL: &str = "UPDATE api_keys SET name_key = $3 WHERE id = $1 AND name = $2";
    loop {
        let keys: Vec<(i64, String)> = query(db, MISSING).bind(BATCH).all().await?;
        if keys.is_empty() {
            return Ok(());
        }
        let mut tx = db.begin().await?;
        for (id, name) in keys {
            let key = folded(&name);
            query(&mut tx, FILL).bind(id).bind(name).bind(key).execute().await?;
        }
        tx.commit().await?;
    }
}
