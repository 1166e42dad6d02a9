//! The audit log of the original. Anybody who could write its file could have written it: its rows
//! come into the chain as what they are, something the host found there.

use super::source::AuditRow;
use super::{MoveError, Mover, repository, values};
use crate::audit::{Action, Deed, Origin, Subject};
use chrono::SubsecRound;
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
                let key_id = self.key_of(&row);
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
                        key.map_or(Subject::Installation, |key| Subject::Key(key.id, &key.name));
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

    /// The key there that the row is about: none where it is older than that key. The original
    /// gives the ids of keys that were deleted to others, and with them their rows.
    fn key_of(&self, row: &AuditRow) -> Option<i64> {
        let id = values::id(row.api_key_id.as_deref()?)?;
        let since = self.keys.by_id.get(&id)?.since;
        let at = row.timestamp.as_deref().and_then(values::time);
        // An early version left the parts of a second out here, and not of keys.
        let is_older = since.zip(at).is_some_and(|(since, at)| at < since.trunc_subsecs(0));
        (!is_older).then_some(id)
    }

    /// The row as it stands there, but for secrets.
    fn original(&self, row: AuditRow) -> Value {
        let text =
            |raw: Option<Vec<u8>>| raw.map(|raw| self.secrets.taken_out(values::text(raw).0));
        let id = |raw: Option<Vec<u8>>| match raw.as_deref().and_then(values::id) {
            Some(id) => Some(id.into()),
            None => text(raw).map(Value::String),
        };
        let details = row.details.map(|raw| self.details(values::text(raw).0));
        let fields = [
            ("id", Some(json!(row.id))),
            ("api_key_id", id(row.api_key_id)),
            ("action", text(row.action).map(Value::from)),
            ("performed_by_key_id", id(row.performed_by_key_id)),
            ("performed_by_ip", text(row.performed_by_ip).map(Value::from)),
            ("performed_by", text(row.performed_by).map(Value::from)),
            ("ip_address", text(row.ip_address).map(Value::from)),
            ("details", details),
            ("timestamp", text(row.timestamp).map(Value::from)),
        ];
        let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(there.collect::<Map<_, _>>())
    }

    /// What the row says, as JSON if it is some. A secret may be written with escapes there: it is
    /// looked for in what they mean.
    fn details(&self, text: String) -> Value {
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            return self.secrets.taken_out(text).into();
        };
        let clean = self.secrets.taken_out_of(value.clone());
        if clean.is_object() {
            clean
        } else if clean == value {
            text.into()
        } else {
            clean.to_string().into()
        }
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
