//! The features, one module each, and the list of them. `scripts/new-feature` adds one.

pub mod admin;
pub mod api_keys;
pub mod conversations;
pub mod feature;
pub mod items;
pub mod users;

use feature::Feature;

/// Every feature, in the order of the OpenAPI document and of the checks of `octopus verify`.
pub const ALL: &[Feature] = &[
    // One per line: `scripts/new-feature` and `scripts/remove-feature` edit this list.
    api_keys::FEATURE,
    users::FEATURE,
    conversations::FEATURE,
    items::FEATURE,
    admin::FEATURE,
];
