//! `octopus import`: imports a database of the FastAPI app.

use super::error::CliError;
use super::output::print_result;
use crate::core::config::Config;
use crate::import_fastapi::{self, Count, Done, Note, Options, Progress, Summary};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use std::fmt::Write;
use std::future::poll_fn;
use std::path::PathBuf;
use std::task::Poll;
use std::time::Duration;
use std::{fs, io};
use tokio::signal::unix::{SignalKind, signal};

const STOPPED: &str = "stopped: either everything or nothing was imported; run the command again \
                       to complete the import";

/// Arguments of `octopus import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Database of the FastAPI app, such as chat_conversations.db; it is only read
    file: PathBuf,
    /// Report what would be imported and write nothing else
    #[arg(long)]
    dry_run: bool,
    /// Keep API keys of fewer than 32 characters active, although they could be guessed
    #[arg(long)]
    accept_weak: bool,
    /// Give every active key the scopes read and write, which the FastAPI app did not enforce
    #[arg(long)]
    keep_effective_access: bool,
    /// Write a note for each changed, omitted or questionable row to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub(super) async fn run(config: Config, args: ImportArgs) -> Result<(), CliError> {
    let ImportArgs { file, dry_run, accept_weak, keep_effective_access, report } = args;
    let options = Options { accept_weak, keep_effective_access, dry_run, report };
    let bar = Bar::default();
    let failed = |error: io::Error| CliError::Other(error.to_string());
    let stopped = stop_signal().map_err(failed)?;
    // Dropping `run` on a signal rolls the transaction back and removes the temporary copy.
    let result = tokio::select! {
        result = import_fastapi::run(config, &file, &options, &bar) => result,
        () = stopped => return Err(CliError::Other(STOPPED.into())),
    };
    bar.clear();
    let summary = result.map_err(|error| CliError::Other(error.to_string()))?;
    let printed = print_result(summary_text(&summary, options.report.is_some()));
    match summary.unreported {
        Some(why) if summary.dry_run => Err(CliError::Other(why)),
        Some(why) => Err(CliError::Other(format!("everything was imported, but {why}"))),
        None => printed,
    }
}

/// Completes on SIGTERM, SIGINT, SIGQUIT or SIGHUP. An ignored SIGHUP, as under `nohup`, stays
/// ignored.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut signals = vec![];
    for kind in
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::hangup()]
    {
        if kind != SignalKind::hangup() || !is_ignored(kind) {
            signals.push(signal(kind)?);
        }
    }
    Ok(poll_fn(move |context| {
        let is_received = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if is_received { Poll::Ready(()) } else { Poll::Pending }
    }))
}

/// Returns whether the process started with `kind` ignored. Only Linux reports it, in `/proc`.
fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
}

/// A progress bar, drawn only if standard error is a terminal.
#[derive(Default)]
struct Bar(Mutex<Option<ProgressBar>>);

impl Bar {
    fn clear(&self) {
        if let Some(bar) = self.0.lock().take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn begin(&self, step: &'static str, total: Option<u64>) {
        self.clear();
        let (bar, form) = match total {
            Some(total) => {
                (ProgressBar::new(total), "{msg:28} {wide_bar} {human_pos}/{human_len} {eta:>4}")
            }
            None => (ProgressBar::new_spinner(), "{msg:28} {spinner} {elapsed}"),
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(step);
        bar.enable_steady_tick(Duration::from_millis(200));
        *self.0.lock() = Some(bar);
    }

    fn advance(&self, rows: u64) {
        if let Some(bar) = &*self.0.lock() {
            bar.inc(rows);
        }
    }
}

/// The summary for the terminal.
fn summary_text(summary: &Summary, has_report: bool) -> String {
    let mut text = String::new();
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["", "FOUND", "IMPORTED", "EXISTING", "SKIPPED"]);
    for (name, Count { found, imported, here, left_out }) in &summary.rows {
        let numbers = [found, imported, here, left_out].map(u64::to_string);
        table.add_row([&[(*name).to_owned()][..], &numbers[..]].concat());
    }
    let _ = writeln!(text, "{}\n", table.trim_fmt());
    for tally in &summary.notes_by_kind {
        let (count, done) = (tally.count, tally.done.as_str());
        let _ = writeln!(text, "{}: {count} {done} ({})", tally.table, tally.kind);
        let of_kind = |note: &&Note| {
            (note.table, note.kind, note.done) == (tally.table, tally.kind, tally.done)
        };
        let shown: Vec<&Note> = summary.shown.iter().filter(of_kind).collect();
        for note in &shown {
            let id = note.id.map_or_else(String::new, |id| format!(" {id}"));
            let name = note.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
            let _ = writeln!(text, "   {id}{name}: {}", note.why);
        }
        let rest = count.saturating_sub(shown.len() as u64);
        if rest > 0 {
            let _ = writeln!(
                text,
                "    and {rest} more{}",
                if has_report { ", see the report" } else { "" }
            );
        }
    }
    if summary.source_copied {
        let _ = writeln!(
            text,
            "The source has a write-ahead log or journal: it was read from a copy, now removed."
        );
    }
    if !summary.other_tables.is_empty() {
        let _ = writeln!(
            text,
            "Not imported, as the FastAPI app has no such tables: {}",
            summary.other_tables.join(", ")
        );
    }
    if summary.usable_admin_keys == 0 {
        let _ = writeln!(
            text,
            "No key can manage keys: run `octopus keys create --name NAME --scopes admin`."
        );
    }
    let total = |number: fn(&Count) -> u64| -> u64 { summary.rows.values().map(number).sum() };
    let noted = |done: Done| -> u64 {
        let tallies = summary.notes_by_kind.iter().filter(|tally| tally.done == done);
        tallies.map(|tally| tally.count).sum()
    };
    let _ = write!(
        text,
        "{}{} rows imported, {} already present, {} skipped, {} API keys deactivated, {} changes.",
        if summary.dry_run { "Nothing was written. An import would give: " } else { "" },
        total(|count| count.imported),
        total(|count| count.here),
        total(|count| count.left_out),
        noted(Done::SwitchedOff),
        noted(Done::Changed),
    );
    text
}
