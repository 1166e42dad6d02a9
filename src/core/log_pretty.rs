//! Formats log events for a terminal, one short line per event.
//!
//! A request is `TIME LEVEL METHOD ROUTE STATUS DURATION CLIENT`, any other event its message and its
//! fields without method and route. Target, event name and, below the level WARN, the request id are
//! left out; the JSON format has them. Control characters are escaped, so that a value cannot control
//! the terminal.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Separates the stored fields of a span. Values have no control characters.
const SEPARATOR: char = '\u{1f}';

/// Formats each event as a short line.
#[derive(Debug)]
pub struct PrettyFormat;

/// Stores the fields of a span for [`PrettyFormat`].
#[derive(Debug)]
pub struct PrettyFieldFormat;

/// Names and values of fields.
#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Fields {
    fn add(&mut self, field: &Field, value: impl Display) {
        let mut text = String::new();
        for c in value.to_string().chars() {
            if c.is_control() { text.extend(c.escape_debug()) } else { text.push(c) }
        }
        self.0.insert(field.name().to_owned(), text);
    }

    fn take(&mut self, name: &str) -> String {
        self.0.remove(name).unwrap_or_default()
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, format_args!("{value:.1}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

impl<S, N> FormatEvent<S, N> for PrettyFormat
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(span) = context.parent_span()
            && let Some(stored) = span.extensions().get::<FormattedFields<N>>()
        {
            let pairs = stored.fields.split(SEPARATOR).filter_map(|field| field.split_once('='));
            fields.0.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let level = *event.metadata().level();
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        // Hours to milliseconds of an RFC 3339 time.
        let clock = time.get(11..23).unwrap_or(&time);
        if line.has_ansi_escapes() {
            write!(line, "\u{1b}[2m{clock}\u{1b}[0m {}{level:>5}\u{1b}[0m", color(level))?;
        } else {
            write!(line, "{clock} {level:>5}")?;
        }
        let is_request = fields.take("event") == "request";
        let message = fields.take("message");
        if is_request {
            for name in ["method", "route", "status"] {
                write!(line, " {}", fields.take(name))?;
            }
            write!(line, " {} ms {}", fields.take("latency_ms"), fields.take("client"))?;
        } else {
            write!(line, " {message}")?;
            fields.take("method");
            fields.take("route");
        }
        if level > Level::WARN {
            fields.take("request_id");
        }
        for (name, value) in &fields.0 {
            write!(line, " {name}={value}")?;
        }
        line.write_char('\n')
    }
}

fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        _ => "\u{1b}[2m",
    }
}

impl<'writer> FormatFields<'writer> for PrettyFieldFormat {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut values = Fields::default();
        fields.record(&mut values);
        for (name, value) in &values.0 {
            write!(writer, "{SEPARATOR}{name}={value}")?;
        }
        Ok(())
    }

    // The default puts a blank before the fields that are recorded later.
    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> fmt::Result {
        self.format_fields(current.as_writer(), fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing::field::Empty;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the lines that `work` logs, without their times.
    fn logged(work: impl FnOnce()) -> Vec<String> {
        let lines = Buffer::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .fmt_fields(PrettyFieldFormat)
            .event_format(PrettyFormat)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line[13..].to_owned()).collect()
    }

    #[test]
    fn a_request_is_one_short_line_with_rounded_numbers() {
        let lines = logged(|| {
            let span = tracing::info_span!(
                "request",
                request_id = "01a2299a-fb9f-7249-8ed9-deab778ef1da",
                method = "PATCH",
                route = "/api/v1/conversations/{conversation_id}/messages/{message_id}",
                client = "203.0.113.9",
                key_id = Empty,
            );
            span.record("key_id", 7);
            span.in_scope(|| {
                tracing::info!(
                    event = "request",
                    status = 200,
                    latency_ms = 25.641_885,
                    "completed"
                );
                tracing::warn!(event = "x", n = 1, "text");
            });
        });
        let route = "/api/v1/conversations/{conversation_id}/messages/{message_id}";
        let expected = format!(" INFO PATCH {route} 200 25.6 ms 203.0.113.9 key_id=7");
        assert_eq!(lines[0], expected);
        assert!(lines[0].len() + 13 <= 120);
        assert!(lines[1].contains("WARN text ") && lines[1].contains("request_id=01a2299a"));
    }

    #[test]
    fn a_value_cannot_add_a_line_or_control_the_terminal() {
        let evil = "a\nb\u{1b}[31m\u{7}\u{1f}key_id=9\u{9b}";
        let lines = logged(|| {
            let span = tracing::info_span!("request", route = evil, client = %evil);
            span.in_scope(|| tracing::info!(text = evil, debug = ?evil, "{evil}"));
        });
        let [line] = &*lines else { panic!("{lines:?}") };
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}
