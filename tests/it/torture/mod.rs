//! What must not happen to the real program, tried until it would: short in the normal run, long by
//! `scripts/torture.sh`.

pub mod broken_disk;
mod calls;
pub mod disk;
mod faults;
mod mounts;
