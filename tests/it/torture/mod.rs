//! Reliability tests: a server that is killed, stopped or abused, whose clients disconnect, and
//! whose disk or Postgres fails. `ci/torture.sh` runs the long forms, and docs/RELIABILITY.md
//! has their measurements.

pub mod abuse;
pub mod backup;
pub mod broken_disk;
pub mod calls;
pub mod cancel;
pub mod crash;
pub mod disk;
mod faults;
pub mod few_files;
pub mod hostile;
mod load;
mod mounts;
pub mod power;
mod queues;
pub mod races;
pub mod shutdown;
pub mod soak;
