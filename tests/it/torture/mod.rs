//! What is promised of a server that is killed, hung up on, stopped, abused, and robbed of its disk or
//! its Postgres. Short here; the long forms are run by `scripts/torture.sh`, and docs/RELIABILITY.md has
//! what they measured.

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
