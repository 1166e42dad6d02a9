//! Tests of `octopus restore`.

use super::{backed_up, filled, mode, names_in, run};
use crate::support::process::{Server, octopus_on, output_text};
use crate::support::table_hashes;
use crate::support::{Backend, TestApp, measured, scale};
use octopus::db::query;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;

fn database(backend: &Backend) -> PathBuf {
    backend.folder().join("octopus.db")
}

/// The names of the files in which restores kept the replaced databases.
fn kept(backend: &Backend) -> Vec<String> {
    let mut names = names_in(backend.folder());
    names.retain(|name| name.starts_with("octopus.db.before-restore-"));
    names
}

async fn restored(backend: &Backend, arguments: &[&str]) -> String {
    let output = run(backend, &[&["restore"], arguments].concat()).await;
    assert!(
        output.status.success(),
        "{}\n{}",
        output_text(&output),
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(output_text(output).contains(why), "{}", output_text(output));
}

/// A database that has changed since its backup `b.db`.
async fn changed(backend: &Backend) -> (TestApp, String) {
    let (app, admin) = filled(backend).await;
    backed_up(backend, "b.db").await;
    app.user("cid").await;
    (app, admin)
}

#[apply(on_sqlite!)]
async fn a_restored_database_is_the_backup_and_the_old_one_is_kept(backend: Backend) {
    let (app, admin) = changed(&backend).await;
    app.stop().await.unwrap();
    let (folder, database) = (backend.folder(), database(&backend));
    let before = (table_hashes(&database).await, table_hashes(&folder.join("b.db")).await);
    assert_ne!(before.0, before.1);
    let bytes = fs::read(folder.join("b.db")).unwrap();
    let printed = restored(&backend, &["b.db"]).await;
    assert_eq!(table_hashes(&database).await, before.1);
    assert!(fs::read(folder.join("b.db")).unwrap() == bytes, "the backup is as it was");
    let kept = kept(&backend);
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(printed.contains(&kept[0]) && printed.contains("work again"), "{printed}");
    assert_eq!(table_hashes(&folder.join(&kept[0])).await, before.0);
    assert_eq!((mode(&database), mode(&folder.join(&kept[0]))), (0o600, 0o600));
    assert_eq!(names_in(folder), ["b.db", "octopus.db", "octopus.db.audit-key", &kept[0]]);

    let app = TestApp::new(&backend).await;
    let users = app.get("/api/v1/users").key(&admin).send().await.expect(200);
    assert_eq!(users.as_array().unwrap().len(), 2);
    assert_eq!(app.user("dan").await, 3, "as if the third had never been");
    app.stop().await.unwrap();
    assert!(run(&backend, &["verify"]).await.status.success());

    // The kept database can be restored in turn.
    restored(&backend, &[&kept[0]]).await;
    assert_eq!(table_hashes(&database).await, before.0);
}

#[apply(on_sqlite!)]
async fn an_invalid_backup_is_refused_and_nothing_changes(backend: Backend) {
    let (app, _) = changed(&backend).await;
    app.stop().await.unwrap();
    let folder = backend.folder();
    let copy = |name: &str| {
        let _ = fs::copy(folder.join("b.db"), folder.join(name)).unwrap();
        format!("sqlite:///{}/{name}", folder.display())
    };
    let alter = async |name: &str, sql: &'static str| {
        let options = copy(name).parse::<sqlx::sqlite::SqliteConnectOptions>();
        let path = folder.join(name);
        let options = options.unwrap().filename(path).foreign_keys(false);
        let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        sqlx::Connection::close(connection).await.unwrap();
    };
    fs::write(folder.join("empty.db"), "").unwrap();
    fs::write(folder.join("diary.db"), "Dear diary, nothing happened today.".repeat(100)).unwrap();
    alter(
        "newer.db",
        "INSERT INTO _sqlx_migrations SELECT 9999, description, installed_on, success, \
        checksum, execution_time FROM _sqlx_migrations WHERE version = 1; \
        UPDATE installation SET readable_from = 9999",
    )
    .await;
    alter("python.db", "DROP TABLE _sqlx_migrations").await;
    alter("lost.db", "DELETE FROM users WHERE id = 1").await;
    alter("counted.db", "UPDATE conversations SET last_seq = 99").await;
    alter("cut.db", "DELETE FROM api_key_audit_logs WHERE seq = 2").await;
    copy("broken.db");
    let mut file = File::options().write(true).open(folder.join("broken.db")).unwrap();
    file.seek(SeekFrom::Start(20 * 4096)).unwrap();
    file.write_all(&[0xff; 4096]).unwrap();
    let before = (fs::read(database(&backend)).unwrap(), names_in(folder));
    for (name, why) in [
        ("nothing.db", "No such file"),
        ("empty.db", "this database is empty"),
        ("diary.db", "is not an SQLite database"),
        ("newer.db", "written by a newer Octopus"),
        ("python.db", "FastAPI app"),
        ("octopus.db", "belongs to the database itself"),
        ("./octopus.db.unfinished", "belongs to the database itself"),
        ("lost.db", "failed these checks: foreign keys"),
        ("counted.db", "failed these checks: message sequence numbers"),
        ("cut.db", "the audit chain is broken at seq 2"),
        ("broken.db", "failed these checks: file integrity"),
    ] {
        refused(&run(&backend, &["restore", name]).await, why);
        assert_eq!(names_in(folder), before.1, "{name}");
    }
    fs::rename(folder.join("octopus.db.audit-key"), folder.join("key")).unwrap();
    refused(&run(&backend, &["restore", "b.db"]).await, "octopus.db.audit-key");
    fs::rename(folder.join("key"), folder.join("octopus.db.audit-key")).unwrap();
    assert!(fs::read(database(&backend)).unwrap() == before.0);

    // `--force` restores it anyway.
    let printed = restored(&backend, &["--force", "cut.db"]).await;
    assert!(printed.contains("Restored anyway: the audit chain is broken"), "{printed}");
    refused(&run(&backend, &["verify"]).await, "broken at seq 2");
}

