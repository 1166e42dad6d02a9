//! HTTP for every feature: extractors that fail as our [`Error`](crate::core::error::Error),
//! the client's address, rate limits.

mod body;
mod client;
mod deadline;
mod drain;
mod fields;
mod idempotency;
mod lines;
mod params;
pub mod quota;
pub mod rate_limit;
mod recheck;
mod request_id;

pub use body::{
    Checked, Json, NoBody, Rules, check, double_option, double_option_time, not_null, time,
};
pub use client::{Client, ClientBucket};
pub use deadline::Deadline;
pub use drain::{Remainder, salvage};
pub use fields::Fields;
pub use idempotency::{IdempotencyKey, Idempotent, forget_old_idempotency_keys};
pub use lines::{Line, Lines};
pub use params::{FromQuery, Page, Path, PathValue, Query, QueryPairs};
pub use recheck::Recheck;
pub use request_id::{REQUEST_ID, RequestId};
