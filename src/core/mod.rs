//! What everything else stands on. Names nothing else of ours.

pub mod clock;
pub mod config;
pub mod error;
pub mod guesses;
pub mod identity;
pub mod key_format;
mod log_lines;
mod log_writer;
pub mod metrics;
pub mod network;
pub mod offload;
pub mod telemetry;
pub mod text;
pub mod trouble;
