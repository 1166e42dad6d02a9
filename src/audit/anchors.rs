//! The anchor file: one anchor per line, `SEQ:HASH TIME`, the newest last. It belongs on another
//! disk or host, where those who can write the database cannot write.

use super::anchor::Anchor;
use chrono::{DateTime, SecondsFormat, Utc};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes read from the end of the file to find the newest anchor; a line has about 110.
const TAIL: u64 = 4096;

/// The newest anchor in `file`; `None` if the file does not exist or is empty. Ignores a partially
/// written last line.
///
/// # Errors
///
/// If the file cannot be read or its last line is not an anchor.
pub fn newest_anchor(file: &Path) -> io::Result<Option<Anchor>> {
    let mut opened = match File::open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let length = opened.metadata()?.len();
    opened.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = vec![];
    opened.take(TAIL).read_to_end(&mut tail)?;
    let tail = String::from_utf8_lossy(&tail);
    let Some(last) = without_partial_line(&tail).lines().rev().find(|line| !line.trim().is_empty())
    else {
        return Ok(None);
    };
    let anchor = last.split_whitespace().next().and_then(|text| text.parse().ok());
    let unreadable = || io::Error::new(ErrorKind::InvalidData, "its last line is not an anchor");
    anchor.map(Some).ok_or_else(unreadable)
}

/// `text` without a partially written anchor at its end. A full disk or a power failure leaves one.
fn without_partial_line(text: &str) -> &str {
    let begin = text.rfind('\n').map_or(0, |end| end + 1);
    let last = &text[begin..];
    let is_partial = last.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    if is_partial && last.parse::<Anchor>().is_err() { &text[..begin] } else { text }
}

/// Appends `anchor` to `file`, which is created if it does not exist, and syncs it to disk.
///
/// # Errors
///
/// If the file cannot be written or is a symbolic link, which another user may have planted.
pub fn append_anchor(file: &Path, anchor: &Anchor, at: DateTime<Utc>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut opened = options.open(file)?;
    let time = at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut line = format!("{anchor} {time}\n");
    if !ends_a_line(&mut opened)? {
        line.insert(0, '\n');
    }
    opened.write_all(line.as_bytes())?;
    opened.sync_all()
}

/// Returns whether `file` is empty or ends with a newline.
fn ends_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
