//! A killed server loses no acknowledged write and restarts quickly.

use super::load::{Load, Until};
use crate::support::process::{Server, octopus_on, output_text};
use crate::support::{Answer, Backend, Call, Postgres, measured, print_uncaptured, scale};
use octopus::db::{Db, DbOptions};
use rand::RngExt;
use reqwest::Method;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Concurrent writers.
const WRITERS: usize = 64;
/// The settings of the servers.
const VARIABLES: [(&str, &str); 2] = [("RATE_LIMIT_ENABLED", "false"), ("RUST_LOG", "warn")];

/// A request to the server.
fn call(server: &Server, method: Method, path: &str) -> Call {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    Call::new(client.request(method, server.url(path)))
}

/// Creates the server's first key.
async fn admin(server: &Server) -> String {
    let answer = call(server, Method::POST, "/bootstrap").send().await.expect(200);
    answer["api_key"].as_str().expect("a key").to_owned()
}

/// The database of a running server.
async fn beside(backend: &Backend) -> Db {
    DbOptions::new().open(&backend.url().await.parse().unwrap()).await.unwrap().db
}

/// Asserts that `octopus verify` finds the audit chain whole.
async fn verifies(backend: &Backend) {
    let verified = octopus_on(backend).await.arg("verify").output().unwrap();
    assert!(verified.status.success(), "{}", output_text(&verified));
}

#[apply(on_both!)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed(backend: Backend) {
    let mut server = Server::start(&backend, &VARIABLES).await;
    let mut load = Load::new(WRITERS, &admin(&server).await);
    let (kills, patience) = scale((3, Duration::from_secs(9)), (50, Duration::from_secs(2)));
    let mut slowest = Duration::ZERO;
    for _ in 0..kills {
        let url = server.url("");
        let moment = Duration::from_millis(rand::rng().random_range(scale(200..500, 200..4000)));
        let killing = async {
            sleep(moment).await;
            server.kill();
        };
        tokio::join!(load.work(&url, Until::CutOff), killing);
        let took = server.start_again().await;
        assert!(took < patience, "ready after {took:?}");
        slowest = slowest.max(took);
        let db = beside(&backend).await;
        load.check(&db).await;
        db.close().await;
        verifies(&backend).await;
        load.check_credentials(&url).await;
    }
    let (kinds, all) = load.kinds();
    let ((lost, happened), (repeated, before)) = (load.lost_answers, load.repeated());
    measured(&format!(
        "crash, {}: {kills} kills, {} acknowledged writes of {kinds} of {all} kinds, 0 lost; of {lost} whose answers were lost \
         {happened} had happened, none in part; {repeated} were sent again, {before} of which had \
         happened, none twice; slowest start {} ms",
        backend.kind(),
        load.acknowledged(),
        slowest.as_millis()
    ));
}

/// Waits until `/ready` has this status. Returns the duration.
async fn until_ready_is(server: &Server, status: u16) -> Duration {
    let began = Instant::now();
    loop {
        let answer = call(server, Method::GET, "/ready").send().await;
        if answer.status == status {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{answer:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Asserts the response to a request during a database outage.
fn refused_for_now(answer: &Answer) {
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    // During the start of Postgres, the detail may also be about a missing connection.
    let detail = answer["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("The database ") && detail.ends_with("; try again in a moment"),
        "{detail}"
    );
}

#[apply(on_postgres!)]
async fn when_postgres_is_killed_writes_are_refused_until_it_is_back_and_none_is_lost(
    shared: Backend,
) {
    let Some(postgres) = Postgres::durable().map(Arc::new) else {
        // The server at TEST_DATABASE_URL is shared, so the test must not kill it.
        print_uncaptured(
            "\n*** THE END OF POSTGRES WAS NOT TESTED ***\nIts programs are not there.\n\n",
        );
        return drop(shared);
    };
    let backend = Backend::postgres(postgres.clone());
    backend.start_empty();
    let server = Server::start(&backend, &VARIABLES).await;
    let (url, key) = (server.url(""), admin(&server).await);
    let (mut load, at_rest) = (Load::new(WRITERS, &key), server.open_files());
    let (mut slowest, mut slowest_refusal) = (Duration::ZERO, Duration::ZERO);
    // KILL is the hardest end of the process; QUIT is the immediate shutdown of an administrator.
    let kills = scale(1, 10);
    for signal in ["KILL", "QUIT"].into_iter().cycle().take(kills) {
        let stop = CancellationToken::new();
        let outage = async {
            sleep(Duration::from_millis(rand::rng().random_range(scale(200..500, 100..3000))))
                .await;
            postgres.kill(signal);
            until_ready_is(&server, 503).await;
            let began = Instant::now();
            let write = call(&server, Method::POST, "/api/v1/conversations").key(&key);
            let write = write.json(json!({"title": "refused"})).send();
            let read = call(&server, Method::GET, "/api/v1/users").key(&key).send();
            let (write, read) = tokio::join!(write, read);
            refused_for_now(&write);
            refused_for_now(&read);
            slowest_refusal = slowest_refusal.max(began.elapsed());
            call(&server, Method::GET, "/health").send().await.expect(200);
            postgres.start_again();
            slowest = slowest.max(until_ready_is(&server, 200).await);
            sleep(Duration::from_millis(500)).await;
            stop.cancel();
        };
        tokio::join!(load.work(&url, Until::Cancelled(stop.clone())), outage);
        let (refused, before) = (load.unavailable, load.acknowledged());
        // All writers continue, and no write is refused.
        let stop = CancellationToken::new();
        let ending = async {
            sleep(Duration::from_secs(1)).await;
            stop.cancel();
        };
        tokio::join!(load.work(&url, Until::Cancelled(stop.clone())), ending);
        assert_eq!(load.unavailable, refused, "writes were refused when Postgres was back");
        assert!(load.acknowledged() >= before + WRITERS);
        let db = beside(&backend).await;
        load.check(&db).await;
        db.close().await;
        verifies(&backend).await;
        load.check_credentials(&url).await;
    }
    let (lost, happened) = load.lost_answers;
    measured(&format!(
        "postgres killed: {kills} times, {} acknowledged writes, 0 lost; {} answers were 503, the \
         slowest after {} ms; of {lost} writes that were not acknowledged {happened} had happened, \
         none in part; ready {} ms after Postgres at most",
        load.acknowledged(),
        load.unavailable,
        slowest_refusal.as_millis(),
        slowest.as_millis()
    ));
    // Broken connections are closed. Those of the pool stay open.
    let began = Instant::now();
    while server.open_files() > at_rest + 16 {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{} files are open",
            server.open_files()
        );
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.stop().0, Some(0));
    // The data is deleted afterwards, so a clean shutdown is not needed.
    postgres.kill("QUIT");
    postgres.stop();
}
