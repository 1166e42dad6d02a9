//! What the caller of an import chooses and receives while it runs.

use std::path::PathBuf;

/// Options of an import.
#[derive(Debug, Default)]
pub struct Options {
    /// Keep keys active that are too short, except known placeholders.
    pub accept_weak: bool,
    /// Give active keys the scopes read and write, which the FastAPI app granted to every key.
    pub keep_effective_access: bool,
    /// Write nothing but the report.
    pub dry_run: bool,
    /// Path of the report.
    pub report: Option<PathBuf>,
}

/// Receives progress reports.
pub trait Progress: Sync {
    /// A step begins; `total` is its number of rows, if known.
    fn begin(&self, step: &'static str, total: Option<u64>);
    /// `rows` more rows of the step are done.
    fn advance(&self, rows: u64);
}