#[apply(on_sqlite!)]
async fn a_database_that_is_open_elsewhere_is_not_replaced(backend: Backend) {
    changed(&backend).await.0.stop().await.unwrap();
    let server = Server::start(&backend, &[]).await;
    refused(&run(&backend, &["restore", "b.db"]).await, "another server has this database open");
    assert_eq!(server.stop().0, Some(0));
    // A program that does not use the lock file and is idle.
    let db = backend.open().await;
    let _: (i64,) = query(&db, "SELECT COUNT(*) FROM users").one().await.unwrap();
    let before = table_hashes(&database(&backend)).await;
    refused(&run(&backend, &["restore", "b.db"]).await, "another program has");
    assert_eq!(table_hashes(&database(&backend)).await, before);
    let mut tx = db.begin().await.unwrap();
    query(&mut tx, "UPDATE installation SET version = version + 1").execute().await.unwrap();
    tx.commit().await.unwrap();
    db.close().await;
    restored(&backend, &["b.db"]).await;
}

#[apply(on_sqlite!)]
async fn a_write_ahead_log_is_neither_lost_nor_applied_to_another_database(backend: Backend) {
    changed(&backend).await.0.stop().await.unwrap();
    let (folder, database) = (backend.folder(), database(&backend));
    let backup = table_hashes(&folder.join("b.db")).await;
    // The old database has a write-ahead log with the last acknowledged writes.
    let mut server = Server::start(&backend, &[]).await;
    let user = serde_json::json!({"email": "eve@example.com", "username": "eve", "password": "hello octopus"});
    let made = reqwest::Client::new().post(server.url("/api/v1/users")).json(&user).send().await;
    assert_eq!(made.unwrap().status(), 201);
    server.kill();
    for ending in ["", "-wal"] {
        let from = folder.join(format!("octopus.db{ending}"));
        fs::copy(from, folder.join(format!("raw.db{ending}"))).unwrap();
    }
    restored(&backend, &["b.db"]).await;
    assert_eq!(table_hashes(&database).await, backup);
    assert!(!folder.join("octopus.db-wal").exists());
    let first = folder.join(&kept(&backend)[0]);
    let eve =
        |hashes: Vec<(String, String)>| hashes.into_iter().find(|(t, _)| t == "users").unwrap();
    assert!(
        eve(table_hashes(&first).await).1.starts_with("4 rows"),
        "{:?}",
        table_hashes(&first).await
    );

    // The write-ahead log of a raw copy belongs to the backup.
    let raw =
        (fs::read(folder.join("raw.db")).unwrap(), fs::read(folder.join("raw.db-wal")).unwrap());
    restored(&backend, &["raw.db"]).await;
    assert!(eve(table_hashes(&database).await).1.starts_with("4 rows"));
    assert!(
        (fs::read(folder.join("raw.db")).unwrap(), fs::read(folder.join("raw.db-wal")).unwrap())
            == raw
    );

    // A database that cannot be opened is kept with its log, and so is a log without a database.
    for removed in [false, true] {
        for name in kept(&backend) {
            fs::remove_file(folder.join(name)).unwrap();
        }
        let log = folder.join("octopus.db-wal");
        if removed {
            fs::remove_file(&database).unwrap();
        } else {
            fs::write(&database, "no database any more").unwrap();
        }
        fs::copy(folder.join("raw.db-wal"), &log).unwrap();
        restored(&backend, &["b.db"]).await;
        assert!(!log.exists());
        assert_eq!(table_hashes(&database).await, backup, "the log of another went into it");
        let kept = kept(&backend);
        assert_eq!(kept.len(), if removed { 1 } else { 2 }, "{kept:?}");
        assert!(fs::read(folder.join(kept.last().unwrap())).unwrap() == raw.1);
        assert!(run(&backend, &["verify"]).await.status.success());
    }
}

