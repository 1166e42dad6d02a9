//! The check of an id in a request.

use crate::core::error::Loc;
use crate::http::Fields;

/// Adds an error at `path` unless `id` is positive.
pub(super) fn positive(fields: &mut Fields, path: Vec<Loc>, id: i64) {
    if id < 1 {
        let msg = "Input should be greater than or equal to 1";
        fields.add_at(path, "greater_than_equal", msg, id.into());
    }
}
