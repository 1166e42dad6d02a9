//! The audit log of the original. Anybody who could write its file could have written it: its rows
//! come into the chain as what they are, something the host found there.

use super::source::AuditRow;
use super::{MoveError, Mover, repository, values};
use crate::audit::{Action, Deed, Origin, Subject};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

const TABLE: &str = "api_key_audit_logs";

impl Mover<'_> {
    /// Takes over the rows of the original's log; then each key that was taken over has its own.
    pub(super) async fn take_trail(&mut self) -> Result<(), MoveError> {
        let found = self.source.count(TABLE).await?.unsigned_abs();
        self.count(TABLE).found = found;
        self.begin("audit log", Some(found));
        let known = self.known_trail().await?;
        let mut after = i64::MIN;
        loop {
            let page = self.source.audit_logs(after).await?;
            let Some(last) = page.last().map(|row| row.id) else { break };
            let mut new = vec![];
            for row in page {
                let key_id = row.api_key_id;
                let details = json!({ "original": self.original(row) });
                if known.contains(&digest(&details.to_string())) {
                    self.count(TABLE).here += 1;
                } else {
                    new.push((key_id, details));
                }
            }
            self.count(TABLE).imported += new.len() as u64;
            self.progress.advance(new.len() as u64);
            let deeds: Vec<Deed<'_>> = new
                .iter()
                .map(|(key_id, details)| {
                    let key = key_id.and_then(|id| self.keys.by_id.get(&id));
                    let subject =
                        key.map_or(Subject::Installation, |(id, name)| Subject::Key(*id, name));
                    Deed { action: Action::ImportTrail, subject, details }
                })
                .collect();
            let audit = &self.app.audit;
            audit.record_all(&mut self.tx, &Origin::HOST, self.now, &deeds).await?;
            after = last;
        }
        let keys = self.keys.taken.iter().map(|(id, name, details)| Deed {
            action: Action::Import,
            subject: Subject::Key(*id, name),
            details,
        });
        let deeds: Vec<Deed<'_>> = keys.collect();
        let audit = &self.app.audit;
        Ok(audit.record_all(&mut self.tx, &Origin::HOST, self.now, &deeds).await?)
    }

    /// Rows that were taken over before.
    async fn known_trail(&mut self) -> Result<HashSet<[u8; 32]>, MoveError> {
        let mut known = HashSet::new();
        let mut after = 0;
        loop {
            let rows = repository::imported_trail(&mut self.tx, after).await?;
            let Some((last, _)) = rows.last() else { return Ok(known) };
            after = *last;
            known.extend(rows.iter().map(|(_, details)| digest(details)));
        }
    }

    /// The row as it stands there, but for secrets.
    fn original(&self, row: AuditRow) -> Value {
        let text =
            |raw: Option<Vec<u8>>| raw.map(|raw| self.keys.without_secrets(values::text(raw).0));
        let details = text(row.details);
        let details = match details.as_deref().map(serde_json::from_str::<Value>) {
            Some(Ok(object @ Value::Object(_))) => Some(object),
            _ => details.map(Value::String),
        };
        let fields = [
            ("id", Some(json!(row.id))),
            ("api_key_id", row.api_key_id.map(Value::from)),
            ("action", text(row.action).map(Value::from)),
            ("performed_by_key_id", row.performed_by_key_id.map(Value::from)),
            ("performed_by_ip", text(row.performed_by_ip).map(Value::from)),
            ("performed_by", text(row.performed_by).map(Value::from)),
            ("ip_address", text(row.ip_address).map(Value::from)),
            ("details", details),
            ("timestamp", text(row.timestamp).map(Value::from)),
        ];
        let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(there.collect::<Map<_, _>>())
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
