//! What is promised of servers that are killed, hung up on and stopped. Short here; the long forms
//! are run by `scripts/torture.sh`, and docs/RELIABILITY.md has what they measured.

pub mod backup;
pub mod cancel;
pub mod crash;
mod load;
pub mod power;
pub mod shutdown;
pub mod soak;
