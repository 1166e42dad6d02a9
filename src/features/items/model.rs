//! Item models: database rows, request and response bodies, and their validation.

use crate::http::{Checked, Fields, PathValue, Rules, not_null};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The id of an item, as used in paths: `[a-z0-9_-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemId(String);

/// An item.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Item {
    /// Unique id, as used in paths.
    #[schema(example = "plumbus")]
    pub item_id: String,
    /// Display name.
    #[schema(example = "Plumbus")]
    pub name: String,
}

/// An item with its numeric id, which is its position in a list.
#[derive(Debug, sqlx::FromRow)]
pub struct ItemRow {
    pub(super) id: i64,
    pub(super) item_id: String,
    pub(super) name: String,
}

/// An item in a list. Its id is the key of the entry.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListedItem {
    /// Display name.
    #[schema(example = "Plumbus")]
    pub name: String,
}

/// Request to create an item.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"item_id": "portal-fluid", "name": "Portal Fluid"}))]
pub struct CreateItem {
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    item_id: String,
    #[schema(min_length = 1, max_length = 255)]
    name: String,
}

/// Request to update an item. Absent or null fields stay unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"name": "Premium Plumbus"}))]
pub struct UpdateItem {
    #[schema(min_length = 1, max_length = 255)]
    name: Option<String>,
}

/// JSON Merge Patch (RFC 7396) of an item. Absent fields stay unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Premium Plumbus"}))]
pub struct PatchItem {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(min_length = 1, max_length = 255, nullable = false)]
    name: Option<String>,
}

/// A validated [`UpdateItem`] or [`PatchItem`]. `None` leaves the field unchanged.
#[derive(Debug)]
pub struct ItemChanges {
    pub(super) name: Option<String>,
}

impl ItemId {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PathValue for ItemId {
    fn read(name: &str, text: &str, fields: &mut Fields) -> Option<Self> {
        const MESSAGE: &str = "String should match pattern '^[a-z0-9_-]{1,64}$'";
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        let is_id = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
        if !is_id {
            fields.add(name.to_owned(), "string_pattern_mismatch", MESSAGE, text);
        }
        is_id.then(|| Self(text.to_owned()))
    }
}

impl Checked for CreateItem {
    type Valid = Item;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> Item {
        ItemId::read("item_id", &self.item_id, fields);
        Item { name: fields.text("name", self.name, 1..=255), item_id: self.item_id }
    }
}

impl Checked for UpdateItem {
    type Valid = ItemChanges;

    fn check(self, fields: &mut Fields, rules: &Rules<'_>) -> ItemChanges {
        PatchItem { name: self.name }.check(fields, rules)
    }
}

impl Checked for PatchItem {
    type Valid = ItemChanges;
    const MERGE_PATCH: bool = true;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> ItemChanges {
        ItemChanges { name: self.name.map(|name| fields.text("name", name, 1..=255)) }
    }
}
