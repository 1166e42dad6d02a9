//! HTTP building blocks that all features share: extractors that fail with
//! [`Error`](crate::core::error::Error), client addresses, limits of a request, pages and cursors.

mod client_ip;
mod extract;
mod header_list;
pub mod host;
mod idempotency;
mod limits;
mod list;
mod request_id;
mod response;
mod revalidation;
mod url_base;

pub use client_ip::{Client, ClientBucket, is_trusted};
pub use extract::checked::{Checked, Rules, SHORT_TEXTS_BYTES};
pub use extract::deserializers::{double_option, double_option_time, not_null, time};
pub use extract::fields::Fields;
pub use extract::if_match::{IfMatch, VersionTag};
pub use extract::if_none_match::is_known;
pub use extract::json::{Json, NoBody};
pub use extract::ndjson::{NdjsonBody, NdjsonLine};
pub use extract::params::without_nul;
pub use extract::parse::check;
pub use extract::path::{Path, PathValue};
pub use extract::query::{FromQuery, Query, QueryPairs};
pub use header_list::header_list;
pub use idempotency::creation::Creation;
pub use idempotency::key::{IdempotencyKey, Idempotent};
pub use idempotency::record::{IdempotencyRecord, Replay, forget_old_idempotency_keys};
pub use limits::budget::{Account, AccountId, Budget, Charge};
pub use limits::deadline::Deadline;
pub use limits::drain::{UnreadBody, track_unread};
pub use limits::metered::{Meter, charged, ensure_room_to_write};
pub use list::cursor::{CursorKey, List};
pub use list::link::Link;
pub use list::order::{Direction, NewestFirst, OldestFirst, Order};
pub use list::page::ListPage;
pub use list::part::Part;
pub use list::slice::Slice;
pub use list::window::{Page, Window};
pub use request_id::{REQUEST_ID, RequestId};
pub use response::json_list::JsonList;
pub use response::or_no_content::OrNoContent;
pub use response::raw_json::RawJson;
pub use revalidation::Revalidation;
pub use url_base::UrlBase;
