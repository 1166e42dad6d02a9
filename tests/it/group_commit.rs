//! Group commit: concurrent writers on SQLite share a transaction without affecting one another.

use crate::support::{Backend, TestApp};
use futures_util::FutureExt;
use octopus::db::{Db, query, settled};
use rand::RngExt;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How a writer ends its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Commits,
    RollsBack,
    IsDropped,
    Fails,
    IsCancelled,
}

const INSERT: &str = "INSERT INTO users \
    (email, email_key, username, username_key, password_hash, created_at, updated_at) \
    VALUES ($1, $1, $1, $1, 'x', '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00') \
    RETURNING id";

/// Inserts a user called `name`. Returns whether the user is stored.
async fn insert(db: &Db, name: &str, ending: Ending) -> sqlx::Result<bool> {
    let mut tx = db.begin().await?;
    query(&mut tx, INSERT).bind(name).one::<(i64,)>().await?;
    match ending {
        Ending::Commits => tx.commit().await.map(|()| true),
        Ending::RollsBack => tx.rollback().await.map(|()| false),
        Ending::IsDropped => Ok(false),
        // The name exists already.
        Ending::Fails => query(&mut tx, INSERT).bind(name).execute().await.map(|_| true),
        Ending::IsCancelled => {
            sleep(Duration::from_millis(1)).await;
            std::future::pending().await
        }
    }
}

async fn stored(db: &Db) -> BTreeSet<String> {
    let rows: Vec<(String,)> = query(db, "SELECT username FROM users").all().await.unwrap();
    rows.into_iter().map(|(name,)| name).collect()
}

async fn write_all(app: &TestApp, endings: &[Ending]) {
    let mut expected = stored(&app.state.db).await;
    let mut writers = JoinSet::new();
    for (n, ending) in endings.iter().copied().enumerate() {
        let (db, name) = (app.state.db.clone(), format!("user-{n}"));
        writers.spawn(async move {
            let writing = insert(&db, &name, ending);
            let done = match ending {
                Ending::IsCancelled => timeout(Duration::from_millis(n as u64 % 7), writing).await,
                _ => Ok(writing.await),
            };
            let is_stored = match done {
                Ok(Ok(is_stored)) => is_stored,
                Ok(Err(error)) => {
                    assert_eq!(ending, Ending::Fails, "{name}: {error}");
                    false
                }
                Err(_) => false,
            };
            is_stored.then_some(name)
        });
    }
    expected.extend(writers.join_all().await.into_iter().flatten());
    assert_eq!(stored(&app.state.db).await, expected);
    // The next writer succeeds.
    assert!(insert(&app.state.db, "after-them", Ending::Commits).await.unwrap());
}

#[apply(on_both!)]
async fn each_of_many_concurrent_writers_gets_its_result(backend: Backend) {
    let app = TestApp::new(&backend).await;
    write_all(&app, &[Ending::Commits; 400]).await;
}

#[apply(on_both!)]
async fn a_failed_or_cancelled_writer_does_not_affect_others(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let all =
        [Ending::Commits, Ending::RollsBack, Ending::IsDropped, Ending::Fails, Ending::IsCancelled];
    let endings: Vec<Ending> =
        (0..400).map(|_| all[rand::rng().random_range(0..all.len())]).collect();
    write_all(&app, &endings).await;
}

/// The number of commits in SQLite's write-ahead log: frames with the database size in pages.
fn commits(backend: &Backend) -> usize {
    const HEADER: usize = 32;
    const FRAME: usize = 24;
    let log = fs::read(backend.folder().join("octopus.db-wal")).unwrap();
    if log.is_empty() {
        return 0;
    }
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let page = usize::try_from(number(8)).unwrap();
    let frames = (HEADER..).step_by(FRAME + page).take_while(|at| at + FRAME <= log.len());
    frames.filter(|at| log[at + 8..at + 16] == log[16..24] && number(at + 4) != 0).count()
}

#[apply(on_sqlite!)]
async fn waiting_writers_share_a_commit_and_a_single_one_does_not_wait(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let before = commits(&backend);
    for n in 0..20 {
        assert!(insert(&app.state.db, &format!("alone-{n}"), Ending::Commits).await.unwrap());
    }
    let alone = commits(&backend) - before;
    assert!(alone >= 20, "{alone} commits for 20 writers, one after the other");
    write_all(&app, &[Ending::Commits; 200]).await;
    let together = commits(&backend) - before - alone;
    assert!(together < 100, "{together} commits for 201 writers, 200 of them concurrent");
}

