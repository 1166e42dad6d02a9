//! Reliability tests: a server that is killed, stopped or abused, whose clients disconnect, and
//! whose disk or Postgres fails. `ci/torture.sh` runs the long forms, and docs/RELIABILITY.md
//! has their measurements.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod abuse;
mod backup;
mod broken_disk;
mod calls;
mod cancel;
mod crash;
mod disk;
mod faults;
mod few_files;
mod hostile;
mod load;
mod mounts;
mod power;
mod queues;
mod races;
mod shutdown;
mod soak;
mod unread;
