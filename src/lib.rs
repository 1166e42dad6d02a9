//! Octopus: a self-hosted HTTP service for API keys, users and chat conversations.
//!
//! The modules are layers, from top to bottom: [`cli`] → [`server`] and [`import_fastapi`] →
//! [`api`] and [`jobs`] → [`features`] → [`state`] → [`live`] and [`webhooks`] → [`audit`] →
//! [`security`] → [`http`] → [`db`] → [`core`]. A module may use only the modules to its right;
//! `tests/it/layers.rs` checks this. docs/ARCHITECTURE.md describes each layer.

pub mod api;
pub mod audit;
pub mod cli;
pub mod core;
pub mod db;
pub mod features;
pub mod http;
pub mod import_fastapi;
pub mod jobs;
pub mod live;
pub mod security;
pub mod server;
pub mod state;
pub mod webhooks;
