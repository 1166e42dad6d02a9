//! Tests of `octopus backup`.

use super::{backed_up, filled, mode, names_in, run};
use crate::support::process::{Server, octopus, output_text};
use crate::support::table_hashes;
use crate::support::{Backend, TestApp};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Command;

#[apply(on_sqlite!)]
async fn a_backup_has_all_data_of_the_database_and_can_be_served(backend: Backend) {
    let (app, admin) = filled(&backend).await;
    let backup = backed_up(&backend, "b.db").await;
    assert_eq!(mode(&backup), 0o600);
    let database = backend.folder().join("octopus.db");
    assert_eq!(table_hashes(&backup).await, table_hashes(&database).await);
    for table in
        ["users", "sessions", "api_keys", "messages", "message_search_data", "sqlite_sequence"]
    {
        let rows =
            table_hashes(&backup).await.into_iter().find(|(name, _)| name == table).unwrap().1;
        assert!(!rows.starts_with("0 "), "{table}: {rows}");
    }
    app.stop().await.unwrap();

    // With its audit key, the backup works as a database elsewhere.
    let elsewhere = backend.another();
    fs::copy(&backup, elsewhere.folder().join("octopus.db")).unwrap();
    let key = backend.folder().join("octopus.db.audit-key");
    fs::copy(key, elsewhere.folder().join("octopus.db.audit-key")).unwrap();
    let app = TestApp::new(&elsewhere).await;
    let conversation = app.get("/api/v1/conversations/1").key(&admin).send().await.expect(200);
    assert_eq!(conversation["messages"][1]["content"], "it is in the sea");
    let found = app.get("/api/v1/conversations/search?q=poulpe").key(&admin).send().await;
    assert_eq!(found.status, 200, "{}", found.text);
    assert!(found.text.contains("poulpe"), "{}", found.text);
    let body = serde_json::json!({"role": "user", "content": "and it goes on"});
    let added = app.post("/api/v1/conversations/1/messages", body).key(&admin).send().await;
    assert_eq!(added.expect(201)["id"], 11, "ids go on, too");
    app.stop().await.unwrap();
    let verified = run(&elsewhere, &["verify"]).await;
    assert!(verified.status.success(), "{}", output_text(&verified));
}

#[apply(on_sqlite!)]
async fn a_backup_reports_its_result_and_what_to_keep(backend: Backend) {
    let (app, _) = filled(&backend).await;
    let end = app.state.audit.anchor(&app.state.db).await.unwrap().to_string();
    let output = run(&backend, &["backup", "b.db"]).await;
    let printed = String::from_utf8(output.stdout).unwrap();
    let bytes = fs::metadata(backend.folder().join("b.db")).unwrap().len();
    let database = backend.folder().join("octopus.db").display().to_string();
    let expected = format!(
        "Backed up {database} to b.db ({bytes} bytes).\n\
         The head of its audit chain, to be stored elsewhere: {end}\n\
         The audit key ({database}.audit-key) is not in the backup: store it separately. The audit \
         chain cannot continue without it.\n"
    );
    assert_eq!(printed, expected);
    app.stop().await.unwrap();
    for anchored in [&["verify", "b.db", "--anchor", &end][..], &["verify", "--anchor", &end]] {
        assert!(run(&backend, anchored).await.status.success());
    }
}

#[apply(on_sqlite!)]
async fn a_backup_replaces_files_only_on_request_and_never_the_database(backend: Backend) {
    let (app, _) = filled(&backend).await;
    let folder = backend.folder();
    fs::write(folder.join("mine.txt"), "mine").unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    symlink("octopus.db", folder.join("linked.db")).unwrap();
    fs::write(folder.join("raw.db-wal"), "x").unwrap();
    let own = "belongs to the database";
    for (name, force, why) in [
        ("mine.txt", false, "mine.txt already exists"),
        ("folder", true, "is not a file"),
        ("/dev/null", true, "is not a file"),
        ("octopus.db", true, own),
        ("./folder/../octopus.db", true, own),
        ("linked.db", true, own),
        ("octopus.db-wal", true, own),
        ("octopus.db.lock", false, own),
        ("octopus.db.audit-key", true, own),
        ("raw.db", true, "raw.db-wal already exists"),
        ("no/such/folder/b.db", false, "No such file"),
    ] {
        let arguments = ["backup", name, "--force"];
        let output = run(&backend, if force { &arguments } else { &arguments[..2] }).await;
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(output_text(&output).contains(why), "{name}: {}", output_text(&output));
    }
    assert_eq!(fs::read_to_string(folder.join("mine.txt")).unwrap(), "mine");
    let output = run(&backend, &["backup", "--force", "mine.txt"]).await;
    assert!(output.status.success(), "{}", output_text(&output));
    assert!(run(&backend, &["verify", "mine.txt"]).await.status.success());
    assert_eq!(mode(&folder.join("mine.txt")), 0o600);
    app.stop().await.unwrap();
    assert!(!names_in(folder).iter().any(|name| name.contains("unfinished")));

    // A name whose temporary file would be the database itself.
    let database = folder.join("x.unfinished");
    fs::rename(folder.join("octopus.db"), &database).unwrap();
    let mut command = octopus(folder);
    command.args(["backup", "x"]).env("DATABASE_URL", "sqlite:///x.unfinished");
    let output = command.output().unwrap();
    assert!(output_text(&output).contains(own), "{}", output_text(&output));
    assert!(fs::metadata(&database).unwrap().len() > 0);
}

