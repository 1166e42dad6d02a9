//! Files with mode 600, never opened through a link that another user of the folder planted.

use super::files::with_suffix;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Mode of every created file.
const MODE: u32 = 0o600;

/// Creates the file at `path` with mode 600. Fails with `AlreadyExists` if anything is there, even
/// a dangling symbolic link (`O_EXCL`).
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)
}

/// Opens the file at `path` for writing, without truncating it. Fails on a symbolic link
/// (`O_NOFOLLOW`) and on anything but a regular file. Does not wait for the reader of a pipe.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::other("it is a symbolic link; links are not followed"),
        _ => error,
    })?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

/// Opens the file at `path` for writing, or creates it. Fails on a symbolic or hard link.
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    let file = loop {
        match create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created,
        }
        match open(path) {
            // It was removed meanwhile: create it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => break opened?,
        }
    };
    if file.metadata()?.nlink() > 1 {
        return Err(io::Error::other("it is a hard link to another file"));
    }
    Ok(file)
}

/// Fails if a file that SQLite keeps beside `database` is a symbolic or hard link: SQLite would
/// write to its target.
pub(super) fn refuse_links_beside(database: &Path) -> io::Result<()> {
    for ending in ["-wal", "-shm", "-journal"] {
        let path = with_suffix(database, ending);
        if path.symlink_metadata().is_ok_and(|found| !found.is_file() || found.nlink() > 1) {
            let message = format!("{} is a link to another file; remove it", path.display());
            return Err(io::Error::other(message));
        }
    }
    Ok(())
}

/// Removes the access of other users to the SQLite file at `path` and to the files beside it. Logs
/// each change and each failure.
pub(super) fn restrict_permissions(path: &Path) {
    for ending in ["", "-wal", "-shm", "-journal", ".audit-key"] {
        let path = with_suffix(path, ending);
        // The operator may have made the database a link; the other files must not be links.
        let is_database = ending.is_empty();
        let found = if is_database { fs::metadata(&path) } else { path.symlink_metadata() };
        if let Ok(found) = found.as_ref()
            && found.is_file()
            && (is_database || found.nlink() == 1)
        {
            tighten(&path, found.mode() & 0o7777);
        }
    }
}

fn tighten(path: &Path, mode: u32) {
    if mode & !MODE == 0 {
        return;
    }
    let (file, was) = (path.display(), format!("{mode:03o}"));
    // By path: closing a descriptor of the file would release SQLite's locks on it.
    match fs::set_permissions(path, Permissions::from_mode(mode & MODE)) {
        Ok(()) => tracing::warn!(
            event = "database.permissions_tightened",
            %file,
            was,
            "other users of this machine had access to this file; now only its owner has"
        ),
        Err(error) => tracing::warn!(
            event = "database.permissions_wide",
            %file,
            was,
            %error,
            "other users of this machine have access to this file; run chmod 600 on it"
        ),
    }
}
