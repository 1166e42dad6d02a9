//! Clients that disconnect before the response: the server applies their writes entirely or not at
//! all.

use super::load::{Load, Until, Write, Writer};
use crate::support::{Backend, TestApp, measured, scale};
use rand::RngExt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Writes that each writer completes first, so that it has entities to change.
const PATIENT: usize = 10;

/// The number of used connections of each pool.
fn used(app: &TestApp) -> Vec<usize> {
    app.state.db.pools().iter().map(|pool| pool.used).collect()
}

#[apply(on_both!)]
async fn writes_of_clients_that_disconnect_are_applied_entirely_or_not_at_all(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let mut load = Load::new(scale(24, 64), &app.admin().await);
    let url = format!("http://{}", app.address);
    app.get("/ready").send().await.expect(200);
    // The connections that listen for Postgres notifications are always in use.
    sleep(Duration::from_millis(200)).await;
    let at_rest = used(&app);
    let hang_ups = scale(200, 2000);
    let left = Arc::new(AtomicUsize::new(hang_ups));
    load.each(|writer| impatient(writer, app.address, left.clone())).await;

    // New writes succeed while the server still works on the abandoned ones.
    let stop = CancellationToken::new();
    let ending = async {
        sleep(Duration::from_secs(1)).await;
        stop.cancel();
    };
    let before = load.acknowledged();
    tokio::join!(load.work(&url, Until::Cancelled(stop.clone())), ending);
    assert!(load.acknowledged() > before);
    assert_eq!(load.unavailable, 0);

    let end = Instant::now() + Duration::from_mins(1);
    while !app.state.tasks.is_empty() {
        assert!(Instant::now() < end, "{} writes are still at work", app.state.tasks.len());
        sleep(Duration::from_millis(20)).await;
    }
    load.check(&app.state.db).await;
    load.check_credentials(&url).await;
    no_connection_is_lost(&app, &at_rest).await;
    let ((lost, happened), (repeated, before)) = (load.lost_answers, load.repeated());
    measured(&format!(
        "cancellation, {}: {hang_ups} clients hung up; of {lost} writes that were left so {happened} had \
         happened, none in part; {repeated} were sent again, {before} of which had happened, none \
         twice; {} writes acknowledged, 0 lost; every connection is back in its pool",
        backend.kind(),
        load.acknowledged(),
    ));
}

/// Waits for the first responses, then only for every other one, until `left` writes are abandoned.
async fn impatient(mut writer: Writer, server: SocketAddr, left: Arc<AtomicUsize>) -> Writer {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{server}");
    for n in 0.. {
        let write = writer.next();
        if n >= PATIENT && n % 2 == 0 {
            let more = |left: usize| left.checked_sub(1);
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
                // This write is not sent. A retry is not needed.
                writer.mark_unconfirmed(write);
                break;
            }
            hang_up(&write, server).await;
            writer.mark_unconfirmed(write);
        } else {
            let answer = write.call(&client, &url).send().await;
            writer.acknowledge(write, &answer);
        }
    }
    writer
}

/// Sends `write` or a part of it, and disconnects.
async fn hang_up(write: &Write, server: SocketAddr) {
    let (head, body) = write.text();
    let text = [head.as_bytes(), body.as_bytes()].concat();
    let (way, moment, reset) = {
        let mut rng = rand::rng();
        (rng.random_range(0..5), rng.random_range(0..40_000), rng.random())
    };
    let part = match way {
        0 => head.len() / 2,
        1 => head.len() + body.len() / 2,
        _ => text.len(),
    };
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&text[..part]).await.unwrap();
    match way {
        // Right after the last byte.
        2 => {}
        // During the work of the server, or after its response.
        3 => sleep(Duration::from_micros(moment)).await,
        // Like a client after its timeout: it shuts down its sending side and closes a little
        // later.
        4 => {
            let _ = stream.shutdown().await;
            sleep(Duration::from_micros(moment)).await;
        }
        _ => sleep(Duration::from_micros(moment / 10)).await,
    }
    if reset {
        // Closes with a reset, so that the kernel refuses the response instead of discarding it.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

/// Asserts that every connection is back in its pool, and in no transaction.
async fn no_connection_is_lost(app: &TestApp, at_rest: &[usize]) {
    const IN_TRANSACTION: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM pg_stat_activity \
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    let end = Instant::now() + Duration::from_secs(20);
    while used(app).iter().zip(at_rest).any(|(used, before)| used > before) {
        assert!(Instant::now() < end, "{:?} connections are in use", used(app));
        sleep(Duration::from_millis(20)).await;
    }
    if app.state.db.kind() == "postgres" {
        assert_eq!(app.number(IN_TRANSACTION).await, 0);
    }
    // Acquires all connections of the pool at the same time.
    let most = if app.state.db.kind() == "postgres" { 16 - at_rest[0] } else { 1 };
    let mut open = vec![];
    for _ in 0..most {
        open.push(app.state.db.begin().await.expect("a connection that works"));
    }
    for tx in open {
        tx.rollback().await.unwrap();
    }
}