#[apply(on_sqlite!)]
async fn a_restore_that_is_killed_leaves_the_old_one_or_the_new_one_whole(backend: Backend) {
    changed(&backend).await.0.stop().await.unwrap();
    let (folder, database) = (backend.folder(), database(&backend));
    fs::copy(&database, folder.join("old.db")).unwrap();
    let (old, new) = (table_hashes(&database).await, table_hashes(&folder.join("b.db")).await);
    let began = Instant::now();
    restored(&backend, &["b.db"]).await;
    let whole = began.elapsed();
    let times = scale(25, 400);
    let (mut olds, mut news, mut links) = (0, 0, 0);
    for n in 0..times {
        for name in kept(&backend) {
            fs::remove_file(folder.join(name)).unwrap();
        }
        fs::copy(folder.join("old.db"), &database).unwrap();
        let mut command = octopus_on(&backend).await;
        command.args(["restore", "b.db"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // The first half of a restore verifies the backup.
        sleep(whole / 2 + whole * n / times).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let second_name = |name: &String| {
            fs::metadata(folder.join(name)).unwrap().ino() == fs::metadata(&database).unwrap().ino()
        };
        links += usize::from(kept(&backend).iter().any(second_name));
        let found = table_hashes(&database).await;
        assert!(found == old || found == new, "killed after {:?}", whole / 2 + whole * n / times);
        olds += usize::from(found == old);
        if found == new {
            news += 1;
            assert_eq!(table_hashes(&folder.join(&kept(&backend)[0])).await, old);
        }
    }
    assert!(olds > 0 && news > 0, "{olds} {news}");
    measured(&format!(
        "restore killed {times} times: {olds} times the old database, {news} times the new one, \
         {links} times the old one with two names; never anything else"
    ));
    restored(&backend, &["b.db"]).await;
    assert_eq!(table_hashes(&database).await, new);
    assert!(!names_in(folder).iter().any(|name| name.contains("unfinished")));
}

/// A restore that is killed after it linked the old database under a second name leaves that name.
#[apply(on_sqlite!)]
async fn a_second_name_of_the_database_is_removed_at_the_next_start(backend: Backend) {
    changed(&backend).await.0.stop().await.unwrap();
    let alias = backend.folder().join("octopus.db.before-restore-20260101T000000Z");
    let real = backend.folder().join("octopus.db.before-restore-20250101T000000Z");
    fs::hard_link(database(&backend), &alias).unwrap();
    fs::copy(database(&backend), &real).unwrap();
    let server = Server::start(&backend, &[]).await;
    assert!(!alias.exists() && real.exists());
    assert_eq!(server.stop().0, Some(0));
    fs::hard_link(database(&backend), &alias).unwrap();
    restored(&backend, &["b.db"]).await;
    assert!(!alias.exists() && real.exists() && kept(&backend).len() == 2);
}

#[apply(on_sqlite!)]
async fn a_backup_of_an_older_octopus_is_restored_and_reported_as_such(backend: Backend) {
    let (app, _) = filled(&backend).await;
    app.stop().await.unwrap();
    backend.execute("DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)").await;
    backed_up(&backend, "older.db").await;
    fs::remove_file(database(&backend)).unwrap();
    let printed = restored(&backend, &["older.db"]).await;
    assert!(printed.contains("the next start migrates it"), "{printed}");
    assert_eq!(kept(&backend), [""; 0], "there was nothing to keep");
    assert_eq!(
        table_hashes(&database(&backend)).await,
        table_hashes(&backend.folder().join("older.db")).await
    );
}

/// With any umask, and after backups, restores and migrations.
#[apply(on_sqlite!)]
async fn every_created_file_is_private_to_its_owner(backend: Backend) {
    let (app, admin) = filled(&backend).await;
    app.stop().await.unwrap();
    let folder = backend.folder();
    let program = env!("CARGO_BIN_EXE_octopus");
    let variables = backend.variables().await;
    let with_umask = |script: &str| {
        let script = format!("umask 000; {script}");
        let mut bash = std::process::Command::new("bash");
        bash.args(["-c", &script]).current_dir(folder).env_clear().envs(&variables);
        bash.env("PATH", "/usr/bin:/bin").env("PORT", crate::support::process::free_port());
        bash
    };
    fs::create_dir(folder.join("backups")).unwrap();
    let mut server = with_umask(&format!("exec {program}"));
    server.env("BACKUP_DIR", folder.join("backups")).stderr(Stdio::null());
    let mut server = server.spawn().unwrap();
    let wait = async |path: &Path| {
        for _ in 0..400 {
            if path.is_dir() && !names_in(path).is_empty() || path.is_file() {
                return;
            }
            sleep(Duration::from_millis(25)).await;
        }
        panic!("{} is not there", path.display());
    };
    wait(&folder.join("octopus.db.lock")).await;
    wait(&folder.join("backups")).await;
    let written = run(&backend, &["keys", "create", "--name", "x", "--scopes", "read"]).await;
    assert!(written.status.success(), "{}", output_text(&written));
    let backup = with_umask(&format!("{program} backup b.db")).output().unwrap();
    assert!(backup.status.success(), "{}", output_text(&backup));
    let modes = |folder: &Path| {
        let files = names_in(folder).into_iter().map(|name| folder.join(name));
        files.filter(|path| path.is_file()).map(|path| (mode(&path), path)).collect::<Vec<_>>()
    };
    let served = modes(folder);
    assert!(served.len() >= 6, "{served:?}"); // database, its log and index, lock, key, backup
    server.kill().unwrap();
    server.wait().unwrap();
    let restore = with_umask(&format!("{program} restore b.db")).output().unwrap();
    assert!(restore.status.success(), "{}", output_text(&restore));
    let all = [served, modes(folder), modes(&folder.join("backups"))].concat();
    for (mode, path) in &all {
        assert_eq!(*mode, 0o600, "{}", path.display());
    }
    let names: Vec<_> = all.iter().map(|(_, path)| path.display().to_string()).collect();
    for part in ["-wal", "-shm", ".lock", ".audit-key", "before-restore-", "backups/octopus-"] {
        assert!(names.iter().any(|name| name.contains(part)), "{part}: {names:?}");
    }
    let _ = admin;
}
