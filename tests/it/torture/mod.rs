//! What must not happen to the real program, tried until it would: short in the normal run, long by
//! `scripts/torture.sh`.

mod calls;
pub mod disk;
mod mounts;
