//! Limits of one request: its time, its memory, and how much of its body is read.

pub(super) mod budget;
pub(super) mod deadline;
pub(super) mod drain;
pub(super) mod metered;