#[apply(on_sqlite!)]
async fn a_failed_backup_leaves_no_file_and_leftovers_do_not_block_the_next_one(backend: Backend) {
    let (app, _) = filled(&backend).await;
    let (folder, unfinished) = (backend.folder(), backend.folder().join("b.db.unfinished"));
    // A file size limit has the same effect as a full disk.
    let program = env!("CARGO_BIN_EXE_octopus");
    let script = format!("trap '' XFSZ; ulimit -f 100; exec {program} backup b.db");
    let mut limited = Command::new("bash");
    limited.args(["-c", &script]).current_dir(folder).envs(backend.variables().await);
    let output = limited.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
    assert!(
        !names_in(folder).iter().any(|name| name.starts_with("b.db")),
        "{:?}",
        names_in(folder)
    );

    // Another process is writing the same file.
    let other = File::create(&unfinished).unwrap();
    other.lock().unwrap();
    let output = run(&backend, &["backup", "b.db"]).await;
    assert!(
        output_text(&output).contains("another process is writing"),
        "{}",
        output_text(&output)
    );
    assert!(unfinished.exists());
    drop(other);

    // A killed backup left a partial file, created with another umask.
    fs::write(&unfinished, "half of it").unwrap();
    fs::write(folder.join("b.db.unfinished-journal"), "half of it").unwrap();
    let backup = backed_up(&backend, "b.db").await;
    assert_eq!(mode(&backup), 0o600);
    assert!(run(&backend, &["verify", "b.db"]).await.status.success());
    assert!(!names_in(folder).iter().any(|name| name.contains("unfinished")));
    app.stop().await.unwrap();
}

#[apply(on_sqlite!)]
async fn a_backup_can_be_made_before_an_upgrade_and_after_a_crash(backend: Backend) {
    let mut server = Server::start(&backend, &[]).await;
    let bootstrap = reqwest::Client::new().post(server.url("/bootstrap")).send().await.unwrap();
    assert_eq!(bootstrap.status(), 200);
    server.kill();
    // The acknowledged writes are only in the write-ahead log.
    backed_up(&backend, "after.db").await;
    let verified = run(&backend, &["verify", "after.db"]).await;
    let printed = String::from_utf8(verified.stdout).unwrap();
    assert!(printed.contains("intact: 1 entries"), "{printed}");
    // The database file is complete without a write-ahead log.
    let left = names_in(backend.folder());
    assert!(!left.iter().any(|name| name.ends_with("-wal")), "{left:?}");

    // The last migration has not run yet.
    let older =
        "DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)";
    backend.execute(older).await;
    let output = run(&backend, &["backup", "before.db"]).await;
    assert!(output.status.success(), "{}", output_text(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("the schema of an older Octopus"), "{printed}");
    let output = run(&backend, &["verify", "before.db"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output_text(&output).contains("the schema of an older Octopus"),
        "{}",
        output_text(&output)
    );

    // A database that is not of Octopus is not backed up.
    backend.execute("DROP TABLE _sqlx_migrations").await;
    let output = run(&backend, &["backup", "strange.db"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
    assert!(!backend.folder().join("strange.db").exists());
}

#[apply(on_postgres!)]
async fn on_postgres_the_commands_name_their_replacements(backend: Backend) {
    for arguments in [&["backup", "b.db"][..], &["restore", "b.db"]] {
        let output = run(&backend, arguments).await;
        assert_eq!(output.status.code(), Some(1));
        for word in ["pg_dump", "pg_restore", "archiving", "docs/BACKUP.md"] {
            assert!(output_text(&output).contains(word), "{}", output_text(&output));
        }
    }
}

/// The method for Postgres in docs/BACKUP.md.
#[apply(on_postgres!)]
async fn a_dump_of_pg_dump_can_be_restored_and_verifies(backend: Backend) {
    let (app, admin) = filled(&backend).await;
    app.stop().await.unwrap();
    let elsewhere = backend.another();
    elsewhere.start_empty();
    let (from, to) = (backend.url().await, elsewhere.url().await);
    let dump = backend.folder().join("octopus.dump");
    let made = postgres_program("pg_dump").map(|mut program| {
        program.args(["--format=custom", "--file"]).arg(&dump).arg(from).output().unwrap()
    });
    // The server at TEST_DATABASE_URL may have another version than the installed programs.
    let Some(made) = made.filter(|_| backend.certificate().is_some()) else { return };
    assert!(made.status.success(), "{}", output_text(&made));
    let mut restore = postgres_program("pg_restore").unwrap();
    let restored = restore.args(["--no-owner", "--dbname", &to]).arg(&dump).output().unwrap();
    assert!(restored.status.success(), "{}", output_text(&restored));
    let verified = run(&elsewhere, &["verify"]).await;
    assert!(verified.status.success(), "{}", output_text(&verified));
    let app = TestApp::new(&elsewhere).await;
    let found = app.get("/api/v1/conversations/search?q=poulpe").key(&admin).send().await;
    assert!(found.status == 200 && found.text.contains("poulpe"), "{}", found.text);
    let body = serde_json::json!({"role": "user", "content": "and it goes on"});
    let added = app.post("/api/v1/conversations/1/messages", body).key(&admin).send().await;
    assert_eq!(added.expect(201)["id"], 11, "ids go on, too");
    app.stop().await.unwrap();
    elsewhere.remove().await;
}

/// A program of the newest Postgres in Debian's location, or of the one in `PATH`.
fn postgres_program(name: &str) -> Option<Command> {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let paths = installed.map(|version| version.path().join("bin").join(name));
    let program = paths.filter(|path| path.exists()).max().unwrap_or(name.into());
    Command::new(&program).arg("--version").output().ok()?;
    Some(Command::new(program))
}
