//! Explains why a database file cannot be opened: SQLite reports only a code.

use super::files::{directory_of, resolved, with_suffix};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::geteuid;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a database file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// To read it, without any file beside it.
    Read,
    /// To read or write it with SQLite's files beside it.
    Write,
}

/// A path that cannot be used, and why.
#[derive(Debug)]
pub(super) struct FileFault {
    pub(super) path: PathBuf,
    pub(super) cause: io::Error,
}

impl FileFault {
    fn new(path: &Path, kind: ErrorKind, why: String) -> Self {
        Self { path: path.to_owned(), cause: io::Error::new(kind, why) }
    }
}

/// Examines the file at `path`, its directory and the files of SQLite beside it, without opening
/// any of them. Returns the first fault that prevents `usage`, with its remedy.
pub(super) fn find(path: &Path, usage: Use) -> Option<FileFault> {
    let path = &resolved(path);
    let directory = directory_of(path);
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => {
            let why = format!("{} is a file, not a directory", directory.display());
            return Some(FileFault::new(path, ErrorKind::NotADirectory, why));
        }
        Err(error) => return Some(explained(directory, &error)),
        Ok(_) => {}
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let why = "it is a directory; name a file".to_owned();
            return Some(FileFault::new(path, ErrorKind::IsADirectory, why));
        }
        Ok(found) if !found.is_file() => {
            let why = "it is not a regular file; name another one".to_owned();
            return Some(FileFault::new(path, ErrorKind::InvalidInput, why));
        }
        Err(error) => return Some(explained(path, &error)),
        Ok(_) => {}
    }
    if usage == Use::Read {
        return denied(path, Access::READ_OK);
    }
    let beside = ["-wal", "-shm", "-journal"].map(|suffix| with_suffix(path, suffix));
    let files = [path.clone()].into_iter().chain(beside).filter(|file| file.exists());
    let of_file = |file: PathBuf| denied(&file, Access::READ_OK | Access::WRITE_OK);
    files.into_iter().find_map(of_file).or_else(|| {
        // SQLite creates and removes files beside the database.
        denied(directory, Access::WRITE_OK | Access::EXEC_OK)
    })
}

/// Returns the fault if the process has no `access` to `path`.
fn denied(path: &Path, access: Access) -> Option<FileFault> {
    let error = accessat(CWD, path, access, AtFlags::EACCESS).err()?;
    Some(explained(path, &error.into()))
}

/// Adds to `error` of the operating system why it occurred at `path`, and what to do.
pub(super) fn explained(path: &Path, error: &io::Error) -> FileFault {
    let why = match error.kind() {
        ErrorKind::NotFound => missing(path, error),
        ErrorKind::PermissionDenied if error.raw_os_error() == Some(libc::EPERM) => {
            format!("{error}: it may be immutable; chattr -i makes it writable")
        }
        ErrorKind::PermissionDenied => permission(path, error),
        ErrorKind::ReadOnlyFilesystem => {
            format!("{error}: mount it writable, or use a copy on another file system")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => format!("{error}: free some space"),
        _ => error.to_string(),
    };
    FileFault::new(path, error.kind(), why)
}

fn missing(path: &Path, error: &io::Error) -> String {
    let directory = directory_of(path);
    if directory.exists() {
        return format!("{error}; check the path");
    }
    format!("{error}: the directory {} does not exist; create it", directory.display())
}

/// Names the owner that may use the file, or its directory if it does not exist, and the user of
/// this process.
fn permission(path: &Path, error: &io::Error) -> String {
    let uid = geteuid().as_raw();
    let directory = directory_of(path);
    let of_file = fs::metadata(path).map(|found| ("it", found));
    let found = of_file.or_else(|_| fs::metadata(directory).map(|found| ("its directory", found)));
    match found {
        Ok((what, found)) if found.uid() != uid => format!(
            "{error}: {what} belongs to uid {}, and this process runs as uid {uid}; run it as that \
             user, or change the owner with chown",
            found.uid()
        ),
        Ok((what, found)) => format!(
            "{error}: {what} belongs to uid {uid}, as which this process runs, and its mode is \
             {:03o}; give the owner access with chmod",
            found.mode() & 0o777
        ),
        Err(_) => format!("{error}: uid {uid} may not enter {}", directory.display()),
    }
}

/// Returns `error` of the operating system at `path` with its cause, such as the owner of the file,
/// and what to do.
pub fn explain_file_error(path: &Path, error: &io::Error) -> io::Error {
    explained(path, error).cause
}

/// SQLite's primary result code of `error`: the low byte of an extended one.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse().ok().map(|code: i32| code & 0xff)
}

/// The fault of a file that SQLite could not open, with its remedy; `None` if `error` has another
/// cause.
pub(super) fn of_sqlite(path: &Path, usage: Use, error: &sqlx::Error) -> Option<FileFault> {
    match primary_code(error)? {
        // SQLITE_BUSY, SQLITE_LOCKED
        5 | 6 => {
            let why = "another process has locked it; stop that process, or try again later";
            Some(FileFault::new(path, ErrorKind::ResourceBusy, why.to_owned()))
        }
        // SQLITE_PERM, SQLITE_READONLY, SQLITE_IOERR, SQLITE_CANTOPEN, SQLITE_AUTH
        3 | 8 | 10 | 14 | 23 => find(path, usage),
        _ => None,
    }
}
