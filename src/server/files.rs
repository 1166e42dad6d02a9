//! How many files and sockets the system lets the server have.

/// Files that are not connections of clients: the database's, those of jobs, and what arrives and
/// is put aside.
const RESERVED: u64 = 64;
/// Connections that are let in however few files there are: the server itself has about 24 open.
const FEWEST: u64 = 8;

/// How many connections there is room for, at most `wanted`. Raises what the system allows as far
/// as it may be raised: many give a process 1024 files until it asks for more.
pub fn connections(wanted: usize) -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(event = "server.files_unknown", %error, "cannot ask how many files there may be");
        u64::MAX
    });
    let room = fitting(files, wanted);
    if room < wanted {
        tracing::warn!(
            event = "server.few_files",
            files,
            connections = room,
            "the system allows too few open files for MAX_CONNECTIONS: see ulimit -n"
        );
    }
    room
}

fn fitting(files: u64, wanted: usize) -> usize {
    let room = files.saturating_sub(RESERVED).max(FEWEST);
    usize::try_from(room).unwrap_or(usize::MAX).min(wanted)
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn connections_leave_room_for_the_files_of_the_database() {
        assert_eq!(fitting(1_048_576, 10_000), 10_000);
        assert_eq!(fitting(1024, 10_000), 960);
        assert_eq!(fitting(128, 10_000), 64);
        assert_eq!(fitting(80, 10_000), 16);
        assert_eq!(fitting(48, 10_000), 8);
        assert_eq!(fitting(u64::MAX, 10), 10);
    }
}
