//! The Postgres of the tests: the server at `TEST_DATABASE_URL`, or one started on a free port. All
//! test processes share it. A watchdog stops it and removes its folder when no process has used it
//! for a few seconds, for any reason.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A self-signed certificate for 127.0.0.1, valid until 2120, and its key.
const CERTIFICATE: &str = include_str!("tls/server.pem");
const CERTIFICATE_KEY: &str = include_str!("tls/server-key.pem");

/// Runs in a shell beside the tests. Without a lock file, it reads orders from standard input, which
/// closes when the test process ends, even by SIGKILL. With a lock file, it waits until no process
/// has a lock on it.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
programs=$1 folder=$2 port=$3 lock=$4
shift 4
start() {
  "$programs/postgres" -D "$folder/data" -p "$port" -k '' -c listen_addresses=127.0.0.1 \
    -c max_connections=400 -c ssl=on -c shared_buffers=64MB -c fsync=off "$@" >>"$folder/log" 2>&1 </dev/null &
}
start "$@"
if [ -n "$lock" ]; then
  exec 9<"$lock"
  until flock -n -x 9; do
    flock -x "$lock" true
    sleep 3
  done
else
  while read -r order; do
    case $order in
      start) start "$@" ;;
      *) kill "-$order" $!; wait ;;
    esac
  done
fi
kill -INT $! 2>/dev/null
wait
rm -rf "$folder"
"#;

/// For short tests, whose data need not survive a crash and is too small for compiled queries.
const FAST: &[&str] = &[
    "-c",
    "fsync=off",
    "-c",
    "synchronous_commit=off",
    "-c",
    "full_page_writes=off",
    "-c",
    "jit=off",
];

/// How to get a Postgres server.
enum Source {
    Url(String),
    Programs(PathBuf),
    Nowhere,
}

pub struct Postgres {
    source: Source,
    options: &'static [&'static str],
    /// Locked while a process uses the shared server; `None` for a separate server.
    lock: Option<PathBuf>,
    running: Mutex<Option<Running>>,
}

struct Running {
    port: u16,
    folder: PathBuf,
    /// `None` for a server that another process started.
    watchdog: Option<Child>,
    /// Holds the lock of the shared server.
    _lock: Option<File>,
}

impl Postgres {
    /// The server that all tests share.
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Postgres>> = OnceLock::new();
        SHARED.get_or_init(|| Arc::new(Self::find())).clone()
    }

    fn find() -> Self {
        let source = match std::env::var("TEST_DATABASE_URL") {
            Ok(url) if !url.is_empty() => Source::Url(url),
            _ => programs().map_or(Source::Nowhere, Source::Programs),
        };
        let uid = fs::metadata("/proc/self").unwrap().uid();
        let lock = std::env::temp_dir().join(format!("octopus-test-postgres-{uid}.lock"));
        Self { source, options: FAST, lock: Some(lock), running: Mutex::new(None) }
    }

    /// A separate server with default durability, which the test may kill. `None` if the programs
    /// are not installed.
    pub fn durable() -> Option<Self> {
        let source = Source::Programs(programs()?);
        Some(Self { source, options: &[], lock: None, running: Mutex::new(None) })
    }

    pub fn is_missing(&self) -> bool {
        matches!(self.source, Source::Nowhere)
    }

    /// The URL of its `postgres` database. The first call starts the server.
    pub fn url(&self) -> String {
        match &self.source {
            Source::Url(url) => url.clone(),
            Source::Programs(programs) => {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                let start = || match &self.lock {
                    Some(lock) => Running::join(programs, self.options, lock),
                    None => Running::start(programs, self.options, None),
                };
                running.get_or_insert_with(start).url()
            }
            Source::Nowhere => panic!("there is no Postgres"),
        }
    }

    /// The self-signed certificate of a server started by this run.
    pub fn certificate(&self) -> Option<PathBuf> {
        self.url();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(Running::certificate)
    }

    /// Sends the signal to the main process and waits for its end.
    pub fn kill(&self, signal: &str) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.as_mut().expect("it runs");
        running.order(signal);
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", running.port)).is_ok() {
            assert!(Instant::now() < end, "Postgres continues after SIG{signal}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts it again after [`Postgres::kill`].
    pub fn start_again(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.as_mut().expect("it ran");
        // Postgres refuses to start while processes of the previous one exist.
        for _ in 0..100 {
            fs::write(running.folder.join("log"), "").unwrap();
            running.order("start");
            if wait_for(running.port, &running.folder) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("Postgres does not start again");
    }

    /// Stops a separate server.
    pub fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut watchdog) = running.and_then(|running| running.watchdog) {
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
    }
}

