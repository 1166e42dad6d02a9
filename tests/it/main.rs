//! The API and the commands: the real server on real databases, each test on both.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod admin;
mod api_keys;
mod audit;
mod authentication;
mod authority;
mod backup;
mod batch;
mod bootstrap;
mod bootstrap_callers;
mod browser;
mod conversations;
mod cursors;
mod documents;
mod event_races;
mod event_tickets;
mod events;
mod group_commit;
mod guide;
mod host;
mod idempotency;
mod idempotent_messages;
mod identity;
mod import;
mod key_cache;
mod key_invalidation;
mod key_limits;
mod key_strength;
mod key_usage;
mod layers;
mod lengths;
mod limits;
mod lock_out;
mod login;
mod me;
mod memory;
mod message_pages;
mod messages;
mod migrations;
mod openapi;
mod operations;
mod password_reset;
mod planted;
mod process;
mod races;
mod reference;
mod requests;
mod retention;
mod rotation;
mod schema;
mod scopes;
mod search;
mod secrets_in_debug;
mod server;
mod sessions;
mod slow_bodies;
mod sqlite_pool;
mod storage_quota;
mod transfer;
mod users;
mod verification;
mod visibility;
mod vocabulary;
mod webhook_events;
mod webhooks;
mod worst_case;
mod write_responses;
