//! The scheduled backup job.

use super::{mode, names_in, run};
use crate::support::process::{Server, free_port, octopus, output_text};
use crate::support::{Backend, TestApp};
use chrono::TimeDelta;
use octopus::core::config::Config;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::sleep;

fn folder(backend: &Backend) -> PathBuf {
    let folder = backend.folder().join("backups");
    fs::create_dir_all(&folder).unwrap();
    folder
}

async fn server(backend: &Backend, more: &[(&str, &str)]) -> Server {
    let folder = folder(backend).display().to_string();
    Server::start(backend, &[&[("BACKUP_DIR", &*folder)], more].concat()).await
}

/// Waits for `count` log events called `name` and returns them.
async fn events(server: &Server, name: &str, count: usize) -> Vec<serde_json::Value> {
    for _ in 0..400 {
        if server.events(name).len() >= count {
            break;
        }
        sleep(Duration::from_millis(25)).await;
    }
    let events = server.events(name);
    assert_eq!(events.len(), count, "{name}: {}", server.log());
    events
}

/// The name of a backup from so many hours ago.
fn named(hours: i64) -> String {
    let clock = octopus::core::clock::Clock::default();
    (clock.now() - TimeDelta::hours(hours)).format("octopus-%Y%m%dT%H%M%SZ.db").to_string()
}

