//! Backups: creation, verification, restoring, and the lock that keeps one server per database
//! file.

pub mod copying;
mod lock;
mod restoring;
mod scheduled;
mod verifying;

use crate::support::process::{octopus_on, output_text};
use crate::support::{Backend, TestApp};
use octopus::features::conversations::search;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use tokio_util::sync::CancellationToken;

/// A server with rows in every table that clients fill, and its admin key.
async fn filled(backend: &Backend) -> (TestApp, String) {
    let app = TestApp::new(backend).await;
    let admin = app.admin().await;
    let (_, id) = app.key(&admin, "read").await;
    let rotate = app.act(&format!("/api/v1/api-keys/{id}/rotate")).key(&admin).send().await;
    assert_eq!(rotate.status, 200, "{}", rotate.text);
    let users = [app.user("ann").await, app.user("bob").await];
    app.login("ann").await;
    for _ in 0..2 {
        let conversation = app.conversation(&admin, &users).await;
        let messages = format!("/api/v1/conversations/{conversation}/messages");
        for n in 0..5 {
            let body = json!({"role": "user", "content": format!("{n}: où est le poulpe?"), "user_id": users[0]});
            app.post(&messages, body).key(&admin).send().await.expect(201);
        }
    }
    let edit = json!({"content": "it is in the sea"});
    app.patch("/api/v1/conversations/1/messages/2", edit).key(&admin).send().await.expect(200);
    let deletion = app.delete("/api/v1/conversations/1/messages/3").key(&admin).send().await;
    assert!(deletion.status < 300, "{}", deletion.text);
    // Flush now, rather than within a second.
    search::catch_up(&app.state.db, &CancellationToken::new()).await.unwrap();
    (app, admin)
}

async fn run(backend: &Backend, arguments: &[&str]) -> Output {
    octopus_on(backend).await.args(arguments).output().unwrap()
}

/// Creates a backup of the test's database in its folder.
async fn backed_up(backend: &Backend, name: &str) -> PathBuf {
    let output = run(backend, &["backup", name]).await;
    assert!(output.status.success(), "{}", output_text(&output));
    backend.folder().join(name)
}

/// The names of the files in a folder.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
