//! A backup made under write load is equal to the database after one of the commits.
//!
//! The write-ahead log proves it. While a reader holds a snapshot from before the load, SQLite does
//! not checkpoint: the database file stays unchanged, and the log gets every commit in order. The
//! file with the log truncated after the nth commit is the database after that commit. The test
//! compares the hashes of all rows of every table, including the search index, with the backup.

use super::load::{Load, Until};
use crate::support::process::{Server, octopus_on, output_text};
use crate::support::table_hashes;
use crate::support::{Backend, Call, measured, scale};
use rand::RngExt;
use reqwest::Method;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const WRITERS: usize = 64;

/// The offset of the end of each commit in the log.
fn commits(log: &[u8]) -> Vec<usize> {
    const HEADER: usize = 32;
    const FRAME: usize = 24;
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    if log.len() < HEADER {
        return vec![];
    }
    let page = usize::try_from(number(8)).unwrap();
    let starts = (HEADER..).step_by(FRAME + page).take_while(|at| at + FRAME + page <= log.len());
    // Frames from before the last reset of the log have another salt.
    let valid = starts.take_while(|at| log[at + 8..at + 16] == log[16..24]);
    valid.filter(|at| number(at + 4) != 0).map(|at| at + FRAME + page).collect()
}

/// A reader that holds a snapshot of the file with an empty log, which prevents checkpoints.
async fn hold_the_log(database: &Path) -> SqliteConnection {
    let log = PathBuf::from(format!("{}-wal", database.display()));
    let options = SqliteConnectOptions::new().filename(database);
    for _ in 0..100 {
        let mut reader = options.connect().await.unwrap();
        reader
            .execute("PRAGMA wal_checkpoint(TRUNCATE); BEGIN; SELECT id FROM users")
            .await
            .unwrap();
        if fs::metadata(&log).unwrap().len() == 0 {
            return reader;
        }
        reader.close().await.unwrap(); // a background job wrote something
    }
    panic!("the log is never empty");
}

/// Restores the database after a commit of the log, in a separate folder.
struct Replay {
    folder: tempfile::TempDir,
    file: PathBuf,
    log: Vec<u8>,
    commits: Vec<usize>,
}

impl Replay {
    fn after(&self, commit: usize) -> PathBuf {
        let database = self.folder.path().join("replayed.db");
        fs::copy(&self.file, &database).unwrap();
        let end = commit.checked_sub(1).map_or(0, |commit| self.commits[commit]);
        fs::write(self.folder.path().join("replayed.db-wal"), &self.log[..end]).unwrap();
        let _ = fs::remove_file(self.folder.path().join("replayed.db-shm"));
        database
    }

