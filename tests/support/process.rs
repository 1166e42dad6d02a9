//! The real program as a child process.

use super::Backend;
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};
use tokio::time::sleep;

pub fn octopus(folder: &std::path::Path) -> Command {
    // Long forms measure an optimised build.
    let built = env!("CARGO_BIN_EXE_octopus");
    let mut command = Command::new(std::env::var_os("OCTOPUS_BINARY").unwrap_or(built.into()));
    command.env_clear().current_dir(folder);
    command
}

/// The program with the settings of the test's database.
pub async fn octopus_on(backend: &Backend) -> Command {
    let mut command = octopus(backend.folder());
    command.envs(backend.variables().await);
    command
}

pub fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// A running server. It is killed when the test ends.
pub struct Server {
    command: Command,
    child: Child,
    port: String,
    log: PathBuf,
}

impl Server {
    pub async fn start(backend: &Backend, variables: &[(&str, &str)]) -> Self {
        let (port, log) = (free_port(), backend.folder().join("log"));
        let mut command = octopus_on(backend).await;
        command.env("PORT", &port);
        command.envs(variables.iter().copied()).stderr(File::create(&log).unwrap());
        Self::run(command, port, log).await
    }

    /// Starts `command`, which serves on `port` and logs to `log`, and waits until it is ready.
    pub async fn run(mut command: Command, port: String, log: PathBuf) -> Self {
        let child = command.spawn().unwrap();
        let server = Self { command, child, port, log };
        server.ready(Duration::from_secs(10)).await;
        server
    }

    /// Kills it with SIGKILL, like the kernel when memory runs out.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Restarts it with the same port and log, and waits until it is ready. Returns the duration.
    pub async fn start_again(&mut self) -> Duration {
        let log = OpenOptions::new().append(true).open(&self.log).unwrap();
        let began = Instant::now();
        self.child = self.command.stderr(log).spawn().unwrap();
        self.ready(Duration::from_secs(10)).await;
        began.elapsed()
    }

    async fn ready(&self, patience: Duration) {
        let (client, end) = (reqwest::Client::new(), Instant::now() + patience);
        while Instant::now() < end {
            if client.get(self.url("/ready")).send().await.is_ok_and(|r| r.status() == 200) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("not ready:\n{}", self.log());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn port(&self) -> &str {
        &self.port
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The number of its open files and sockets.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn log_file(&self) -> PathBuf {
        self.log.clone()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The events in its log that are called `name`.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let lines = self.log();
        // The last line may be incomplete.
        let (lines, _) = lines.rsplit_once('\n').unwrap_or_default();
        let parsed = lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
        parsed.filter(|event: &Value| event["event"] == name).collect()
    }

    /// Its resident memory, in kilobytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Its peak memory since [`reset_peak`](Self::reset_peak), in kilobytes.
    pub fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Resets the peak, if the system permits it.
    pub fn reset_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.pid()), "5");
    }

    fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let kilobytes = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        kilobytes.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends SIGTERM and does not wait for the end.
    pub fn terminate(&self) {
        assert!(
            Command::new("kill")
                .args(["-TERM", &self.pid().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for its end. Returns the exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its processor time, in seconds.
    pub fn processor(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|n| n.parse::<f64>().unwrap()).sum();
        ticks / 100.0
    }

    pub fn stop(mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        self.terminate();
        (self.child.wait().unwrap().code(), started.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn output_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
