//! A server that is killed loses nothing it acknowledged, and is back at once.

use super::load::{Load, Until};
use crate::support::process::{Server, octopus_on, said};
use crate::support::{Backend, measured, scale, tests};
use octopus::db::{self, Db};
use rand::RngExt;
use serde_json::Value;
use std::time::Duration;
use tokio::time::sleep;

tests!(on_both: [
    nothing_acknowledged_is_lost_when_the_server_is_killed,
]);

/// Writers at a time.
const WRITERS: usize = 64;
/// What every server of these tests is told.
const VARIABLES: [(&str, &str); 2] = [("RATE_LIMIT_ENABLED", "false"), ("RUST_LOG", "warn")];

/// The server's first key.
async fn admin(server: &Server) -> String {
    let answer = reqwest::Client::new().post(server.url("/bootstrap")).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    answer["api_key"].as_str().expect("a key").to_owned()
}

/// The database that a server is at work on.
async fn beside(backend: &Backend) -> Db {
    db::open_existing(&backend.url().await.parse().unwrap()).await.unwrap()
}

/// Asserts that `octopus verify` finds the audit chain whole.
async fn verifies(backend: &Backend) {
    let verified = octopus_on(backend).await.arg("verify").output().unwrap();
    assert!(verified.status.success(), "{}", said(&verified));
}

async fn nothing_acknowledged_is_lost_when_the_server_is_killed(backend: Backend) {
    let mut server = Server::start(&backend, &VARIABLES).await;
    let mut load = Load::new(WRITERS, &admin(&server).await);
    let (kills, patience) = scale((3, Duration::from_secs(9)), (50, Duration::from_secs(2)));
    let mut slowest = Duration::ZERO;
    for _ in 0..kills {
        let url = server.url("");
        let moment = Duration::from_millis(rand::rng().random_range(scale(200..500, 100..2000)));
        let killing = async {
            sleep(moment).await;
            server.kill();
        };
        tokio::join!(load.work(&url, &Until::CutOff), killing);
        let took = server.start_again().await;
        assert!(took < patience, "ready after {took:?}");
        slowest = slowest.max(took);
        let db = beside(&backend).await;
        load.check(&db).await;
        db.close().await;
        verifies(&backend).await;
        load.check_credentials(&url).await;
    }
    let ((lost, happened), (repeated, before)) = (load.lost_answers, load.repeated());
    measured(&format!(
        "crash, {}: {kills} kills, {} acknowledged writes, 0 lost; of {lost} whose answers were lost \
         {happened} had happened, none in part; {repeated} were sent again, {before} of which had \
         happened, none twice; slowest start {} ms",
        backend.kind(),
        load.acknowledged(),
        slowest.as_millis()
    ));
}
