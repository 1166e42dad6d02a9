//! The lock that lets one server at a time open an SQLite file.

use super::{mode, names_in};
use crate::support::Backend;
use crate::support::process::{Server, free_port, octopus, octopus_on, output_text};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::sleep;

/// The command of a server on the file `name` in the test's folder.
fn serve_on(backend: &Backend, name: &str) -> Command {
    let mut command = octopus(backend.folder());
    command.env("DATABASE_URL", format!("sqlite:///{name}")).env("PORT", free_port());
    command
}

#[apply(on_sqlite!)]
async fn a_second_server_on_the_same_file_refuses_to_start(backend: Backend) {
    let server = Server::start(&backend, &[]).await;
    symlink("octopus.db", backend.folder().join("linked.db")).unwrap();
    symlink(backend.folder(), backend.folder().join("folder")).unwrap();
    let whole = format!("/{}", backend.folder().join("octopus.db").display());
    let other = [&*whole, "octopus.db", "./octopus.db", "linked.db", "folder/./octopus.db"];
    for name in other {
        let output = serve_on(&backend, name).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        let text = output_text(&output);
        assert!(text.contains("another server has this database open"), "{name}: {text}");
        assert!(text.contains("octopus.db.lock"), "{name}: {text}");
    }
    assert_eq!(mode(&backend.folder().join("octopus.db.lock")), 0o600);
    // The first server is not affected.
    let bootstrap = reqwest::Client::new().post(server.url("/bootstrap")).send().await.unwrap();
    assert_eq!(bootstrap.status(), 200);
    let mut another = serve_on(&backend, "another.db").stderr(Stdio::null()).spawn().unwrap();
    sleep(Duration::from_millis(300)).await;
    let ended = another.try_wait().unwrap();
    another.kill().unwrap();
    another.wait().unwrap();
    assert_eq!(ended, None, "one on another file serves");
}

#[apply(on_sqlite!)]
async fn the_lock_ends_with_its_process_and_a_clean_exit_removes_its_file(backend: Backend) {
    let mut server = Server::start(&backend, &[]).await;
    for _ in 0..3 {
        server.kill();
        assert!(
            names_in(backend.folder()).contains(&"octopus.db.lock".to_owned()),
            "it was not removed"
        );
        server.start_again().await;
    }
    assert_eq!(server.stop().0, Some(0));
    assert_eq!(names_in(backend.folder()), ["log", "octopus.db", "octopus.db.audit-key"]);
}

#[apply(on_sqlite!)]
async fn of_many_concurrent_starts_one_serves(backend: Backend) {
    for _ in 0..3 {
        let start = || serve_on(&backend, "octopus.db").stderr(Stdio::null()).spawn();
        let mut children: Vec<_> = (0..8).map(|_| start().unwrap()).collect();
        let mut running = children.len();
        // All but one exit.
        for _ in 0..400 {
            let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
            running = children.iter_mut().map(ended).filter(|ended| !ended).count();
            if running <= 1 {
                break;
            }
            sleep(Duration::from_millis(25)).await;
        }
        assert_eq!(running, 1);
        for mut child in children {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }
}

#[apply(on_sqlite!)]
async fn commands_work_beside_a_running_server(backend: Backend) {
    let server = Server::start(&backend, &[]).await;
    for arguments in [
        &["bootstrap"][..],
        &["keys", "create", "--name", "another", "--scopes", "read"],
        &["keys", "list"],
        &["migrate"],
        &["verify"],
    ] {
        let output = octopus_on(&backend).await.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", output_text(&output));
    }
    assert_eq!(server.stop().0, Some(0));
}

#[apply(on_sqlite!)]
async fn a_server_that_refuses_a_database_leaves_no_lock_beside_it(backend: Backend) {
    backend.execute("CREATE TABLE orders (id INTEGER)").await;
    let output = serve_on(&backend, "octopus.db").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output_text(&output).contains("orders"), "{}", output_text(&output));
    assert_eq!(names_in(backend.folder()), ["octopus.db"]);
}

#[apply(on_postgres!)]
async fn many_servers_share_one_postgres(backend: Backend) {
    let one = Server::start(&backend, &[]).await;
    let mut second = octopus_on(&backend).await;
    let (port, log) = (free_port(), backend.folder().join("log-2"));
    second.env("PORT", &port).stderr(fs::File::create(&log).unwrap());
    let two = Server::run(second, port, log).await;
    assert_eq!((one.stop().0, two.stop().0), (Some(0), Some(0)));
}
