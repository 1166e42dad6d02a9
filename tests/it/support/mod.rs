//! The test harness: runs each test on SQLite and on Postgres, with a separate database each.

mod app;
mod backend;
mod client;
mod events;
mod keys;
mod postgres;
pub mod process;
mod receiver;
mod sessions;

pub use app::TestApp;
pub use backend::{AUDIT_KEY, Backend};
pub use client::{Answer, Call};
pub use events::{Event, Events};
pub use postgres::Postgres;
pub use receiver::{Delivery, Receiver, Reply, WEBHOOK_SECRET};

use libtest_mimic::{Arguments, Failed, Trial};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

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

/// A test: its name and function.
pub struct Case {
    pub name: &'static str,
    pub run: Run,
}

/// The databases that a test runs on.
pub enum Run {
    /// SQLite and Postgres, one after the other.
    OnBoth(OnDatabase),
    /// SQLite only.
    OnSqlite(OnDatabase),
    /// Postgres only.
    OnPostgres(OnDatabase),
    /// No database.
    WithoutDatabase(fn()),
}

type OnDatabase = fn(Backend) -> Pin<Box<dyn Future<Output = ()>>>;

/// Lists the tests of a module. A test that is not listed is dead code, which clippy reports.
macro_rules! tests {
    (
        on_both: [$($both:ident),* $(,)?]
        $(, on_sqlite: [$($sqlite:ident),* $(,)?])?
        $(, on_postgres: [$($postgres:ident),* $(,)?])?
        $(, without_database: [$($without:ident),* $(,)?])?
        $(,)?
    ) => {
        pub const TESTS: &[$crate::support::Case] = &[
            $($crate::support::Case {
                name: concat!(module_path!(), "::", stringify!($both)),
                run: $crate::support::Run::OnBoth(|backend| Box::pin($both(backend))),
            },)*
            $($($crate::support::Case {
                name: concat!(module_path!(), "::", stringify!($sqlite)),
                run: $crate::support::Run::OnSqlite(|backend| Box::pin($sqlite(backend))),
            },)*)?
            $($($crate::support::Case {
                name: concat!(module_path!(), "::", stringify!($postgres)),
                run: $crate::support::Run::OnPostgres(|backend| Box::pin($postgres(backend))),
            },)*)?
            $($($crate::support::Case {
                name: concat!(module_path!(), "::", stringify!($without)),
                run: $crate::support::Run::WithoutDatabase($without),
            },)*)?
        ];
    };
}
pub(crate) use tests;

/// Runs the tests that the command line selects.
pub fn run(modules: &[&'static [Case]]) -> ExitCode {
    let arguments = Arguments::from_args();
    let postgres = Arc::new(Postgres::find());
    let missing = postgres.is_missing();
    let trials =
        modules.iter().copied().flatten().flat_map(|case| trials(case, &postgres)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    postgres.stop();
    if missing && !arguments.list {
        // The harness would capture `eprintln!`.
        let _ = std::io::stderr().write_all(
            b"\n*** POSTGRES WAS NOT TESTED ***\nNeither initdb nor TEST_DATABASE_URL is there; \
              the tests marked [postgres] were ignored.\n\n",
        );
        if std::env::var_os("OCTOPUS_REQUIRE_POSTGRES").is_some() {
            return ExitCode::FAILURE;
        }
    }
    conclusion.exit_code()
}

fn trials(case: &'static Case, postgres: &Arc<Postgres>) -> Vec<Trial> {
    let name = case.name.trim_start_matches("it::");
    let on_sqlite = |run: OnDatabase| {
        Trial::test(name, move || on_runtime(run, &Backend::sqlite())).with_kind("sqlite")
    };
    let on_postgres = |run: OnDatabase| {
        let server = postgres.clone();
        Trial::test(name, move || on_runtime(run, &Backend::postgres(server)))
            .with_kind("postgres")
            .with_ignored_flag(postgres.is_missing())
    };
    match case.run {
        Run::OnBoth(run) => vec![on_sqlite(run), on_postgres(run)],
        Run::OnSqlite(run) => vec![on_sqlite(run)],
        Run::OnPostgres(run) => vec![on_postgres(run)],
        Run::WithoutDatabase(run) => vec![Trial::test(name, move || catch(run))],
    }
}

fn on_runtime(test: OnDatabase, backend: &Backend) -> Result<(), Failed> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime starts");
    let result = catch(|| runtime.block_on(test(backend.clone())));
    runtime.block_on(backend.remove());
    result
}

fn catch(test: impl FnOnce()) -> Result<(), Failed> {
    catch_unwind(AssertUnwindSafe(test)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Failed::from(text.unwrap_or("panicked").to_owned())
    })
}
