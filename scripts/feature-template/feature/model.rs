//! @The thing@ models: database rows, request and response bodies, and their validation.

use crate::core::clock::Timestamp;
use crate::http::{Checked, Fields, FromQuery, QueryPairs, Rules, not_null};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

const MAX_TITLE: usize = 255;

/// The title of @a thing@: 1 to 255 characters.
#[derive(Debug, Serialize, sqlx::Type)]
#[sqlx(transparent)]
pub struct Title(String);

/// @A thing@.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct @Thing@ {
    /// Unique id; never reused.
    #[schema(example = 1)]
    pub id: i64,
    /// Title.
    #[schema(value_type = String, example = "Groceries")]
    pub title: Title,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

/// Request to create @a thing@.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"title": "Groceries"}))]
pub struct Create@Thing@ {
    #[schema(min_length = 1, max_length = 255)]
    title: String,
}

/// A validated [`Create@Thing@`].
#[derive(Debug)]
pub struct New@Thing@ {
    pub(super) title: Title,
}

/// Request to update @a thing@. Absent fields stay unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"title": "Shopping"}))]
pub struct Update@Thing@ {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(min_length = 1, max_length = 255, nullable = false)]
    title: Option<String>,
}

/// A validated [`Update@Thing@`]. `None` leaves the field unchanged.
#[derive(Debug)]
pub struct @Thing@Changes {
    pub(super) title: Option<Title>,
}

/// Filter of the list of @the things@.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct @Thing@Filter {
    /// Returns only @the things@ with exactly this title.
    #[param(max_length = 255)]
    pub(super) title: Option<String>,
}

impl Title {
    /// Returns the title as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks the length of `text`.
    fn check(fields: &mut Fields, text: String) -> Self {
        Self(fields.text("title", text, 1..=MAX_TITLE))
    }
}

impl Checked for Create@Thing@ {
    type Valid = New@Thing@;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> New@Thing@ {
        New@Thing@ { title: Title::check(fields, self.title) }
    }
}

impl Checked for Update@Thing@ {
    type Valid = @Thing@Changes;

    fn check(self, fields: &mut Fields, _: &Rules<'_>) -> @Thing@Changes {
        @Thing@Changes { title: self.title.map(|text| Title::check(fields, text)) }
    }
}

impl FromQuery for @Thing@Filter {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self { title: query.text("title", MAX_TITLE) }
    }
}
