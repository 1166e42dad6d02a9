//! The checks that every operation of the API must pass. A test target has a list of its operations
//! and calls each check with it: the required credential, the most expensive request, and what the
//! responses to writes show.

mod callers;
mod credentials;
mod operation;
mod rows;
mod worst_requests;
mod write_responses;

pub use callers::Callers;
pub use credentials::{check_credentials, check_sessions};
pub use operation::{Ids, Needs, Operation, OperationOf};
pub use rows::{check_rows, check_rows_of_other_tags};
pub use worst_requests::{check_worst_requests, send_worst};
pub use write_responses::{MARK, check_write_responses, write_calls};
