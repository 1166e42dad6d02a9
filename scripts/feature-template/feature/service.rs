//! @The thing@ operations.

use super::model::{@Thing@, @Thing@Changes, @Thing@Filter, New@Thing@};
use super::repository;
use crate::core::error::{Error, Result};
use crate::db::Db;
use crate::http::{ListPage, OldestFirst, Window};
use crate::state::AppState;

const NOT_FOUND: Error = Error::NotFound("@The thing@");

/// Lists @the things@ by id.
pub async fn list(db: &Db, filter: &@Thing@Filter, window: Window<OldestFirst>) -> Result<ListPage<@Thing@>> {
    let slice = window.resolve("@the things@")?;
    let rows = repository::list(db, filter, &slice).await?;
    Ok(slice.page(rows, |row| row.id))
}

/// Returns @the thing@ `id`.
pub async fn get(db: &Db, id: i64) -> Result<@Thing@> {
    repository::find(db, id).await?.ok_or(NOT_FOUND)
}

/// Creates @a thing@.
pub async fn create(app: &AppState, new: &New@Thing@) -> Result<@Thing@> {
    let mut tx = app.db.begin().await?;
    let created = repository::insert(&mut tx, new, app.clock.now()).await?;
    tx.commit().await?;
    Ok(created)
}

/// Updates @the thing@ `id`.
pub async fn update(app: &AppState, id: i64, changes: &@Thing@Changes) -> Result<@Thing@> {
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    let updated = repository::update(&mut tx, id, changes, now).await?.ok_or(NOT_FOUND)?;
    tx.commit().await?;
    Ok(updated)
}

/// Deletes @the thing@ `id`.
pub async fn delete(db: &Db, id: i64) -> Result<()> {
    let mut tx = db.begin().await?;
    if !repository::delete(&mut tx, id).await? {
        return Err(NOT_FOUND);
    }
    Ok(tx.commit().await?)
}
