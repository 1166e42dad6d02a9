//! The test harness: runs each test on SQLite and on Postgres, with a separate database each and a
//! time limit.
//!
//! ```ignore
//! #[apply(on_both!)] // or on_sqlite!, on_postgres!, without_database!
//! async fn a_sentence(backend: Backend) { … }
//! ```
//!
//! makes the tests `a_sentence::sqlite` and `a_sentence::postgres`.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test target uses a part of it")]

mod app;
mod backend;
mod client;
mod events;
mod keys;
mod limit;
pub mod operations;
mod postgres;
pub mod process;
mod query_plans;
mod receiver;
mod sessions;
mod table_hashes;

pub use app::TestApp;
pub use backend::{AUDIT_KEY, Backend};
pub use client::{Answer, Call};
pub use events::{Event, Events};
pub use limit::within_limit;
pub use postgres::Postgres;
pub use receiver::{Delivery, Receiver, Reply, WEBHOOK_SECRET};
pub use table_hashes::table_hashes;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;
use tokio::signal::unix::{SignalKind, signal};

/// Makes an SQLite test and a Postgres test of a function that takes a [`Backend`].
macro_rules! on_both {
    ($(#[$attribute:meta])* async fn $name:ident($($argument:tt)*) $body:block) => {
        on_databases! { $(#[$attribute])* async fn $name($($argument)*) $body [sqlite, postgres] }
    };
}

/// Makes an SQLite test of a function that takes a [`Backend`].
macro_rules! on_sqlite {
    ($(#[$attribute:meta])* async fn $name:ident($($argument:tt)*) $body:block) => {
        on_databases! { $(#[$attribute])* async fn $name($($argument)*) $body [sqlite] }
    };
}

/// Makes a Postgres test of a function that takes a [`Backend`].
macro_rules! on_postgres {
    ($(#[$attribute:meta])* async fn $name:ident($($argument:tt)*) $body:block) => {
        on_databases! { $(#[$attribute])* async fn $name($($argument)*) $body [postgres] }
    };
}

macro_rules! on_databases {
    ($(#[$attribute:meta])* async fn $name:ident($($argument:tt)*) $body:block [$($kind:ident),*]) => {
        $(#[$attribute])*
        async fn $name($($argument)*) $body

        mod $name {
            $(#[test]
            fn $kind() {
                $crate::support::$kind(super::$name);
            })*
        }
    };
}

/// Makes a test of a function without arguments.
macro_rules! without_database {
    ($(#[$attribute:meta])* fn $name:ident() $body:block) => {
        $(#[$attribute])*
        #[test]
        fn $name() {
            $crate::support::within_limit(|| $body);
        }
    };
}

/// Runs `test` on a new SQLite database.
pub fn sqlite<F: Future<Output = ()>>(test: impl FnOnce(Backend) -> F + Send + 'static) {
    within_limit(|| {
        query_plans::start_recording();
        run(test, &Backend::sqlite());
        query_plans::check();
    });
}

/// Runs `test` on a new Postgres database. Without Postgres, the test is skipped, or fails if
/// `OCTOPUS_REQUIRE_POSTGRES` is set.
pub fn postgres<F: Future<Output = ()>>(test: impl FnOnce(Backend) -> F + Send + 'static) {
    static NOTICE: Once = Once::new();
    let server = Postgres::shared();
    if server.is_missing() {
        let missing = "neither initdb nor TEST_DATABASE_URL was found";
        assert!(std::env::var_os("OCTOPUS_REQUIRE_POSTGRES").is_none(), "{missing}");
        let notice = format!("\n*** POSTGRES WAS NOT TESTED ***\n{missing}\n\n");
        NOTICE.call_once(|| print_uncaptured(&notice));
        return;
    }
    within_limit(move || run(test, &Backend::postgres(server)));
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Backend) -> F, backend: &Backend) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime starts");
    let test = || {
        runtime.block_on(async {
            // Under `nohup`, this process ignores SIGHUP, and so would the programs that it starts.
            // A signal with a handler has its default effect in a new program.
            let _hangups = signal(SignalKind::hangup()).expect("SIGHUP can be handled");
            test(backend.clone()).await;
        });
    };
    let result = catch_unwind(AssertUnwindSafe(test));
    runtime.block_on(backend.remove());
    result.unwrap_or_else(|panic| resume_unwind(panic));
}

/// How much of a test to run: `short` in CI, `long` for `ci/torture.sh`.
pub fn scale<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// Prints a measurement for docs/RELIABILITY.md, in the long form only.
pub fn measured(what: &str) {
    if is_long() {
        print_uncaptured(&format!("measured: {what}\n"));
    }
}

/// Prints to stderr. The harness would capture `eprintln!`.
pub fn print_uncaptured(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn is_long() -> bool {
    std::env::var_os("OCTOPUS_TORTURE").is_some_and(|form| form == "long")
}
