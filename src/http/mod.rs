//! HTTP for every feature: extractors that fail as our [`Error`](crate::core::error::Error),
//! the client's address, rate limits.

mod body;
mod client;
mod deadline;
mod drain;
mod fields;
mod params;
pub mod rate_limit;

pub use body::{Checked, Json, NoBody, Rules, double_option, double_option_time, not_null, time};
pub use client::{Client, ClientBucket};
pub use deadline::Deadline;
pub use drain::{Remainder, salvage};
pub use fields::Fields;
pub use params::{FromQuery, Page, Path, PathValue, Query, QueryPairs};
