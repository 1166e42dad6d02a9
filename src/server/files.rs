//! The limit on open files, which also limits connections.

/// File descriptors for everything except client connections: about 24 of the server itself, up to 16
/// connections to Postgres, connections that are not admitted yet, and temporary files.
const RESERVED: u64 = 64;
/// Minimum number of connections, however low the limit is.
const MIN_CONNECTIONS: u64 = 8;

/// Returns how many connections the limit on open files allows, at most `wanted`. First raises the
/// soft limit to the hard limit: on many systems, the soft limit is 1024.
pub fn connections(wanted: usize) -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(
            event = "server.file_limit_unknown",
            %error,
            "cannot read the limit on open files"
        );
        u64::MAX
    });
    let room = fitting(files, wanted);
    if room < wanted {
        tracing::warn!(
            event = "server.file_limit_low",
            files,
            connections = room,
            "the limit on open files is too low for MAX_CONNECTIONS; raise `ulimit -n`"
        );
    }
    room
}

fn fitting(files: u64, wanted: usize) -> usize {
    let room = files.saturating_sub(RESERVED).max(MIN_CONNECTIONS);
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
