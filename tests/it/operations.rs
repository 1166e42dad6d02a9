//! The operations of the API and the checks that each must pass, except operations whose tag has a
//! test target of its own, such as `tests/items.rs`.

mod administration;
mod api_keys;
mod conversations;
mod users;
mod world;

pub use administration::FILES;
pub use world::World;

use crate::support::operations::{Needs, OperationOf, check_rows_of_other_tags};

pub type Row = OperationOf<World>;

const ADMIN: Needs = Needs::Scope("admin");
/// Requests the largest page of a list.
const PAGE: &str = "?limit=1000";

/// All operations. Those that end users and sessions, which others need, are the last.
pub fn operations() -> impl Iterator<Item = &'static Row> {
    let parts = [
        administration::OPERATIONS,
        api_keys::OPERATIONS,
        conversations::OPERATIONS,
        users::OPERATIONS,
    ];
    parts.into_iter().flatten()
}

#[apply(without_database!)]
fn every_operation_has_exactly_one_row() {
    check_rows_of_other_tags(operations());
}
