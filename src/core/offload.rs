//! Runs CPU-bound work on blocking threads, so that it does not delay the connections of the
//! runtime.

use std::panic::resume_unwind;
use std::sync::LazyLock;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// The size in bytes from which work runs through [`offload`]. Work of this size may take about a
/// millisecond: JSON with many values is parsed at tens of bytes per microsecond.
pub const OFFLOAD_BYTES: usize = 32 * 1024;

/// One permit per core, because more threads would compete for the same cores.
static PERMITS: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(cores)
});

/// Runs `work` on a blocking thread, at most one per core concurrently. Work that has started runs
/// to completion, even if the caller drops the future.
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

/// Runs `work`, which processes `bytes` bytes: on the current thread below [`OFFLOAD_BYTES`],
/// otherwise through [`offload`].
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
    async fn large_work_does_not_block_the_runtime() {
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
