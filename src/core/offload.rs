//! Keeps CPU-bound work off the threads that serve every connection.

use std::panic::resume_unwind;
use std::sync::LazyLock;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Work on this many bytes may take about a millisecond: JSON with many values is parsed at tens of
/// bytes a microsecond. Larger work runs through [`offload`].
pub const OFFLOAD_BYTES: usize = 32 * 1024;

/// One permit per core: more threads would only take turns.
static PERMITS: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(cores)
});

/// Runs `work` on a blocking thread, at most one for each core at a time. Work that has started runs
/// to its end, even if the caller stops waiting.
///
/// # Panics
/// If `work` panics.
pub async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // The semaphore is never closed; without a permit the work would still be correct.
    let permit = PERMITS.acquire().await.ok();
    let task = spawn_blocking(move || {
        let result = work();
        drop(permit);
        result
    });
    match task.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // The runtime is shutting down and drops this future as well.
        Err(_) => std::future::pending().await,
    }
}

/// Runs `work` on `bytes` bytes: in place if they are few, otherwise through [`offload`].
pub async fn offload_large<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes < OFFLOAD_BYTES { work() } else { offload(work).await }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_runtime_goes_on_while_large_work_runs() {
        let work = tokio::spawn(offload_large(OFFLOAD_BYTES, || {
            std::thread::sleep(Duration::from_millis(200));
            std::thread::current().id()
        }));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!work.is_finished());
        assert_ne!(work.await.unwrap(), std::thread::current().id());
    }

    #[tokio::test]
    async fn small_work_stays_on_its_thread() {
        let thread = offload_large(OFFLOAD_BYTES - 1, || std::thread::current().id()).await;
        assert_eq!(thread, std::thread::current().id());
    }
}
