//! Every test beyond a single module: the real server on real databases, each test on both.

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
mod fuzz;
mod group_commit;
mod host;
mod idempotency;
mod idempotent_messages;
mod identity;
mod import;
mod import_fastapi;
mod items;
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
mod password_reset;
mod planted;
mod process;
mod query_plans;
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
mod support;
mod torture;
mod transfer;
mod users;
mod verification;
mod visibility;
mod vocabulary;
mod webhook_events;
mod webhooks;
mod worst_case;
mod write_responses;

use std::process::ExitCode;

fn main() -> ExitCode {
    query_plans::start_recording();
    let ended = support::run(&[
        admin::TESTS,
        api_keys::TESTS,
        audit::TESTS,
        authentication::TESTS,
        authority::TESTS,
        backup::TESTS,
        batch::TESTS,
        bootstrap::TESTS,
        bootstrap_callers::TESTS,
        browser::TESTS,
        conversations::TESTS,
        cursors::TESTS,
        documents::TESTS,
        event_races::TESTS,
        event_tickets::TESTS,
        events::TESTS,
        fuzz::PARSERS,
        fuzz::REQUESTS,
        group_commit::TESTS,
        host::TESTS,
        idempotency::TESTS,
        idempotent_messages::TESTS,
        identity::TESTS,
        import::TESTS,
        import_fastapi::ENDS,
        import_fastapi::IDS,
        import_fastapi::KEYS,
        import_fastapi::ODDITIES,
        import_fastapi::REFUSALS,
        import_fastapi::SECRETS,
        import_fastapi::TESTS,
        items::TESTS,
        key_cache::TESTS,
        key_invalidation::TESTS,
        key_limits::TESTS,
        key_strength::TESTS,
        key_usage::TESTS,
        layers::TESTS,
        lengths::TESTS,
        limits::TESTS,
        lock_out::TESTS,
        login::TESTS,
        me::TESTS,
        memory::TESTS,
        memory::large::TESTS,
        memory::unread::TESTS,
        message_pages::TESTS,
        messages::TESTS,
        migrations::TESTS,
        openapi::TESTS,
        password_reset::TESTS,
        planted::TESTS,
        process::TESTS,
        races::TESTS,
        reference::TESTS,
        requests::TESTS,
        retention::TESTS,
        rotation::TESTS,
        schema::TESTS,
        scopes::TESTS,
        search::TESTS,
        secrets_in_debug::TESTS,
        server::TESTS,
        sessions::TESTS,
        slow_bodies::TESTS,
        sqlite_pool::TESTS,
        storage_quota::TESTS,
        torture::abuse::TESTS,
        torture::backup::TESTS,
        torture::broken_disk::TESTS,
        torture::cancel::TESTS,
        torture::crash::TESTS,
        torture::disk::TESTS,
        torture::few_files::TESTS,
        torture::hostile::TESTS,
        torture::power::TESTS,
        torture::races::TESTS,
        torture::shutdown::TESTS,
        torture::soak::TESTS,
        transfer::TESTS,
        users::TESTS,
        verification::TESTS,
        visibility::TESTS,
        vocabulary::TESTS,
        webhook_events::TESTS,
        webhooks::TESTS,
        worst_case::TESTS,
        write_responses::TESTS,
    ]);
    if query_plans::has_no_table_scans() { ended } else { ExitCode::FAILURE }
}
