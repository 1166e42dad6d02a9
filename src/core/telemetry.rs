//! Sets up logging and metrics for the process.

use super::config::{Config, LogFormat};
use super::log_lines::{JsonFieldFormat, JsonFormat};
use super::log_pretty::{PrettyFieldFormat, PrettyFormat};
use super::log_writer::{LogGuard, log_writer};
use super::metrics;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::io::{self, IsTerminal, stderr};
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Upper bounds of the latency histogram's buckets in seconds.
const BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `RUST_LOG` cannot be parsed.
    #[error("RUST_LOG is not a valid log filter: {0}")]
    Filter(#[from] ParseError),
    /// The thread that writes log lines cannot be started.
    #[error("cannot start the thread that writes log lines: {0}")]
    Thread(#[from] io::Error),
}

/// Sends log lines to standard error in the format of `LOG_FORMAT`, filtered by `RUST_LOG`. Call it
/// once per process. Dropping the guard writes the last lines.
pub fn log_to_stderr(config: &Config) -> Result<LogGuard, LogError> {
    let filter = EnvFilter::try_new(&config.log_filter)?;
    let (writer, guard) = log_writer()?;
    let pretty = match config.log_format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Pretty => true,
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // An error means that a subscriber is already installed, as in tests. Keep it.
    let _ = if pretty {
        let subscriber = subscriber.with_ansi(stderr().is_terminal());
        subscriber.fmt_fields(PrettyFieldFormat).event_format(PrettyFormat).try_init()
    } else {
        subscriber.fmt_fields(JsonFieldFormat).event_format(JsonFormat).try_init()
    };
    std::panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let text = info.payload_as_str().unwrap_or("no message");
        tracing::error!(event = "panic", location, panic = text, "a task panicked");
    }));
    Ok(guard)
}

/// Returns the Prometheus recorder of the process. The first call installs it.
///
/// # Panics
/// Never: the list of buckets is not empty.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(metrics::LATENCY.to_owned()), &BUCKETS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        let handle = recorder.handle();
        // If another recorder is already installed, this one stays empty.
        let _ = ::metrics::set_global_recorder(recorder);
        handle
    })
}
