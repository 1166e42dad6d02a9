//! Metrics of the process, with the names that Prometheus defines
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). They are
//! read from `/proc`, so only Linux has them.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use std::fs;
use std::str::FromStr;
use std::sync::LazyLock;

const CPU_SECONDS: &str = "process_cpu_seconds_total";
const OPEN_FDS: &str = "process_open_fds";
const MAX_FDS: &str = "process_max_fds";
const VIRTUAL_MEMORY: &str = "process_virtual_memory_bytes";
const VIRTUAL_MEMORY_MAX: &str = "process_virtual_memory_max_bytes";
const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
const START_TIME: &str = "process_start_time_seconds";
const THREADS: &str = "process_threads";

/// Unit of times in `/proc/self/stat`: `USER_HZ`, which is 100 on every architecture of Octopus.
const TICKS_PER_SECOND: u64 = 100;
/// Start of the system, in seconds since 1970. Read once, because the kernel collects the
/// statistics of all processors for it.
static BOOT_TIME: LazyLock<Option<u64>> = LazyLock::new(|| number(&read("/proc/stat"), "btime"));

/// Describes the metrics for `/metrics`.
pub(super) fn describe() {
    describe_counter!(
        CPU_SECONDS,
        Unit::Seconds,
        "Total user and system CPU time spent in seconds."
    );
    describe_gauge!(OPEN_FDS, Unit::Count, "Number of open file descriptors.");
    describe_gauge!(MAX_FDS, Unit::Count, "Maximum number of open file descriptors.");
    describe_gauge!(VIRTUAL_MEMORY, Unit::Bytes, "Virtual memory size in bytes.");
    describe_gauge!(
        VIRTUAL_MEMORY_MAX,
        Unit::Bytes,
        "Maximum amount of virtual memory available in bytes."
    );
    describe_gauge!(RESIDENT_MEMORY, Unit::Bytes, "Resident memory size in bytes.");
    describe_gauge!(
        START_TIME,
        Unit::Seconds,
        "Start time of the process since unix epoch in seconds."
    );
    describe_gauge!(THREADS, Unit::Count, "Number of OS threads in the process.");
}

/// Reads the metrics. One that cannot be read keeps its value.
pub(super) fn collect() {
    let (status, limits) = (read("/proc/self/status"), read("/proc/self/limits"));
    let set = |name: &'static str, value: Option<f64>| {
        if let Some(value) = value {
            gauge!(name).set(value);
        }
    };
    // A limit that is not a number is "unlimited": 0, as in other programs.
    let limit = |name| word(&limits, name).map(|limit| limit.parse().unwrap_or(0.0));
    let bytes = |name| Some(number::<f64>(&status, name)? * 1024.0);
    set(MAX_FDS, limit("Max open files"));
    set(VIRTUAL_MEMORY_MAX, limit("Max address space"));
    set(VIRTUAL_MEMORY, bytes("VmSize:"));
    set(RESIDENT_MEMORY, bytes("VmRSS:"));
    set(THREADS, number(&status, "Threads:"));
    // One of the files is the folder itself, which is open meanwhile.
    let files = fs::read_dir("/proc/self/fd").map(|files| files.count().saturating_sub(1));
    set(OPEN_FDS, files.ok().and_then(|files| u32::try_from(files).ok()).map(f64::from));

    let stat = read("/proc/self/stat");
    if let (Some(user), Some(system)) = (ticks(&stat, 14), ticks(&stat, 15)) {
        counter!(CPU_SECONDS).absolute((user + system) / TICKS_PER_SECOND);
    }
    let start = BOOT_TIME.zip(ticks(&stat, 22)).map(|(boot, t)| boot + t / TICKS_PER_SECOND);
    set(START_TIME, start.and_then(|start| u32::try_from(start).ok()).map(f64::from));
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first word after `name` at the beginning of a line.
fn word<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

fn number<T: FromStr>(text: &str, name: &str) -> Option<T> {
    word(text, name)?.parse().ok()
}

/// The field of `/proc/self/stat` with this number in proc(5). Field 2, the name of the program,
/// is in parentheses and may contain spaces.
fn ticks(stat: &str, field: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(field.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_after_a_name_with_parentheses_and_spaces() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 4 0 12345 999 88 0";
        assert_eq!(ticks(stat, 14), Some(250));
        assert_eq!(ticks(stat, 15), Some(50));
        assert_eq!(ticks(stat, 22), Some(12_345));
        assert_eq!(ticks("", 14), None);
        assert_eq!(number("VmPeak:\t 9 kB\nVmRSS:\t  25 kB\n", "VmRSS:"), Some(25_u64));
        assert_eq!(
            word("Max open files   unlimited  unlimited  files", "Max open files"),
            Some("unlimited")
        );
    }
}
