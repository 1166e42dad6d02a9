//! SQL statements for items.

use super::model::{Item, ItemChanges, ItemId, ItemRow};
use crate::db::{Executor, TableChecks, Tx, query};
use crate::http::Slice;
use sqlx::Result;

/// The checks of `octopus verify`.
pub const CHECKS: TableChecks = TableChecks { id_tables: &["items"], ..TableChecks::NONE };

/// Lists items by numeric id.
pub async fn list(on: impl Into<Executor<'_>>, slice: &Slice<i64>) -> Result<Vec<ItemRow>> {
    const SQL: &str = "SELECT id, item_id, name FROM items WHERE TRUE";
    slice.cut(query(on, SQL), &["id"]).all().await
}

/// Returns item `id`, if it exists.
pub async fn find(on: impl Into<Executor<'_>>, id: &ItemId) -> Result<Option<Item>> {
    const SQL: &str = "SELECT item_id, name FROM items WHERE item_id = $1";
    query(on, SQL).bind(id.as_str()).optional().await
}

/// Inserts an item. Returns `None` if the id is taken.
pub async fn insert(tx: &mut Tx, new: &Item) -> Result<Option<Item>> {
    const SQL: &str = "INSERT INTO items (item_id, name) VALUES ($1, $2) \
                       ON CONFLICT (item_id) DO NOTHING RETURNING item_id, name";
    query(tx, SQL).bind(&*new.item_id).bind(&*new.name).optional().await
}

/// Updates item `id`. Returns `None` if the item does not exist.
pub async fn update(tx: &mut Tx, id: &ItemId, changes: &ItemChanges) -> Result<Option<Item>> {
    const SQL: &str = "UPDATE items SET name = COALESCE($2, name) WHERE item_id = $1 \
                       RETURNING item_id, name";
    query(tx, SQL).bind(id.as_str()).bind(changes.name.as_deref()).optional().await
}

/// Deletes item `id`. Returns whether the item existed.
pub async fn delete(tx: &mut Tx, id: &ItemId) -> Result<bool> {
    const SQL: &str = "DELETE FROM items WHERE item_id = $1";
    Ok(query(tx, SQL).bind(id.as_str()).execute().await? == 1)
}