#[apply(on_both!)]
async fn after_a_failed_statement_no_other_is_run(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let before = stored(&app.state.db).await;
    for first in ["INSERT INTO users (email) VALUES ($1)", "SELECT id FROM no_such_table"] {
        let mut tx = app.state.db.begin().await.unwrap();
        query(&mut tx, first).bind("first").optional::<(i64,)>().await.unwrap_err();
        query(&mut tx, INSERT).bind("second").one::<(i64,)>().await.unwrap_err();
        // Postgres reports success for such a COMMIT, and rolls back.
        let _ = tx.commit().await;
    }
    assert_eq!(stored(&app.state.db).await, before);
    assert!(insert(&app.state.db, "after-them", Ending::Commits).await.unwrap());
}

/// Long enough for a task to queue.
const QUEUE_TIME: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(10);

#[apply(on_sqlite!)]
async fn a_writer_does_not_wait_for_a_long_write_that_started_later(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let first = app.state.db.begin().await.unwrap();
    let db = app.state.db.clone();
    let short = tokio::spawn(async move { insert(&db, "short", Ending::Commits).await });
    sleep(QUEUE_TIME).await;
    let (db, (started, has_started), (release, released)) =
        (app.state.db.clone(), oneshot::channel(), oneshot::channel::<()>());
    let long = tokio::spawn(async move {
        let tx = db.begin_long().await.unwrap();
        started.send(()).unwrap();
        released.await.unwrap();
        tx.commit().await
    });
    sleep(QUEUE_TIME).await;
    drop(first);
    timeout(PATIENCE, has_started).await.unwrap().unwrap();
    assert!(timeout(PATIENCE, short).await.expect("it ends before the long one").unwrap().unwrap());
    let db = app.state.db.clone();
    let after = tokio::spawn(async move { insert(&db, "after", Ending::Commits).await });
    release.send(()).unwrap();
    timeout(PATIENCE, long).await.unwrap().unwrap().unwrap();
    assert!(timeout(PATIENCE, after).await.unwrap().unwrap().unwrap());
    assert!(stored(&app.state.db).await.is_superset(&["short", "after"].map(str::to_owned).into()));
}

#[apply(on_sqlite!)]
async fn no_response_shows_a_row_that_is_not_yet_durable(backend: Backend) {
    const FIND: &str = "SELECT id FROM users WHERE username = 'new'";
    let app = TestApp::new(&backend).await;
    let first = app.state.db.begin().await.unwrap();
    // Its commit group closes before the next transaction begins, if that waits for a moment.
    sleep(QUEUE_TIME).await;
    let db = app.state.db.clone();
    let writer = tokio::spawn(async move { insert(&db, "new", Ending::Commits).await });
    sleep(QUEUE_TIME).await;
    let db = app.state.db.clone();
    let reader = tokio::spawn(settled(async move {
        let mut tx = db.begin().await.unwrap();
        query(&mut tx, FIND).optional::<(i64,)>().await.unwrap()
    }));
    sleep(QUEUE_TIME).await;
    let (db, (release, released)) = (app.state.db.clone(), oneshot::channel::<()>());
    let last = tokio::spawn(async move {
        let tx = db.begin().await.unwrap();
        released.await.unwrap();
        drop(tx);
    });
    sleep(QUEUE_TIME).await;
    drop(first);
    // The writer has written and the reader has read; neither may return before the commit group
    // ends.
    sleep(2 * QUEUE_TIME).await;
    assert_eq!((writer.is_finished(), reader.is_finished()), (false, false));
    assert!(!stored(&app.state.db).await.contains("new"));
    release.send(()).unwrap();
    timeout(PATIENCE, last).await.unwrap().unwrap();
    assert!(timeout(PATIENCE, writer).await.unwrap().unwrap().unwrap());
    assert!(timeout(PATIENCE, reader).await.unwrap().unwrap().unwrap().is_some());
    assert!(stored(&app.state.db).await.contains("new"));
}

#[apply(on_sqlite!)]
async fn a_writer_cancelled_in_its_first_statement_does_not_affect_others(backend: Backend) {
    let app = TestApp::new(&backend).await;
    for n in 0..20 {
        let first = app.state.db.begin().await.unwrap();
        let mut writers = JoinSet::new();
        for part in ["first", "last"] {
            let (db, name) = (app.state.db.clone(), format!("{part}-{n}"));
            writers.spawn(async move { insert(&db, &name, Ending::Commits).await });
            sleep(Duration::from_millis(5)).await;
            let db = app.state.db.clone();
            tokio::spawn(async move {
                let mut tx = db.begin().await.unwrap();
                // Sent and cancelled: SQLite's thread stops between two statements.
                let _ = query(&mut tx, INSERT).bind("cut-off").one::<(i64,)>().now_or_never();
            });
            sleep(Duration::from_millis(5)).await;
        }
        drop(first);
        for written in timeout(PATIENCE, writers.join_all()).await.unwrap() {
            assert!(written.unwrap());
        }
    }
    assert!(!stored(&app.state.db).await.contains("cut-off"));
}