#[apply(on_sqlite!)]
async fn a_backup_is_made_at_the_start_and_not_again_before_it_is_time(backend: Backend) {
    let metrics = format!("127.0.0.1:{}", free_port());
    let first = server(&backend, &[("METRICS_ADDR", &metrics)]).await;
    let made = events(&first, "backup.created", 1).await;
    let names = names_in(&folder(&backend));
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(named(1) < names[0] && names[0] <= named(0), "{names:?}");
    let file = folder(&backend).join(&names[0]);
    assert_eq!(made[0]["file"], file.display().to_string());
    assert_eq!(made[0]["bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(mode(&file), 0o600);
    let anchor = made[0]["anchor"].as_str().unwrap();
    let verify = run(&backend, &["verify", file.to_str().unwrap(), "--anchor", anchor]).await;
    assert!(verify.status.success(), "{}", output_text(&verify));
    let text =
        reqwest::get(format!("http://{metrics}/metrics")).await.unwrap().text().await.unwrap();
    assert!(text.contains(r#"octopus_backups_total{outcome="created"} 1"#), "{text}");
    assert!(text.contains("octopus_backup_last_success_timestamp_seconds 1"), "{text}");
    assert_eq!(first.stop().0, Some(0));

    let second = server(&backend, &[("METRICS_ADDR", &metrics)]).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(names_in(&folder(&backend)), names);
    let text =
        reqwest::get(format!("http://{metrics}/metrics")).await.unwrap().text().await.unwrap();
    assert!(text.contains("octopus_backup_last_success_timestamp_seconds 1"), "{text}");
    assert_eq!(second.stop().0, Some(0));
}

#[apply(on_sqlite!)]
async fn only_the_newest_backups_are_kept_and_others_files_are_left_alone(backend: Backend) {
    let folder = folder(&backend);
    let old: Vec<String> = (2..8).map(|days| named(24 * days)).collect();
    let tomorrow = named(-24);
    let others = [
        "octopus.db",
        "octopus-20260101T000000Z.db.gz",
        "octopus-20261301T000000Z.db",
        "octopus-20260101T000000Z.db.txt",
        "my-octopus-20260101T000000Z.db",
        "notes.unfinished",
    ];
    for name in old.iter().map(String::as_str).chain(others).chain([&*tomorrow]) {
        fs::write(folder.join(name), "as it was").unwrap();
    }
    // Two unfinished backups, one of which another process is still writing.
    let (dead, alive) = (format!("{}.unfinished", old[0]), format!("{}.unfinished", old[1]));
    for name in [&dead, &format!("{dead}-journal"), &alive] {
        fs::write(folder.join(name), "half of it").unwrap();
    }
    let writing = File::open(folder.join(&alive)).unwrap();
    writing.lock().unwrap();
    // A backup that another server has open as its database.
    fs::write(folder.join(format!("{}-wal", old[5])), "").unwrap();

    let server = server(&backend, &[("BACKUP_KEEP", "3")]).await;
    let made = events(&server, "backup.created", 1).await;
    let made = Path::new(made[0]["file"].as_str().unwrap()).file_name().unwrap().to_owned();
    let mut expected: Vec<&str> = others.to_vec();
    let log = format!("{}-wal", old[5]);
    expected.extend([made.to_str().unwrap(), &*tomorrow, &*old[0], &*old[5], &*log, &*alive]);
    expected.sort_unstable();
    for _ in 0..100 {
        if names_in(&folder).len() == expected.len() {
            break;
        }
        sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(names_in(&folder), expected);
    assert_eq!(server.stop().0, Some(0));
}

/// The database itself may have the name of a backup, if an operator serves a backup in place.
#[apply(on_sqlite!)]
async fn a_backup_that_has_become_the_database_is_never_removed(backend: Backend) {
    let folder = folder(&backend);
    let (own, another) = (named(24 * 30), named(24 * 40));
    fs::write(folder.join(&own), "").unwrap();
    fs::write(folder.join(&another), "").unwrap();
    let (port, log) = (free_port(), backend.folder().join("log"));
    let mut command = octopus(&folder);
    command.env("DATABASE_URL", format!("sqlite:///{own}")).env("PORT", &port);
    command.env("BACKUP_DIR", ".").env("BACKUP_KEEP", "1").stderr(File::create(&log).unwrap());
    let server = Server::run(command, port, log).await;
    events(&server, "backup.created", 1).await;
    for _ in 0..100 {
        if !folder.join(&another).exists() {
            break;
        }
        sleep(Duration::from_millis(25)).await;
    }
    assert!(folder.join(&own).exists() && !folder.join(&another).exists());
    assert_eq!(server.stop().0, Some(0));
}

#[apply(on_sqlite!)]
async fn a_failed_backup_is_reported_and_retried_and_removes_nothing(backend: Backend) {
    let folder = folder(&backend);
    let old = named(100);
    fs::write(folder.join(&old), "as it was").unwrap();
    fs::create_dir(folder.join("x")).unwrap();
    let missing = folder.join("x/not-mounted").display().to_string();
    let variables = [("BACKUP_DIR", &*missing), ("METRICS_ADDR", "127.0.0.1:0")];
    let server = Server::start(&backend, &variables).await;
    let failed = events(&server, "backup.failed", 1).await;
    assert_eq!(failed[0]["level"], "ERROR");
    assert!(failed[0]["error"].as_str().unwrap().contains("not-mounted"), "{}", failed[0]);
    assert_eq!(server.stop().0, Some(0));

    assert!(folder.join(&old).exists());

    // The first retry is after ten minutes, the next ones after each interval.
    let variables =
        [("BACKUP_DIR", &*missing), ("BACKUP_INTERVAL_HOURS", "2"), ("BACKUP_KEEP", "2")];
    let app = TestApp::with(&backend, &variables).await;
    sleep(Duration::from_millis(200)).await;
    fs::create_dir(&missing).unwrap();
    for (minutes, made) in [(9, 0), (2, 1), (118, 1), (3, 2), (120, 2)] {
        app.advance(TimeDelta::minutes(minutes));
        let before = names_in(Path::new(&missing)).last().cloned();
        sleep(Duration::from_secs(2)).await; // the job checks the clock every second
        let names = names_in(Path::new(&missing));
        assert_eq!(names.len(), made, "{names:?}");
        assert_eq!(names.last() != before.as_ref(), minutes != 9 && minutes != 118, "{names:?}");
    }
    app.stop().await.unwrap();
}

#[apply(on_both!)]
async fn backup_settings_on_postgres_and_wrong_numbers_are_reported_at_startup(backend: Backend) {
    let mut all = HashMap::from([("BACKUP_DIR".to_owned(), "/backups".to_owned())]);
    all.extend(backend.variables().await);
    all.insert("BACKUP_INTERVAL_HOURS".to_owned(), "0".to_owned());
    all.insert("BACKUP_KEEP".to_owned(), "0".to_owned());
    let problems = Config::from_variables(all).unwrap_err().0;
    let mut expected = vec![
        "BACKUP_INTERVAL_HOURS must be from 1 to 8760 hours",
        "BACKUP_KEEP must be a whole number from 1",
    ];
    if !backend.is_sqlite() {
        expected.push("BACKUP_DIR works only with SQLite; for Postgres, see docs/BACKUP.md");
    }
    assert_eq!(problems, expected);
}
