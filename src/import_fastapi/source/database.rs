//! Opens the source database.

use super::schema::Schema;
use crate::db::files::with_suffix;
use crate::db::{Snapshot, bulk, explain_file_error};
use crate::import_fastapi::error::ImportError;
use sha2::{Digest, Sha256};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The first bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Offset of the file format version in the header; 2 means write-ahead log.
const JOURNAL_MODE_OFFSET: usize = 18;

/// A consistent snapshot of the source database.
pub struct Source {
    pub(super) snapshot: Snapshot,
    /// Its tables and columns.
    pub schema: Schema,
    /// The path as given.
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// Whether it is read from a copy.
    pub is_copied: bool,
    /// The descriptor that the SHA-256 was read from. It stays open as long as the snapshot, as
    /// closing any descriptor of a file drops all POSIX locks of the process on it, also SQLite's.
    _file: File,
    /// The folder of the copy, removed on drop.
    _copy: Option<TempDir>,
}

impl Source {
    /// Opens the file at `path`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not a database of the FastAPI app.
    pub async fn open(path: &Path) -> Result<Self, ImportError> {
        let refused = |why: &str| ImportError::source(path, why);
        let (given, path) = (path, fs::canonicalize(path));
        // Logs and journals are beside the file itself, not beside a link to it.
        let unreadable = |error: io::Error| refused(&explain_file_error(given, &error).to_string());
        let path = &path.map_err(unreadable)?;
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(refused("it is not a file"));
        }
        let has_log = has_write_ahead_log(path).map_err(unreadable)?;
        let Some(has_log) = has_log else { return Err(refused("it is not an SQLite database")) };
        let is_nonempty =
            |suffix| fs::metadata(with_suffix(path, suffix)).is_ok_and(|m| m.len() > 0);
        // To read these in place, SQLite would have to write into the file or beside it.
        let copy = if has_log || is_nonempty("-wal") || is_nonempty("-journal") {
            Some(copied(path, &metadata).map_err(|error| refused(&error))?)
        } else {
            None
        };
        let file = copy.as_ref().map_or_else(|| path.to_owned(), |(_, file)| file.clone());
        let failed = |error: sqlx::Error| refused(&error.to_string());
        let mut snapshot = bulk::snapshot_of(&file, copy.is_some())
            .await
            .map_err(|error| refused(&error.to_string()))?;
        // From here on, the snapshot's lock keeps writers away.
        let schema = Schema::read(&mut snapshot).await.map_err(failed)?;
        let schema = schema.map_err(|why| refused(&why))?;
        let original = path.to_owned();
        let hashed = tokio::task::spawn_blocking(move || sha256(&original)).await;
        let hashed = hashed.map_err(io::Error::other).flatten();
        let (sha256, file) = hashed.map_err(|error| refused(&error.to_string()))?;
        let (is_copied, copy) = (copy.is_some(), copy.map(|(folder, _)| folder));
        let (path, bytes) = (given.to_owned(), metadata.len());
        Ok(Self { snapshot, schema, path, sha256, bytes, is_copied, _file: file, _copy: copy })
    }
}

/// Returns whether both paths name the same file.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Returns whether the header sets the mode to write-ahead log; `None` if it is not an SQLite
/// database.
fn has_write_ahead_log(path: &Path) -> io::Result<Option<bool>> {
    let mut header = [0; 100];
    match File::open(path)?.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    Ok(header.starts_with(MAGIC).then(|| header[JOURNAL_MODE_OFFSET] == 2))
}

/// Copies the database with its log or journal to a temporary folder that only its owner can read.
fn copied(path: &Path, before: &Metadata) -> Result<(TempDir, PathBuf), String> {
    let failed =
        |error: io::Error| format!("it cannot be copied to a temporary directory: {error}");
    let folder = tempfile::Builder::new().prefix("octopus-import-").tempdir().map_err(failed)?;
    let copy = folder.path().join("source.db");
    let sizes_and_times = || -> io::Result<Vec<(u64, i64, i64)>> {
        let names = ["", "-wal", "-journal"].map(|suffix| with_suffix(path, suffix));
        let files = names.iter().filter_map(|name| fs::metadata(name).ok());
        Ok(files.map(|m| (m.len(), m.mtime(), m.mtime_nsec())).collect())
    };
    let before_copy = sizes_and_times().map_err(failed)?;
    fs::copy(path, &copy).map_err(failed)?;
    for suffix in ["-wal", "-journal"] {
        if with_suffix(path, suffix).exists() {
            fs::copy(with_suffix(path, suffix), with_suffix(&copy, suffix)).map_err(failed)?;
        }
    }
    let is_unchanged =
        sizes_and_times().map_err(failed)? == before_copy && before_copy[0].0 == before.len();
    if is_unchanged {
        Ok((folder, copy))
    } else {
        Err("it is being written: stop the FastAPI app".into())
    }
}

/// The SHA-256 of the file, and its descriptor, still open.
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
