//! Connections to SQLite are lent to one reader after the other, and nobody notices who had them before.

use crate::support::{Backend, TestApp, tests};
use octopus::db::{Db, query};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

tests!(on_both: [], on_sqlite: [
    whoever_reads_next_is_in_no_snapshot_of_the_one_before,
    a_read_that_is_given_up_or_fails_takes_no_connection_with_it,
    who_waits_for_a_connection_gets_the_next_one,
]);

/// Readers at the same time.
const READERS: usize = 4;
const COUNT: &str = "SELECT COUNT(*) FROM items";

async fn add(db: &Db, id: &str) {
    let mut tx = db.begin().await.unwrap();
    let sql = "INSERT INTO items (item_id, name) VALUES ($1, $1)";
    query(&mut tx, sql).bind(id).execute().await.unwrap();
    tx.commit().await.unwrap();
}

async fn count(db: &Db) -> i64 {
    let (count,): (i64,) = query(db, COUNT).one().await.unwrap();
    count
}

/// What every connection that reads sees; asked at the same time, so that none is asked twice.
async fn count_on_each(db: &Db) -> Vec<i64> {
    let mut snapshots = vec![];
    for _ in 0..READERS {
        snapshots.push(
            timeout(Duration::from_secs(5), db.snapshot()).await.expect("one is free").unwrap(),
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

async fn comes_to_rest(db: &Db) {
    let end = Instant::now() + Duration::from_secs(10);
    while used(db) > 0 {
        assert!(Instant::now() < end, "{:?}", db.pools());
        sleep(Duration::from_millis(5)).await;
    }
}

async fn whoever_reads_next_is_in_no_snapshot_of_the_one_before(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let db = &app.state.db;
    let before = count(db).await;
    for n in 1..=20 {
        assert_eq!(count_on_each(db).await, [before + n - 1; READERS]);
        add(db, &format!("item-{n}")).await;
        let mut readers = JoinSet::new();
        for _ in 0..READERS * 2 {
            let db = db.clone();
            readers.spawn(async move { count(&db).await });
        }
        assert_eq!(readers.join_all().await, [before + n; READERS * 2]);
    }
    comes_to_rest(db).await;
}

async fn a_read_that_is_given_up_or_fails_takes_no_connection_with_it(backend: Backend) {
    // Some 20 ms.
    const SLOW: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
        SELECT COUNT(*) FROM n";
    let app = TestApp::new(&backend).await;
    let db = &app.state.db;
    for n in 0..100 {
        let patience = Duration::from_micros(n * 200);
        match n % 4 {
            0 => drop(timeout(patience, query(db, SLOW).one::<(i64,)>()).await),
            1 => drop(timeout(patience, query(db, SLOW).all::<(i64,)>()).await),
            // BEGIN is sent, and nobody waits for its answer.
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
    comes_to_rest(db).await;
}

async fn who_waits_for_a_connection_gets_the_next_one(backend: Backend) {
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
    assert!(waiting.try_join_next().is_none(), "there is no fifth");
    drop(held.pop());
    let all =
        timeout(Duration::from_secs(5), waiting.join_all()).await.expect("one is enough for all");
    assert_eq!(all.len(), 20);
    drop(held);
    comes_to_rest(&db).await;
    // Who closes it waits for those who still read, and lends to nobody else.
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
    timeout(Duration::from_secs(5), closing).await.expect("nobody reads any more").unwrap();
}
