//! Paths and identity of files. Nothing here creates a file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Appends `suffix` to the file name: `octopus.db` and `.lock` give `octopus.db.lock`.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Parent directory of a file; `.` for a bare file name.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs the directory of `path`, which makes the name of the file durable.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Resolves the symbolic links in `path`. If the file does not exist, resolves those of its
/// directory.
pub(super) fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| in_resolved_directory(path))
}

/// Resolves the symbolic links in all components of `path` but the last.
pub(super) fn in_resolved_directory(path: &Path) -> PathBuf {
    let directory = || fs::canonicalize(directory_of(path)).ok();
    let in_directory = || Some(directory()?.join(path.file_name()?));
    in_directory().unwrap_or_else(|| path.to_owned())
}

/// Returns whether `file` is the file at `path`. A symbolic link at `path` is not followed.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(is_same(&found?, &file.metadata()?)),
    }
}

/// Returns whether both are the same file: device and inode are equal.
pub(super) fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
