//! Measures the lookup of an API key: `cargo bench --bench key_lookup`. A report, not a test. It
//! prints processor time, which other programs on the machine affect little.

use octopus::core::clock::Clock;
use octopus::core::config::Config;
use octopus::features::api_keys::bootstrap;
use octopus::security::secret::SecretHash;
use octopus::state::AppState;
use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 1_000_000;

/// Processor time of this thread, in nanoseconds.
fn used() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("/proc of Linux");
    text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

fn report(what: &str, rounds: u32, nanoseconds: u64) {
    println!("{what:<44} {:>8} ns", nanoseconds / u64::from(rounds));
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:///{}/bench.db", folder.path().display());
    let variables = HashMap::from([("DATABASE_URL".to_owned(), url)]);
    let config = Config::from_variables(variables).expect("a configuration");
    let app = AppState::open(config, Clock::default()).await.expect("a server");
    let created = bootstrap::from_command_line(&app).await.expect("the first key");
    let key = created.key.expose();

    let start = used();
    for _ in 0..ROUNDS {
        std::hint::black_box(SecretHash::of(std::hint::black_box(key)));
    }
    report("hashing a key", ROUNDS, used() - start);

    app.keys.enable_until(Instant::now() + Duration::from_hours(1));
    let start = used();
    let mut valid = 0;
    for _ in 0..ROUNDS {
        let found = app.keys.find(std::hint::black_box(key)).await.expect("the database answers");
        let good = found.is_some_and(|key| key.check(app.clock.now(), None).is_ok());
        valid += u32::from(good);
    }
    report("a cached key, hashed, found and checked", ROUNDS, used() - start);
    assert_eq!(valid, ROUNDS);

    app.keys.disable();
    let rounds = ROUNDS / 50;
    let start = used();
    for _ in 0..rounds {
        app.keys.find(std::hint::black_box(key)).await.expect("the database answers");
    }
    report("the same from SQLite, this thread's part", rounds, used() - start);
}