impl Running {
    /// Uses the server that the processes with a lock on `lock` share, or starts it. The file
    /// contains the port and the folder of the server, which is removed when the server stops.
    fn join(programs: &Path, options: &[&str], lock: &Path) -> Self {
        let mut open = File::options();
        open.read(true).write(true).create(true).truncate(false).mode(0o644);
        let mut file = open.open(lock).unwrap();
        loop {
            file.lock_shared().unwrap();
            let found = read_server(&mut file);
            if let Some((port, folder)) = found {
                return Self { port, folder, watchdog: None, _lock: Some(file) };
            }
            file.unlock().unwrap();
            // Waits for other processes that start or stop the server.
            file.lock().unwrap();
            if read_server(&mut file).is_none() {
                let Self { port, folder, .. } = Self::start(programs, options, Some(lock));
                file.set_len(0).unwrap();
                file.rewind().unwrap();
                writeln!(file, "{port} {}", folder.display()).unwrap();
            }
            file.unlock().unwrap();
        }
    }

    fn start(programs: &Path, options: &[&str], lock: Option<&Path>) -> Self {
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

        write_certificate(&folder.join("data/server.crt"), &folder.join("data/server.key"), user);

        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut watchdog = Command::new("sh");
        watchdog.args(["-c", WATCHDOG, "sh"]).arg(programs).arg(&folder).arg(port.to_string());
        watchdog.arg(lock.unwrap_or(Path::new(""))).args(options);
        watchdog.stdin(if lock.is_some() { Stdio::null() } else { Stdio::piped() });
        watchdog.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        run_as(&mut watchdog);
        let watchdog = watchdog.spawn().unwrap();
        assert!(wait_for(port, &folder), "Postgres did not start:\n{}", log(&folder));
        Self { port, folder, watchdog: Some(watchdog), _lock: None }
    }

    /// The URL of its `postgres` database.
    fn url(&self) -> String {
        format!("postgres://octopus@127.0.0.1:{}/postgres", self.port)
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join("data/server.crt")
    }

    fn order(&mut self, order: &str) {
        let watchdog = self.watchdog.as_mut().expect("a separate server");
        let orders = watchdog.stdin.as_mut().expect("its standard input");
        writeln!(orders, "{order}").unwrap();
    }
}

/// The port and the folder of the server that the lock file names, if it runs.
fn read_server(file: &mut File) -> Option<(u16, PathBuf)> {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    let (port, folder) = text.trim_end().split_once(' ')?;
    let folder = PathBuf::from(folder);
    folder.exists().then_some((port.parse().ok()?, folder))
}

fn write_certificate(certificate: &Path, key: &Path, user: Option<(u32, u32)>) {
    fs::write(certificate, CERTIFICATE).unwrap();
    fs::write(key, CERTIFICATE_KEY).unwrap();
    // Postgres refuses a key that other users can read.
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((uid, gid)) = user {
        chown(key, Some(uid), Some(gid)).unwrap();
        chown(certificate, Some(uid), Some(gid)).unwrap();
    }
}

/// Waits until the server is ready. Returns false if it failed to start.
fn wait_for(port: u16, folder: &Path) -> bool {
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        let log = log(folder);
        // The port alone is not enough, because another server may use it.
        if log.contains("ready to accept connections")
            && TcpStream::connect(("127.0.0.1", port)).is_ok()
        {
            return true;
        }
        // Early connections log "FATAL:  the database system is starting up".
        let mut ends = log.lines().filter(|line| line.contains("FATAL:"));
        if ends.any(|line| !line.contains("the database system is")) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
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

/// The user and group for Postgres if this process is root, because Postgres refuses to run as
/// root.
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
