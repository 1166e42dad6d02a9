//! Measures group commit: `cargo bench --bench writes` prints writes per second on SQLite, with one
//! transaction per write and with shared commit groups. A report, not a test.
//!
//! A write is two inserts. The file is in `BENCH_FOLDER` or the folder for temporary files. A file
//! system in memory shows no difference.

use octopus::core::config::DatabaseUrl;
use octopus::db::{Db, DbOptions, query};
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const WRITERS: [usize; 3] = [1, 8, 64];
const TIME: Duration = Duration::from_secs(3);

async fn write(db: &Db, is_alone: bool, n: u64) -> sqlx::Result<()> {
    const SQL: &str = "INSERT INTO items (item_id, name) VALUES ($1, 'a name')";
    let mut tx = if is_alone { db.begin_long().await? } else { db.begin().await? };
    for part in ["a", "b"] {
        query(&mut tx, SQL).bind(format!("{part}-{n}")).execute().await?;
    }
    tx.commit().await
}

/// Writes per second of so many concurrent writers, and the slowest write in milliseconds.
async fn rate(db: &Db, writers: usize, is_alone: bool, next: &Arc<AtomicU64>) -> (f64, f64) {
    let end = Instant::now() + TIME;
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (db, next) = (db.clone(), next.clone());
            tokio::spawn(async move {
                let (mut written, mut slowest) = (0_u32, Duration::ZERO);
                while Instant::now() < end {
                    let start = Instant::now();
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    write(&db, is_alone, n).await.expect("a write");
                    slowest = slowest.max(start.elapsed());
                    written += 1;
                }
                (written, slowest)
            })
        })
        .collect();
    let (mut written, mut slowest) = (0, Duration::ZERO);
    for task in tasks {
        let (count, longest) = task.await.expect("a writer");
        written += count;
        slowest = slowest.max(longest);
    }
    (f64::from(written) / TIME.as_secs_f64(), slowest.as_secs_f64() * 1000.0)
}

#[tokio::main]
async fn main() {
    let folder = env::var_os("BENCH_FOLDER").map_or_else(env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(folder).expect("a folder");
    let url = format!("sqlite:///{}", folder.path().join("writes.db").display());
    let url: DatabaseUrl = url.parse().expect("a URL");
    let options = DbOptions::new().create(true).migrate(true);
    let db = options.open(&url).await.expect("a database").db;
    let next = Arc::new(AtomicU64::new(0));
    println!(
        "{:>8} {:>12} {:>12} {:>8} {:>22}",
        "writers", "alone /s", "shared /s", "times", "slowest, ms"
    );
    for writers in WRITERS {
        let (alone, slow_alone) = rate(&db, writers, true, &next).await;
        let (shared, slow_shared) = rate(&db, writers, false, &next).await;
        let times = shared / alone;
        println!(
            "{writers:>8} {alone:>12.0} {shared:>12.0} {times:>8.1} {slow_alone:>10.0} {slow_shared:>10.0}"
        );
    }
    db.close().await;
}
