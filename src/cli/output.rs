//! The output of commands. A write can fail: the reader of a pipe has ended, or a disk is full.

use super::error::CliError;
use crate::core::error::Error;
use std::fmt::Display;
use std::io::{self, Write, stderr, stdout};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long a secret may wait for its reader. The transaction that creates it is open meanwhile.
const SECRET_TIMEOUT: Duration = Duration::from_secs(3);

/// Writes `text` and a line break to standard output. Fails with [`CliError::Output`].
pub(super) fn print(text: impl Display) -> Result<(), CliError> {
    write_line(text).map_err(CliError::Output)
}

/// Like [`print`], after the command has done its work: the error says that it is complete.
pub(super) fn print_result(text: impl Display) -> Result<(), CliError> {
    write_line(text).map_err(CliError::OutputAfter)
}

/// Writes `text` and a line break to standard error. Ignores errors: nothing is left to report them.
pub(super) fn hint(text: impl Display) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// Writes the new secret in `text`. Commit it afterwards: a secret that was not shown must not be
/// kept. Fails with [`CliError::SecretNotShown`].
pub(super) async fn print_secret(text: String) -> Result<(), CliError> {
    let written = timeout(SECRET_TIMEOUT, spawn_blocking(move || write_line(text))).await;
    let written = match written {
        Ok(joined) => joined.map_err(io::Error::other).flatten(),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    written.map_err(CliError::SecretNotShown)
}

/// The error of a commit after the secret was shown.
pub(super) fn not_committed(error: &Error) -> CliError {
    CliError::Other(format!("{error}; the key that was printed does not work"))
}

fn write_line(text: impl Display) -> io::Result<()> {
    let mut stdout = stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}
