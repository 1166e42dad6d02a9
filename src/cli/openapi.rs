//! `octopus openapi`: prints the OpenAPI document.

use super::error::CliError;
use crate::api;

pub(super) fn run() -> Result<(), CliError> {
    let text = api::document().to_pretty_json();
    println!("{}", text.map_err(|error| CliError::Other(error.to_string()))?);
    Ok(())
}
