//! Imports the audit log of the FastAPI app. Nothing protects it from manipulation, so each of its
//! entries becomes the details of an entry by the host. Its action is the corresponding one, or
//! `import_trail` if there is none.

use super::error::ImportError;
use super::importer::Importer;
use super::source::AuditRow;
use super::{repository, values};
use crate::audit::{Action, Operation, Origin, Subject};
use chrono::SubsecRound;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

const TABLE: &str = "api_key_audit_logs";

impl Importer<'_> {
    /// Imports the audit log, then adds an `import` entry for each imported key.
    pub(super) async fn import_audit_log(&mut self) -> Result<(), ImportError> {
        let found = self.source.count(TABLE).await?.unsigned_abs();
        self.count(TABLE).found = found;
        self.begin("audit log", Some(found));
        let known = self.known_entries().await?;
        let mut after = i64::MIN;
        loop {
            let page = self.source.audit_logs(after).await?;
            let Some(last) = page.last().map(|row| row.id) else { break };
            let mut new = vec![];
            for row in page {
                let key_id = self.subject_key(&row);
                let action = action(row.action.as_deref());
                let details = json!({ "original": self.original(row) });
                if known.contains(&digest(&details.to_string())) {
                    self.count(TABLE).here += 1;
                } else {
                    new.push((key_id, action, details));
                }
            }
            self.count(TABLE).imported += new.len() as u64;
            self.progress.advance(new.len() as u64);
            let operations: Vec<Operation<'_>> = new
                .iter()
                .map(|(key_id, action, details)| {
                    let key = key_id.and_then(|id| self.keys.by_id.get(&id));
                    let subject =
                        key.map_or(Subject::Installation, |key| Subject::Key(key.id, &key.name));
                    Operation { action: *action, subject, details }
                })
                .collect();
            let audit = &self.app.audit;
            audit.record_all(&mut self.tx, &Origin::HOST, self.now, &operations).await?;
            after = last;
        }
        let keys = self.keys.taken.iter().map(|(id, name, details)| Operation {
            action: Action::Import,
            subject: Subject::Key(*id, name),
            details,
        });
        let operations: Vec<Operation<'_>> = keys.collect();
        let audit = &self.app.audit;
        Ok(audit.record_all(&mut self.tx, &Origin::HOST, self.now, &operations).await?)
    }

    /// Digests of the entries imported before.
    async fn known_entries(&mut self) -> Result<HashSet<[u8; 32]>, ImportError> {
        let mut known = HashSet::new();
        let mut after = 0;
        loop {
            let rows = repository::imported_entries(&mut self.tx, after).await?;
            let Some((last, _)) = rows.last() else { return Ok(known) };
            after = *last;
            known.extend(rows.iter().map(|(_, details)| digest(details)));
        }
    }

    /// The source id of the key that the entry is about. There is none if the entry is older than
    /// the key: the FastAPI app reuses the ids of deleted keys, which still have entries.
    fn subject_key(&self, row: &AuditRow) -> Option<i64> {
        let id = values::id(row.api_key_id.as_deref()?)?;
        let since = self.keys.by_id.get(&id)?.since;
        let at = row.timestamp.as_deref().and_then(values::time);
        // An early version truncated the times of entries to seconds, but not those of keys.
        let is_older = since.zip(at).is_some_and(|(since, at)| at < since.trunc_subsecs(0));
        (!is_older).then_some(id)
    }

    /// The original entry, with secrets replaced.
    fn original(&self, row: AuditRow) -> Value {
        let text = |raw: Option<Vec<u8>>| raw.map(|raw| self.secrets.redact(values::text(raw).0));
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
        let present =
            fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(present.collect::<Map<_, _>>())
    }

    /// The details of an entry, as JSON if they are valid JSON. Secrets are searched in the decoded
    /// strings, as JSON escapes could hide them.
    fn details(&self, text: String) -> Value {
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            return self.secrets.redact(text).into();
        };
        let clean = self.secrets.redact_json(value.clone());
        if clean.is_object() {
            clean
        } else if clean == value {
            text.into()
        } else {
            clean.to_string().into()
        }
    }
}

/// The action that corresponds to one of the FastAPI app, whose word stays in the details.
fn action(original: Option<&[u8]>) -> Action {
    let word = original.map(|raw| String::from_utf8_lossy(raw).trim().to_lowercase());
    match word.as_deref().unwrap_or_default() {
        "bootstrap" => Action::Bootstrap,
        "create" | "created" => Action::Create,
        "update" | "updated" => Action::Update,
        "deactivate" | "deactivated" | "revoke" | "revoked" => Action::Deactivate,
        "delete" | "deleted" => Action::Delete,
        "rotate" | "rotated" => Action::Rotate,
        "expire" | "expired" | "auto_expire" | "cleanup" | "cleanup_expired" => Action::Expire,
        "auth_failed" | "auth_failure" | "failed_auth" => Action::AuthFailed,
        _ => Action::ImportEntry,
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_never_becomes_one_that_protects_the_audit_log() {
        for (word, expected) in [
            ("create", Action::Create),
            ("Rotate", Action::Rotate),
            ("revoke", Action::Deactivate),
            ("prune_trail", Action::ImportEntry),
            ("change_audit_key", Action::ImportEntry),
            ("import", Action::ImportEntry),
            ("use", Action::ImportEntry),
            ("", Action::ImportEntry),
        ] {
            assert_eq!(action(Some(word.as_bytes())), expected, "{word}");
        }
        assert_eq!(action(None), Action::ImportEntry);
    }
}
