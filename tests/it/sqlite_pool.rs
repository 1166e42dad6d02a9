//! The connection pool for SQLite readers: a pooled connection keeps no state of its previous user.

use crate::support::{Backend, TestApp};
use octopus::db::{Db, query};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The number of connections for readers.
const READERS: usize = 4;
const COUNT: &str = "SELECT COUNT(*) FROM conversations";

async fn add(db: &Db, title: &str) {
    let mut tx = db.begin().await.unwrap();
    let sql = "INSERT INTO conversations (title, created_at, updated_at) \
               VALUES ($1, '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00')";
    query(&mut tx, sql).bind(title).execute().await.unwrap();
    tx.commit().await.unwrap();
}

async fn count(db: &Db) -> i64 {
    let (count,): (i64,) = query(db, COUNT).one().await.unwrap();
    count
}

/// The count seen by every reader connection. All are acquired at the same time, so each is used
/// once.
async fn count_on_each(db: &Db) -> Vec<i64> {
    let mut snapshots = vec![];
    for _ in 0..READERS {
        snapshots.push(
            timeout(Duration::from_secs(5), db.snapshot())
                .await
                .expect("a free connection")
                .unwrap(),
        );
    }
    let mut counts = vec![];
    for snapshot in &mut snapshots {
        let (count,): (i64,) = query(snapshot, COUNT).one().await.unwrap();
        counts.push(count);
    }
    counts
}

fn used(db: &Db) -> usize {
    db.pools().iter().map(|pool| pool.used).sum()
}

async fn wait_until_idle(db: &Db) {
    let end = Instant::now() + Duration::from_secs(10);
    while used(db) > 0 {
        assert!(Instant::now() < end, "{:?}", db.pools());
        sleep(Duration::from_millis(5)).await;
    }
}

#[apply(on_sqlite!)]
async fn a_reader_never_gets_the_snapshot_of_an_earlier_reader(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let db = &app.state.db;
    let before = count(db).await;
    for n in 1..=20 {
        assert_eq!(count_on_each(db).await, [before + n - 1; READERS]);
        add(db, &format!("conversation-{n}")).await;
        let mut readers = JoinSet::new();
        for _ in 0..READERS * 2 {
            let db = db.clone();
            readers.spawn(async move { count(&db).await });
        }
        assert_eq!(readers.join_all().await, [before + n; READERS * 2]);
    }
    wait_until_idle(db).await;
}

#[apply(on_sqlite!)]
async fn a_cancelled_or_failed_read_returns_its_connection(backend: Backend) {
    // Takes about 20 ms.
    const SLOW: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
        SELECT COUNT(*) FROM n";
    let app = TestApp::new(&backend).await;
    let db = &app.state.db;
    for n in 0..100 {
        let patience = Duration::from_micros(n * 200);
        match n % 4 {
            0 => drop(timeout(patience, query(db, SLOW).one::<(i64,)>()).await),
            1 => drop(timeout(patience, query(db, SLOW).all::<(i64,)>()).await),
            // BEGIN is sent, and the future is dropped before the response.
            2 => drop(timeout(Duration::ZERO, db.snapshot()).await),
            _ => {
                let failed = query(db, "SELECT COUNT(*) FROM nothing").one::<(i64,)>().await;
                assert!(failed.is_err());
                let mut snapshot = db.snapshot().await.unwrap();
                let failed = query(&mut snapshot, "SELECT 1 FROM nothing").one::<(i64,)>().await;
                assert!(failed.is_err());
            }
        }
    }
    add(db, "the-last").await;
    let expected = count(db).await;
    assert_eq!(count_on_each(db).await, [expected; READERS]);
    wait_until_idle(db).await;
}

#[apply(on_sqlite!)]
async fn a_waiting_reader_gets_the_next_free_connection(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let db = app.state.db.clone();
    let mut held = vec![];
    for _ in 0..READERS {
        held.push(db.snapshot().await.unwrap());
    }
    let mut waiting = JoinSet::new();
    for _ in 0..20 {
        let db = db.clone();
        waiting.spawn(async move { count(&db).await });
    }
    sleep(Duration::from_millis(50)).await;
    assert!(waiting.try_join_next().is_none(), "there is no fifth connection");
    drop(held.pop());
    let all = timeout(Duration::from_secs(5), waiting.join_all())
        .await
        .expect("one connection serves all readers");
    assert_eq!(all.len(), 20);
    drop(held);
    wait_until_idle(&db).await;
    // `close` waits for open readers, and no further connection can be acquired.
    let mut snapshot = db.snapshot().await.unwrap();
    let closing = tokio::spawn({
        let db = db.clone();
        async move { db.close().await }
    });
    sleep(Duration::from_millis(50)).await;
    assert!(!closing.is_finished());
    assert!(matches!(db.snapshot().await, Err(sqlx::Error::PoolClosed)));
    let (_,): (i64,) = query(&mut snapshot, COUNT).one().await.unwrap();
    drop(snapshot);
    timeout(Duration::from_secs(5), closing).await.expect("no reader is left").unwrap();
}
