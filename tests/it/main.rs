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
mod identity;
mod import;
mod items;
mod key_cache;
mod key_limits;
mod key_strength;
mod key_usage;
mod key_watch;
mod layers;
mod lending;
mod lengths;
mod limits;
mod lock_out;
mod login;
mod me;
mod memory;
mod messages;
mod migrations;
mod moving_in;
mod notices;
mod openapi;
mod password_reset;
mod planted;
mod process;
mod query_plans;
mod races;
mod reach;
mod repeats;
mod requests;
mod retention;
mod rotation;
mod schema;
mod scopes;
mod search;
mod server;
mod sessions;
mod slow_bodies;
mod storage_quota;
mod support;
mod tailing;
mod torture;
mod transfer;
mod users;
mod verification;
mod webhooks;
mod worst_case;
mod write_answers;

use std::process::ExitCode;

fn main() -> ExitCode {
    query_plans::listen();
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
        identity::TESTS,
        import::TESTS,
        items::TESTS,
        key_cache::TESTS,
        key_limits::TESTS,
        key_strength::TESTS,
        key_usage::TESTS,
        key_watch::TESTS,
        layers::TESTS,
        lengths::TESTS,
        lending::TESTS,
        limits::TESTS,
        lock_out::TESTS,
        login::TESTS,
        me::TESTS,
        memory::TESTS,
        memory::large::TESTS,
        memory::unread::TESTS,
        messages::TESTS,
        migrations::TESTS,
        moving_in::TESTS,
        moving_in::ENDS,
        moving_in::IDS,
        moving_in::KEYS,
        moving_in::ODDITIES,
        moving_in::REFUSALS,
        moving_in::SECRETS,
        notices::TESTS,
        openapi::TESTS,
        password_reset::TESTS,
        planted::TESTS,
        process::TESTS,
        races::TESTS,
        reach::TESTS,
        repeats::TESTS,
        requests::TESTS,
        retention::TESTS,
        rotation::TESTS,
        schema::TESTS,
        scopes::TESTS,
        search::TESTS,
        server::TESTS,
        sessions::TESTS,
        slow_bodies::TESTS,
        storage_quota::TESTS,
        tailing::TESTS,
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
        webhooks::TESTS,
        worst_case::TESTS,
        write_answers::TESTS,
    ]);
    if query_plans::are_good() { ended } else { ExitCode::FAILURE }
}
