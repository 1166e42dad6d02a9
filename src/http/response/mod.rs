//! Response bodies that handlers return.

pub(super) mod json_list;
pub(super) mod or_no_content;
pub(super) mod raw_json;
