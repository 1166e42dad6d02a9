//! HTTP building blocks that all features share: extractors that fail with
//! [`Error`](crate::core::error::Error), client addresses, rate limits, pages and cursors.

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
mod raw_json;
mod request_id;
mod revalidation;

pub use body::{
    Checked, Json, NoBody, Rules, check, double_option, double_option_time, not_null, time,
};
pub use budget::{Account, AccountId, Budget, Charge};
pub use client::{Client, ClientBucket};
pub use cursor::{CursorKey, List};
pub use deadline::Deadline;
pub use drain::{UnreadBody, track_unread};
pub use fields::Fields;
pub use idempotency::{
    Creation, IdempotencyKey, IdempotencyRecord, Idempotent, Replay, forget_old_idempotency_keys,
};
pub use if_match::{IfMatch, VersionTag};
pub use json_list::JsonList;
pub use lines::{NdjsonBody, NdjsonLine};
pub use listed::{Link, ListPage, Part, Slice};
pub use metered::{Meter, charged, ensure_room_to_write};
pub use or_no_content::OrNoContent;
pub use page::{Direction, NewestFirst, OldestFirst, Order, Page, Window};
pub use params::{FromQuery, Path, PathValue, Query, QueryPairs, without_nul};
pub use raw_json::RawJson;
pub use request_id::{REQUEST_ID, RequestId};
pub use revalidation::Revalidation;
