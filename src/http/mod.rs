//! HTTP for every feature: extractors that fail as our [`Error`](crate::core::error::Error),
//! the client's address, rate limits.

mod body;
mod budget;
mod client;
pub mod client_limit;
mod cursor;
mod deadline;
mod drain;
mod fields;
pub mod host;
mod idempotency;
mod if_match;
mod json_list;
mod lines;
mod listed;
mod metered;
mod or_no_content;
mod page;
mod params;
pub mod quota;
pub mod rate_limit;
mod recheck;
mod request_id;
mod written;

pub use body::{
    Checked, Json, NoBody, Rules, check, double_option, double_option_time, not_null, time,
};
pub use budget::{Account, AccountId, Budget, Charge};
pub use client::{Client, ClientBucket};
pub use cursor::{CursorKey, List};
pub use deadline::Deadline;
pub use drain::{Remainder, salvage};
pub use fields::Fields;
pub use idempotency::{
    Earlier, IdempotencyKey, Idempotent, Made, Once, forget_old_idempotency_keys,
};
pub use if_match::{IfMatch, VersionTag};
pub use json_list::JsonList;
pub use lines::{Line, Lines};
pub use listed::{Link, Listed, Part, Slice};
pub use metered::{Meter, charged, may_write};
pub use or_no_content::OrNoContent;
pub use page::{Direction, NewestFirst, OldestFirst, Order, Page, Window};
pub use params::{FromQuery, Path, PathValue, Query, QueryPairs, without_nul};
pub use recheck::Recheck;
pub use request_id::{REQUEST_ID, RequestId};
pub use written::Written;
