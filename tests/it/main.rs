//! Every test beyond a single module: the real server on real databases, each test on both.

mod admin;
mod api_keys;
mod audit;
mod authentication;
mod bootstrap;
mod conversations;
mod host;
mod items;
mod key_usage;
mod layers;
mod limits;
mod migrations;
mod notices;
mod openapi;
mod process;
mod races;
mod requests;
mod schema;
mod scopes;
mod server;
mod support;
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
        bootstrap::TESTS,
        conversations::TESTS,
        host::TESTS,
        items::TESTS,
        key_usage::TESTS,
        layers::TESTS,
        limits::TESTS,
        migrations::TESTS,
        notices::TESTS,
        openapi::TESTS,
        process::TESTS,
        races::TESTS,
        requests::TESTS,
        schema::TESTS,
        scopes::TESTS,
        server::TESTS,
        users::TESTS,
        verification::TESTS,
        webhooks::TESTS,
    ])
}
