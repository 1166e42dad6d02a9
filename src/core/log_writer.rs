//! A buffered writer of log lines to standard error. One system call per line would take a tenth of
//! the time of a small request.

use std::io::{self, Write, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, sleep};
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line stays in the buffer. Buffered lines are lost if the process is killed or aborts.
const FLUSH_DELAY: Duration = Duration::from_millis(10);
/// Number of buffered bytes that are written immediately.
const FLUSH_BYTES: usize = 64 * 1024;

/// Buffers lines and writes them in order after `FLUSH_DELAY`. A warning or an error is written
/// immediately, together with all lines before it.
#[derive(Debug)]
pub struct LogWriter(Arc<LogBuffer>);

/// Writes the buffered lines when it is dropped. Later lines are written immediately.
#[derive(Debug)]
pub struct LogGuard(Arc<LogBuffer>);

#[derive(Debug, Default)]
struct LogBuffer {
    pending: Mutex<Vec<u8>>,
    line_added: Condvar,
    /// The lines being written. The lock keeps them in order; the buffer is empty between writes.
    writing: Mutex<Vec<u8>>,
    /// Whether each line is written immediately, because the process may exit before the next
    /// flush.
    is_unbuffered: AtomicBool,
}

/// The writer of one log event.
#[derive(Debug)]
pub struct Line<'w> {
    buffer: &'w LogBuffer,
    is_urgent: bool,
}

/// Returns a writer to standard error, and a guard to keep until the process exits. Fails if the
/// thread that writes cannot be started.
pub fn log_writer() -> io::Result<(LogWriter, LogGuard)> {
    let buffer = Arc::new(LogBuffer::default());
    let thread_buffer = buffer.clone();
    Builder::new().name("log".to_owned()).spawn(move || {
        loop {
            thread_buffer.wait_until_not_empty();
            sleep(FLUSH_DELAY);
            thread_buffer.write_pending();
        }
    })?;
    Ok((LogWriter(buffer.clone()), LogGuard(buffer)))
}

impl LogBuffer {
    fn wait_until_not_empty(&self) {
        let pending = lock(&self.pending);
        drop(self.line_added.wait_while(pending, |pending| pending.is_empty()));
    }

    fn add(&self, text: &[u8], is_urgent: bool) {
        let mut pending = lock(&self.pending);
        let is_first = pending.is_empty();
        pending.extend_from_slice(text);
        let is_unbuffered = self.is_unbuffered.load(Ordering::Relaxed);
        let must_flush = is_urgent || is_unbuffered || pending.len() >= FLUSH_BYTES;
        drop(pending);
        if must_flush {
            self.write_pending();
        } else if is_first {
            self.line_added.notify_one();
        }
    }

    fn write_pending(&self) {
        let mut writing = lock(&self.writing);
        std::mem::swap(&mut *lock(&self.pending), &mut *writing);
        // If standard error fails, there is nowhere left to report it.
        let _ = stderr().write_all(&writing);
        writing.clear();
    }
}

/// Locks a buffer. Ignores poisoning, because a panic cannot leave an incomplete line in it.
fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.is_unbuffered.store(true, Ordering::Relaxed);
        self.0.write_pending();
    }
}

impl<'w> MakeWriter<'w> for LogWriter {
    type Writer = Line<'w>;

    fn make_writer(&'w self) -> Line<'w> {
        Line { buffer: &self.0, is_urgent: true }
    }

    fn make_writer_for(&'w self, event: &Metadata<'_>) -> Line<'w> {
        Line { buffer: &self.0, is_urgent: *event.level() <= Level::WARN }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.buffer.add(text, self.is_urgent);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
