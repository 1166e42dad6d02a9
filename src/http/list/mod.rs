//! Pagination: the parameters of a list request, cursors, and pages with links to adjacent pages.

pub(super) mod cursor;
pub(super) mod link;
pub(super) mod order;
pub(super) mod page;
pub(super) mod part;
pub(super) mod slice;
pub(super) mod window;
