//! The database of the Python original: opened without changing anything, and looked at before
//! anything is read from it.

mod rows;
mod schema;

pub use rows::{AuditRow, ConversationRow, KeyRow, MessageRow, UserRow};

use super::MoveError;
use crate::db::{Snapshot, bulk};
use schema::Schema;
use sha2::{Digest, Sha256};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What every SQLite file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Where a file says that it has a write-ahead log: 2 there.
const JOURNAL_MODE: usize = 18;

/// One state of the database. Nothing in it changes while this is open.
pub struct Source {
    pub(super) snapshot: Snapshot,
    pub(super) schema: Schema,
    /// As it was called.
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Whether it was read from a copy.
    pub is_copied: bool,
    /// What was read for the SHA-256. To close any descriptor of a file drops all the locks that the
    /// process has on it, SQLite's as well: this stays open as long as the snapshot.
    _file: File,
    /// The copy, which goes with this.
    _copy: Option<TempDir>,
}

impl Source {
    /// Opens the file at `path`, which must be a database of the original.
    pub async fn open(path: &Path) -> Result<Self, MoveError> {
        let refused = |why: &str| MoveError::source(path, why);
        let (called, path) = (path, fs::canonicalize(path));
        // What belongs to a file is beside it, not beside links to it.
        let path = &path.map_err(|error| refused(&error.to_string()))?;
        let metadata = fs::metadata(path).map_err(|error| refused(&error.to_string()))?;
        if !metadata.is_file() {
            return Err(refused("it is no file"));
        }
        let has_log = looks_into(path).map_err(|error| refused(&error.to_string()))?;
        let Some(has_log) = has_log else { return Err(refused("it is no SQLite database")) };
        let has_left = |suffix| fs::metadata(beside(path, suffix)).is_ok_and(|m| m.len() > 0);
        // To read these in place SQLite would have to write beside the file, or into it.
        let copy = if has_log || has_left("-wal") || has_left("-journal") {
            Some(copied(path, &metadata).map_err(|error| refused(&error))?)
        } else {
            None
        };
        let file = copy.as_ref().map_or_else(|| path.to_owned(), |(_, file)| file.clone());
        let failed = |error: sqlx::Error| refused(&error.to_string());
        let mut snapshot = bulk::snapshot_of(&file, copy.is_some()).await.map_err(failed)?;
        // From here on nobody changes it.
        let schema = Schema::read(&mut snapshot).await.map_err(failed)?;
        let schema = schema.map_err(|why| refused(&why))?;
        let original = path.to_owned();
        let hashed = tokio::task::spawn_blocking(move || sha256(&original)).await;
        let hashed = hashed.map_err(io::Error::other).flatten();
        let (sha256, file) = hashed.map_err(|error| refused(&error.to_string()))?;
        let (is_copied, copy) = (copy.is_some(), copy.map(|(folder, _)| folder));
        let (path, bytes) = (called.to_owned(), metadata.len());
        Ok(Self { snapshot, schema, path, sha256, bytes, is_copied, _file: file, _copy: copy })
    }
}

/// Whether both are one file, by whatever names.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// The file that SQLite puts beside `path`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether the file says that it has a write-ahead log; `None` when it is no SQLite database.
fn looks_into(path: &Path) -> io::Result<Option<bool>> {
    let mut beginning = [0; 100];
    match File::open(path)?.read_exact(&mut beginning) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    Ok(beginning.starts_with(MAGIC).then(|| beginning[JOURNAL_MODE] == 2))
}

/// A copy of the database with what belongs to it, in a folder for its owner alone.
fn copied(path: &Path, before: &Metadata) -> Result<(TempDir, PathBuf), String> {
    let failed = |error: io::Error| format!("it cannot be copied aside to be read: {error}");
    let folder = tempfile::Builder::new().prefix("octopus-import-").tempdir().map_err(failed)?;
    let copy = folder.path().join("source.db");
    let stamps = || -> io::Result<Vec<(u64, i64, i64)>> {
        let names = ["", "-wal", "-journal"].map(|suffix| beside(path, suffix));
        let files = names.iter().filter_map(|name| fs::metadata(name).ok());
        Ok(files.map(|m| (m.len(), m.mtime(), m.mtime_nsec())).collect())
    };
    let at_first = stamps().map_err(failed)?;
    fs::copy(path, &copy).map_err(failed)?;
    for suffix in ["-wal", "-journal"] {
        if beside(path, suffix).exists() {
            fs::copy(beside(path, suffix), beside(&copy, suffix)).map_err(failed)?;
        }
    }
    let is_steady = stamps().map_err(failed)? == at_first && at_first[0].0 == before.len();
    if is_steady {
        Ok((folder, copy))
    } else {
        Err("it is being written: stop the original".into())
    }
}

/// The SHA-256 of the file, and the file, still open.
fn sha256(path: &Path) -> io::Result<(String, File)> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex::encode(hasher.finalize()), file));
        }
        hasher.update(&buffer[..read]);
    }
}