    /// The commit in this range after which the database was equal to `backup`.
    async fn find(&self, backup: &Path, (first, last): (usize, usize)) -> Option<usize> {
        let (wanted, hashes_wanted) = (progress(backup).await, table_hashes(backup).await);
        // The first commit with the same progress.
        let (mut low, mut high) = (first, last);
        while low < high {
            let middle = usize::midpoint(low, high);
            if progress(&self.after(middle)).await < wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        for commit in low..=last {
            let database = self.after(commit);
            if progress(&database).await != wanted {
                return None;
            }
            if table_hashes(&database).await == hashes_wanted {
                return Some(commit);
            }
        }
        None
    }
}

/// The sum of all ids ever assigned, which never decreases from commit to commit.
async fn progress(database: &Path) -> i64 {
    const SQL: &str =
        "SELECT (SELECT SUM(seq) FROM sqlite_sequence) + (SELECT seq FROM audit_head)";
    let mut connection = SqliteConnectOptions::new().filename(database).connect().await.unwrap();
    let progress = sqlx::query_scalar(SQL).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    progress
}

async fn work_for(load: &mut Load, url: &str, time: Duration) {
    let stop = CancellationToken::new();
    let ending = async {
        sleep(time).await;
        stop.cancel();
    };
    tokio::join!(load.work(url, Until::Cancelled(stop.clone())), ending);
}

#[apply(on_sqlite!)]
async fn a_backup_under_load_is_the_database_after_one_commit(backend: Backend) {
    let variables = [("RATE_LIMIT_ENABLED", "false"), ("RUST_LOG", "warn")];
    let server = Server::start(&backend, &variables).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let bootstrap = Call::new(client.request(Method::POST, server.url("/bootstrap")));
    let admin = bootstrap.send().await.expect(200)["api_key"].as_str().unwrap().to_owned();
    let mut load = Load::new(WRITERS, &admin);
    let url = server.url("");
    work_for(&mut load, &url, Duration::from_millis(scale(500, 5000))).await;

    let database = backend.folder().join("octopus.db");
    let log = backend.folder().join("octopus.db-wal");
    let reader = hold_the_log(&database).await;
    let file = backend.folder().join("before.db");
    fs::copy(&database, &file).unwrap();
    let count = || commits(&fs::read(&log).unwrap()).len();
    let (stop, mut backups, mut slowest) = (CancellationToken::new(), vec![], Duration::ZERO);
    let backing_up = async {
        for n in 0..scale(2, 10) {
            sleep(Duration::from_millis(rand::rng().random_range(50..scale(200, 1000)))).await;
            let (name, before, began) = (format!("backup-{n}.db"), count(), Instant::now());
            let mut command = octopus_on(&backend).await;
            command.args(["backup", &name]);
            let output = spawn_blocking(move || command.output()).await.unwrap().unwrap();
            assert!(output.status.success(), "{}", output_text(&output));
            slowest = slowest.max(began.elapsed());
            // A commit is in the log before it is synced, and visible to others only after the
            // sync.
            backups.push((backend.folder().join(name), before.saturating_sub(1), count()));
        }
        stop.cancel();
    };
    tokio::join!(load.work(&url, Until::Cancelled(stop.clone())), backing_up);

    let log = fs::read(&log).unwrap();
    assert!(fs::read(&file).unwrap() == fs::read(&database).unwrap(), "the log was held");
    let folder = tempfile::tempdir_in(backend.folder()).unwrap();
    let replay = Replay { folder, file, commits: commits(&log), log };
    let all = replay.commits.len();
    let mut found = vec![];
    for (backup, before, after) in &backups {
        let commit = replay.find(backup, (*before, *after)).await;
        let Some(commit) = commit else {
            let progress = progress(backup).await;
            panic!("it never was in this state: {progress}, commits {before} to {after} of {all}");
        };
        found.push(format!("{commit} ({before} to {after} while it was made)"));
        let verified = octopus_on(&backend).await.arg("verify").arg(backup).output().unwrap();
        assert!(verified.status.success(), "{}", output_text(&verified));
    }
    // A backup with a single different value is not found.
    let spoilt = backend.folder().join("spoilt.db");
    let (backup, before, after) = &backups[0];
    fs::copy(backup, &spoilt).unwrap();
    let mut connection = SqliteConnectOptions::new().filename(&spoilt).connect().await.unwrap();
    connection.execute("UPDATE installation SET version = -1 WHERE id = 1").await.unwrap();
    connection.close().await.unwrap();
    assert_eq!(replay.find(&spoilt, (*before, *after)).await, None);
    drop(reader);
    // The backups caused no lost writes.
    let url = backend.url().await.parse().unwrap();
    let db = octopus::db::DbOptions::new().open(&url).await.unwrap().db;
    load.check(&db).await;
    db.close().await;
    assert_eq!(server.stop().0, Some(0));

    // A restored backup has the same contents.
    let elsewhere = backend.another();
    let key = "octopus.db.audit-key";
    fs::copy(backend.folder().join(key), elsewhere.folder().join(key)).unwrap();
    let (last, ..) = backups.last().unwrap();
    let restored = octopus_on(&elsewhere).await.arg("restore").arg(last).output().unwrap();
    assert!(restored.status.success(), "{}", output_text(&restored));
    assert_eq!(
        table_hashes(&elsewhere.folder().join("octopus.db")).await,
        table_hashes(last).await
    );
    assert_eq!(Server::start(&elsewhere, &[]).await.stop().0, Some(0));
    measured(&format!(
        "backup: {} backups while {WRITERS} writers made {all} commits, each equal in every row of \
         every table to the database after one of these: {}; slowest {} ms, {} bytes",
        backups.len(),
        found.join(", "),
        slowest.as_millis(),
        fs::metadata(last).unwrap().len()
    ));
}
