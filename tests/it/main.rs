//! Every test beyond a single module: the real server on real databases, each test on both.

mod admin;
mod api_keys;
mod audit;
mod authentication;
mod authority;
mod bootstrap;
mod conversations;
mod documents;
mod host;
mod idempotency;
mod import;
mod items;
mod key_cache;
mod key_limits;
mod key_usage;
mod key_watch;
mod layers;
mod limits;
mod lock_out;
mod migrations;
mod notices;
mod openapi;
mod process;
mod races;
mod requests;
mod retention;
mod rotation;
mod schema;
mod scopes;
mod server;
mod slow_bodies;
mod support;
mod transfer;
mod users;
mod verification;
mod webhooks;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::run(&[
        admin::TESTS,
        api_keys::TESTS,
        audit::TESTS,
        authentication::TESTS,
        authority::TESTS,
        bootstrap::TESTS,
        conversations::TESTS,
        documents::TESTS,
        host::TESTS,
        idempotency::TESTS,
        import::TESTS,
        items::TESTS,
        key_cache::TESTS,
        key_limits::TESTS,
        key_usage::TESTS,
        key_watch::TESTS,
        layers::TESTS,
        limits::TESTS,
        lock_out::TESTS,
        migrations::TESTS,
        notices::TESTS,
        openapi::TESTS,
        process::TESTS,
        races::TESTS,
        requests::TESTS,
        retention::TESTS,
        rotation::TESTS,
        schema::TESTS,
        scopes::TESTS,
        server::TESTS,
        slow_bodies::TESTS,
        transfer::TESTS,
        users::TESTS,
        verification::TESTS,
        webhooks::TESTS,
    ])
}
