//! `octopus openapi`: prints the OpenAPI document.

use super::error::CliError;
use super::output::print;
use crate::api;

pub(super) fn run() -> Result<(), CliError> {
    let text = api::document().to_pretty_json();
    print(text.map_err(|error| CliError::Other(error.to_string()))?)
}
