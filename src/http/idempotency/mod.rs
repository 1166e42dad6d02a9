//! `Idempotency-Key`: a retried request is replayed instead of executed again.
//!
//! The transaction that creates a resource also stores an idempotency record with the resource's
//! id, valid for 24 hours. The record is inserted first, so that concurrent retries wait for the
//! transaction that inserted it.

pub(super) mod creation;
pub(super) mod key;
pub(super) mod record;
mod repository;
