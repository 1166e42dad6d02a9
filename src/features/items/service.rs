//! Item operations.

use super::model::{Item, ItemChanges, ItemId, ListedItem};
use super::repository;
use crate::core::error::{Error, Result};
use crate::db::Db;
use crate::http::{Link, ListPage, OldestFirst, Window};
use std::collections::BTreeMap;

const NOT_FOUND: Error = Error::NotFound("Item");

/// Lists items by id. Returns a page and the links to the adjacent pages.
pub async fn list(
    db: &Db,
    window: Window<OldestFirst>,
) -> Result<(Link, BTreeMap<String, ListedItem>)> {
    let slice = window.resolve("items")?;
    let rows = repository::list(db, &slice).await?;
    let ListPage { entries, link } = slice.page(rows, |row| row.id);
    let items = entries.into_iter().map(|row| (row.item_id, ListedItem { name: row.name }));
    Ok((link, items.collect()))
}

/// Returns item `id`.
pub async fn get(db: &Db, id: &ItemId) -> Result<Item> {
    repository::find(db, id).await?.ok_or(NOT_FOUND)
}

/// Creates an item. Fails with 409 if the id is taken.
pub async fn create(db: &Db, new: &Item) -> Result<Item> {
    let mut tx = db.begin().await?;
    let taken = || Error::Conflict(format!("Item '{}' already exists", new.item_id).into());
    let item = repository::insert(&mut tx, new).await?.ok_or_else(taken)?;
    tx.commit().await?;
    Ok(item)
}

/// Updates item `id`.
pub async fn update(db: &Db, id: &ItemId, changes: &ItemChanges) -> Result<Item> {
    let mut tx = db.begin().await?;
    let item = repository::update(&mut tx, id, changes).await?.ok_or(NOT_FOUND)?;
    tx.commit().await?;
    Ok(item)
}

/// Deletes item `id`.
pub async fn delete(db: &Db, id: &ItemId) -> Result<()> {
    let mut tx = db.begin().await?;
    if !repository::delete(&mut tx, id).await? {
        return Err(NOT_FOUND);
    }
    Ok(tx.commit().await?)
}
