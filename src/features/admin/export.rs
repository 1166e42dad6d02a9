//! Export of the audit log, streamed in batches of entries.

use crate::core::error::{Error, Result};
use crate::http::{FromQuery, QueryPairs};
use crate::state::AppState;
use axum::body::{Body, Bytes};
use futures_util::stream;
use utoipa::IntoParams;

/// Range of audit entries to export.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExportRange {
    /// Only entries with a larger `seq`. To continue an export, send the `seq` of its last entry.
    #[param(value_type = Option<i64>, minimum = 0, default = 0)]
    after: i64,
    /// Maximum number of entries. Default: all.
    #[param(value_type = Option<i64>, minimum = 1)]
    limit: i64,
}

impl FromQuery for ExportRange {
    fn from_query(query: &mut QueryPairs) -> Self {
        Self {
            after: query.integer("after", 0..=i64::MAX).unwrap_or(0),
            limit: query.integer("limit", 1..=i64::MAX).unwrap_or(i64::MAX),
        }
    }
}

/// The entries in `range`, one per line. If reading fails, the body ends early with an error.
pub fn audit_log(app: AppState, range: ExportRange) -> Body {
    Body::from_stream(stream::try_unfold((app, range), async |(app, range)| {
        let lines = lines(&app, &range).await?;
        Ok::<_, Error>(lines.map(|(text, rest)| (text, (app, rest))))
    }))
}

/// The next batch of lines and the remaining range; `None` at the end.
async fn lines(app: &AppState, range: &ExportRange) -> Result<Option<(Bytes, ExportRange)>> {
    if range.limit == 0 {
        return Ok(None);
    }
    let entries = app.audit.entries(&app.db, range.after, range.limit).await?;
    let Some(last) = entries.last() else { return Ok(None) };
    let count = i64::try_from(entries.len()).unwrap_or(i64::MAX);
    let rest = ExportRange { after: last.seq(), limit: range.limit - count };
    let mut text = vec![];
    for entry in &entries {
        serde_json::to_writer(&mut text, entry)
            .map_err(|error| Error::Internal(error.to_string().into()))?;
        text.push(b'\n');
    }
    Ok(Some((text.into(), rest)))
}
