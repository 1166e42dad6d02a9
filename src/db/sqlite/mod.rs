//! The SQLite back end: connections, group commit, the lock of a file, copies of a file.

pub(super) mod backup;
pub(super) mod connect;
pub(super) mod copy;
pub(super) mod group_commit;
pub(super) mod lock;
pub(super) mod migrate;
pub(super) mod open_files;
pub(super) mod pool;
pub(super) mod restore;
pub(super) mod watch;
