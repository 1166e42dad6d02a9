//! Octopus: API keys a team can trust, users and conversations, in one binary.
//!
//! One request, top to bottom: [`cli`] → [`server`] and [`moving_in`] → [`api`] and [`jobs`] →
//! [`features`] → [`state`] → [`live`] and [`webhooks`] → [`audit`] → [`security`] → [`http`] → [`db`] → [`core`]. A module may
//! name only what stands to its right; `tests/it/layers.rs` keeps it so. docs/ARCHITECTURE.md is
//! the map.

pub mod api;
pub mod audit;
pub mod cli;
pub mod core;
pub mod db;
pub mod features;
pub mod http;
pub mod jobs;
pub mod live;
pub mod moving_in;
pub mod security;
pub mod server;
pub mod state;
pub mod webhooks;
