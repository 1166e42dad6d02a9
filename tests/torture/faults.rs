//! Fault injection into the system calls of a server with strace. If that does not work, the test
//! reports that it was skipped.

use super::disk::{PATIENCE, database};
use super::mounts::skipped;
use crate::support::process::Server;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Makes these system calls of `server` on its database files fail with `error`.
pub fn break_disk(server: &Server, folder: &Path, calls: &str, error: &str) -> Option<Fault> {
    let file = database(folder);
    let file = file.to_str().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &server.pid().to_string()]);
    strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:error={error}")]);
    for file in [file, &format!("{file}-wal"), &format!("{file}-shm")] {
        strace.args(["-P", file]);
    }
    match strace.stderr(Stdio::piped()).spawn() {
        Ok(child) => Fault::begin(child, server.pid()),
        Err(error) => skipped("strace", &error.to_string()),
    }
}

/// An injected fault, removed on drop.
pub struct Fault(Child);

impl Fault {
    fn begin(mut child: Child, pid: u32) -> Option<Self> {
        let end = Instant::now() + PATIENCE;
        let is_traced = |task: std::io::Result<std::fs::DirEntry>| {
            let status = task.map(|task| std::fs::read_to_string(task.path().join("status")));
            // A thread may end in the meantime.
            let status = status.ok().and_then(Result::ok).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        while Instant::now() < end {
            if child.try_wait().unwrap().is_some() {
                let output = child.wait_with_output().unwrap();
                return skipped("strace", &String::from_utf8_lossy(&output.stderr));
            }
            if std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(is_traced) {
                return Some(Self(child));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        panic!("strace does not get hold of every thread");
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // On SIGTERM, strace detaches from the process before it ends.
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let _ = self.0.wait();
    }
}
