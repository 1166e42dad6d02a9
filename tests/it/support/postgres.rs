//! A Postgres for the tests: the one at `TEST_DATABASE_URL`, or one started for this run on a free
//! port. It ends, and its folder goes, when this process does, however that ends.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Runs in a shell beside the tests. Its standard input ends when the tests do, even by SIGKILL.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
"$1/postgres" -D "$2/data" -p "$3" -k '' -c listen_addresses=127.0.0.1 -c max_connections=400 \
  -c ssl=on -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=64MB \
  >"$2/log" 2>&1 </dev/null &
read -r _
kill -INT $! 2>/dev/null
wait
rm -rf "$2"
"#;

/// Where a Postgres comes from.
enum Source {
    Url(String),
    Programs(PathBuf),
    Nowhere,
}

pub struct Postgres {
    source: Source,
    running: Mutex<Option<Running>>,
}

struct Running {
    url: String,
    certificate: PathBuf,
    watchdog: Child,
}

impl Postgres {
    pub fn find() -> Self {
        let source = match std::env::var("TEST_DATABASE_URL") {
            Ok(url) if !url.is_empty() => Source::Url(url),
            _ => programs().map_or(Source::Nowhere, Source::Programs),
        };
        Self { source, running: Mutex::new(None) }
    }

    pub fn is_missing(&self) -> bool {
        matches!(self.source, Source::Nowhere)
    }

    /// The URL of its `postgres` database; starts the server the first time.
    pub fn url(&self) -> String {
        match &self.source {
            Source::Url(url) => url.clone(),
            Source::Programs(programs) => {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                running.get_or_insert_with(|| Running::start(programs)).url.clone()
            }
            Source::Nowhere => panic!("there is no Postgres"),
        }
    }

    /// The certificate of a server of ours, which it signed itself.
    pub fn certificate(&self) -> Option<PathBuf> {
        self.url();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|running| running.certificate.clone())
    }

    pub fn stop(&self) {
        if let Some(mut running) =
            self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            drop(running.watchdog.stdin.take());
            let _ = running.watchdog.wait();
        }
    }
}

impl Running {
    fn start(programs: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("octopus-test-postgres-").tempdir().unwrap();
        let folder = folder.keep(); // the watchdog removes it
        let user = unprivileged();
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        let run_as = |command: &mut Command| {
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command.current_dir(&folder);
        };
        let mut initdb = Command::new(programs.join("initdb"));
        initdb.arg("-D").arg(folder.join("data"));
        initdb.args(["-A", "trust", "-U", "octopus", "-E", "UTF8", "--locale=C", "--no-sync"]);
        run_as(&mut initdb);
        let output = initdb.output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));

        let certificate = folder.join("data/server.crt");
        make_certificate(&certificate, &folder.join("data/server.key"), user);

        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut watchdog = Command::new("sh");
        watchdog.args(["-c", WATCHDOG, "sh"]).arg(programs).arg(&folder).arg(port.to_string());
        watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        run_as(&mut watchdog);
        let watchdog = watchdog.spawn().unwrap();
        wait_for(port, &folder);
        Self { url: format!("postgres://octopus@127.0.0.1:{port}/postgres"), certificate, watchdog }
    }
}

fn make_certificate(certificate: &Path, key: &Path, user: Option<(u32, u32)>) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(certificate, made.cert.pem()).unwrap();
    fs::write(key, made.signing_key.serialize_pem()).unwrap();
    // Postgres refuses a key that others could read.
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((uid, gid)) = user {
        chown(key, Some(uid), Some(gid)).unwrap();
        chown(certificate, Some(uid), Some(gid)).unwrap();
    }
}

fn wait_for(port: u16, folder: &Path) {
    let end = Instant::now() + Duration::from_secs(30);
    // The log says so before the port does: a port alone may be somebody else's.
    let ready = || {
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        log.contains("ready to accept connections")
            && TcpStream::connect(("127.0.0.1", port)).is_ok()
    };
    while !ready() {
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(Instant::now() < end, "Postgres did not start:\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The folder of the newest `initdb`.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    debian.sort_by_key(|bin| {
        let version = bin.parent().and_then(|p| p.file_name()).and_then(|n| n.to_str());
        std::cmp::Reverse(version.and_then(|v| v.parse::<u32>().ok()))
    });
    let has_all = |bin: &PathBuf| bin.join("initdb").exists() && bin.join("postgres").exists();
    std::env::split_paths(&path).chain(debian).find(has_all)
}

/// Postgres refuses to run as root; then it runs as one of these.
fn unprivileged() -> Option<(u32, u32)> {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    ["postgres", "nobody"].into_iter().find_map(|name| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}
