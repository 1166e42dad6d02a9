use crate::support::tests;
tests!(on_both: []);
