//! SQL for items, and nothing else.

use super::model::{Item, ItemChanges, ItemId};
use crate::db::{On, Tx, query};
use crate::http::Slice;
use sqlx::Result;

/// Each with the number it is sorted by.
pub async fn list(on: impl Into<On<'_>>, slice: &Slice<i64>) -> Result<Vec<(i64, String, String)>> {
    const SQL: &str = "SELECT id, item_id, name FROM items WHERE TRUE";
    slice.cut(query(on, SQL), &["id"]).all().await
}

pub async fn find(on: impl Into<On<'_>>, id: &ItemId) -> Result<Option<Item>> {
    const SQL: &str = "SELECT item_id, name FROM items WHERE item_id = $1";
    query(on, SQL).bind(id.as_str()).optional().await
}

/// `None` when the id is taken.
pub async fn insert(tx: &mut Tx, new: &Item) -> Result<Option<Item>> {
    const SQL: &str = "INSERT INTO items (item_id, name) VALUES ($1, $2) \
                       ON CONFLICT (item_id) DO NOTHING RETURNING item_id, name";
    query(tx, SQL).bind(&*new.item_id).bind(&*new.name).optional().await
}

/// `None` when there is no such item.
pub async fn update(tx: &mut Tx, id: &ItemId, changes: &ItemChanges) -> Result<Option<Item>> {
    const SQL: &str = "UPDATE items SET name = COALESCE($2, name) WHERE item_id = $1 \
                       RETURNING item_id, name";
    query(tx, SQL).bind(id.as_str()).bind(changes.name.as_deref()).optional().await
}

/// Whether there was such an item.
pub async fn delete(tx: &mut Tx, id: &ItemId) -> Result<bool> {
    const SQL: &str = "DELETE FROM items WHERE item_id = $1";
    Ok(query(tx, SQL).bind(id.as_str()).execute().await? == 1)
}
