//! Foundations that every other layer uses: configuration, errors, logging, time and text. Depends
//! on no other module of this crate.

pub mod clock;
pub mod config;
pub mod datetime;
pub mod error;
pub mod guesses;
pub mod http_client;
pub mod identity;
pub mod key_format;
mod log_lines;
mod log_pretty;
mod log_writer;
pub mod metrics;
pub mod network;
pub mod offload;
pub mod path_prefix;
pub mod stored_time;
pub mod telemetry;
pub mod text;
pub mod transient_error;
