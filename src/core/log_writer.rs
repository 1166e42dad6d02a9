//! Log lines on their way to standard error, some of them together: a write for each would cost a
//! small request a tenth of its time.

use std::io::{self, Write, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, sleep};
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line waits for others. It is lost if the process is killed meanwhile, or aborts.
const DELAY: Duration = Duration::from_millis(10);
/// Bytes that do not wait for more.
const ENOUGH: usize = 64 * 1024;

/// Writes lines a moment later, in their order; warnings and errors, and what came before them, at
/// once.
#[derive(Debug)]
pub struct LogWriter(Arc<Lines>);

/// Writes what still waits when it is dropped; from then on no line waits.
#[derive(Debug)]
pub struct LogGuard(Arc<Lines>);

#[derive(Debug, Default)]
struct Lines {
    waiting: Mutex<Vec<u8>>,
    came: Condvar,
    /// Held while lines are written, so that they stay in order; empty in between.
    going: Mutex<Vec<u8>>,
    /// Whether the process may end before a line that waits is written.
    is_ending: AtomicBool,
}

/// What one event is written to.
#[derive(Debug)]
pub struct Line<'w> {
    lines: &'w Lines,
    is_urgent: bool,
}

/// A writer to standard error, and what must live as long as it is used. Fails when there can be no
/// thread.
pub fn log_writer() -> io::Result<(LogWriter, LogGuard)> {
    let lines = Arc::new(Lines::default());
    let written = lines.clone();
    Builder::new().name("log".to_owned()).spawn(move || {
        loop {
            written.wait();
            sleep(DELAY);
            written.write_out();
        }
    })?;
    Ok((LogWriter(lines.clone()), LogGuard(lines)))
}

impl Lines {
    fn wait(&self) {
        let waiting = locked(&self.waiting);
        drop(self.came.wait_while(waiting, |waiting| waiting.is_empty()));
    }

    fn add(&self, text: &[u8], is_urgent: bool) {
        let mut waiting = locked(&self.waiting);
        let is_first = waiting.is_empty();
        waiting.extend_from_slice(text);
        let is_ending = self.is_ending.load(Ordering::Relaxed);
        let is_enough = is_urgent || is_ending || waiting.len() >= ENOUGH;
        drop(waiting);
        if is_enough {
            self.write_out();
        } else if is_first {
            self.came.notify_one();
        }
    }

    fn write_out(&self) {
        let mut going = locked(&self.going);
        std::mem::swap(&mut *locked(&self.waiting), &mut *going);
        // There is nowhere to tell that nothing can be told.
        let _ = stderr().write_all(&going);
        going.clear();
    }
}

/// A panic while it was held left no half of a line.
fn locked(lines: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.is_ending.store(true, Ordering::Relaxed);
        self.0.write_out();
    }
}

impl<'w> MakeWriter<'w> for LogWriter {
    type Writer = Line<'w>;

    fn make_writer(&'w self) -> Line<'w> {
        Line { lines: &self.0, is_urgent: true }
    }

    fn make_writer_for(&'w self, event: &Metadata<'_>) -> Line<'w> {
        Line { lines: &self.0, is_urgent: *event.level() <= Level::WARN }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.lines.add(text, self.is_urgent);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
