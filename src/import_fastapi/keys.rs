//! Imports API keys. They keep working, except those that could be guessed.

use super::error::ImportError;
use super::importer::{Importer, SourceRow};
use super::report::{Done, Note};
use super::repository::{self, NewKey};
use super::secrets::Secrets;
use super::source::KeyRow;
use super::targets::Known;
use super::values;
use crate::core::config::{KEY_MIN_LENGTH, Weakness, is_placeholder, weakness};
use crate::core::key_format;
use crate::core::network;
use crate::core::text::folded;
use crate::security::secret::{SecretHash, display_prefix};
use crate::security::{AddressList, Scope, Scopes};
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use std::borrow::Borrow;
use std::net::IpAddr;

const TABLE: &str = "api_keys";
/// Maximum number of entries in an address list.
const MAX_ADDRESSES: usize = 100;
/// The scopes that the FastAPI app granted to every key, regardless of its own.
const EFFECTIVE_SCOPES: [Scope; 2] = [Scope::Read, Scope::Write];

/// The reason a key is inactive: the kind of note and a sentence.
type Fault = (&'static str, String);

impl Importer<'_> {
    pub(super) async fn import_keys(&mut self) -> Result<(), ImportError> {
        let found = self.source.count(TABLE).await?.unsigned_abs();
        self.count(TABLE).found = found;
        self.begin("API keys", Some(found));
        let mut after = i64::MIN;
        loop {
            let page = self.source.keys(after).await?;
            let Some(last) = page.last().map(|row| row.id) else { return Ok(()) };
            self.progress.advance(page.len() as u64);
            for row in page {
                self.import_key(row).await?;
            }
            after = last;
        }
    }

    /// Collects all secrets, to find them in other texts.
    pub(super) async fn collect_secrets(&mut self) -> Result<(), ImportError> {
        let (mut secrets, mut after) = (vec![], i64::MIN);
        loop {
            let page = self.source.keys(after).await?;
            let Some(last) = page.last().map(|row| row.id) else { break };
            secrets.extend(page.into_iter().filter_map(|row| String::from_utf8(row.key?).ok()));
            after = last;
        }
        self.secrets = Secrets::new(secrets)?;
        Ok(())
    }

    async fn import_key(&mut self, key: KeyRow) -> Result<(), ImportError> {
        let row = SourceRow { table: TABLE, id: key.id };
        let plain =
            key.key.and_then(|raw| String::from_utf8(raw).ok()).filter(|key| !key.is_empty());
        let Some(plain) = plain.map(SecretString::from) else {
            self.count(TABLE).left_out += 1;
            let why = "it has no valid secret";
            return self.note(row, "no_secret", Done::LeftOut, why);
        };
        let (hash, prefix) =
            (SecretHash::of(plain.expose_secret()), key_prefix(plain.expose_secret()));
        let plain = plain.expose_secret();
        let since = key.created_at.as_deref().and_then(values::time);
        if let Some((id, name)) = repository::key(&mut self.tx, hash).await? {
            self.keys.by_id.insert(key.id, Known { id, name, since });
            if id > self.ids.keys.floor {
                self.count(TABLE).left_out += 1;
                let why = format!("it has the same secret as key {id}");
                return self.note(row, "duplicate", Done::LeftOut, why);
            }
            self.count(TABLE).here += 1;
            return Ok(());
        }
        let name = self.text(row, "name", key.name)?.unwrap_or_default();
        let name = self.secrets.redact(name);
        let name = if name.is_empty() { format!("Key {}", key.id) } else { name };
        let description = self.text(row, "description", key.description)?;
        let description = description.map(|text| self.secrets.redact(text));
        let created_at = self.since(row, &[&key.created_at])?;
        let was_active = self.is_on(row, "is_active", key.is_active, true)?;
        let mut faults = self.faults(plain, row, &name)?;
        let expires_at = key.expires_at.as_ref().map(|raw| {
            let end = values::time(raw).unwrap_or_else(|| {
                faults.push(("end_unreadable", "its expiry is invalid: it has expired".into()));
                self.now
            });
            end.max(DateTime::UNIX_EPOCH)
        });
        let addresses = self.addresses(row, &name, key.allowed_ips, &mut faults)?;
        let scopes = self.scopes(row, &name, key.scopes, was_active, &mut faults)?;
        let created_by = self.creator(row, &name, key.created_by_user_id.as_deref(), since)?;
        let is_active = was_active && faults.is_empty();
        for (kind, why) in faults {
            let done = if was_active { Done::SwitchedOff } else { Done::Kept };
            let why = if was_active { why } else { format!("{why}; it was already inactive") };
            self.key_note(row, &name, kind, done, why)?;
        }
        let id = self.ids.keys.give(key.id);
        self.renumbered(TABLE, key.id, id)?;
        let last_used_ip = key.last_used_ip.and_then(|raw| String::from_utf8(raw).ok());
        let last_used_ip = last_used_ip.and_then(|ip| ip.trim().parse::<IpAddr>().ok());
        let new = NewKey {
            id,
            hash,
            prefix,
            name_key: folded(&name),
            name: name.clone(),
            description,
            scopes: scopes.to_string(),
            is_active,
            created_at,
            expires_at,
            last_used_at: key.last_used_at.as_deref().and_then(|raw| values::past(raw, self.now)),
            last_used_ip: last_used_ip.map(|ip| ip.to_canonical().to_string()),
            allowed_ips: addresses.map(|list| list.to_string()),
            created_by_user_id: created_by,
        };
        repository::insert_key(&mut self.tx, &new).await?;
        let details = json!({
            "original_id": key.id,
            "scopes": new.scopes,
            "is_active": is_active,
            "was_active": was_active,
            "allowed_ips": new.allowed_ips,
        });
        self.keys.taken.push((id, name.clone(), details));
        self.keys.by_id.insert(key.id, Known { id, name, since });
        self.count(TABLE).imported += 1;
        Ok(())
    }

    /// The user who created the key. There is none if the user does not exist or registered later.
    fn creator(
        &mut self,
        row: SourceRow,
        name: &str,
        raw: Option<&[u8]>,
        since: Option<DateTime<Utc>>,
    ) -> Result<Option<i64>, ImportError> {
        let Some(raw) = raw else { return Ok(None) };
        let why = match values::id(raw).map(|id| (id, self.users.get(&id))) {
            Some((_, Some(user))) if !user.registered_after(since) => return Ok(Some(user.id)),
            Some((id, Some(_))) => {
                format!("user {id} registered later: an earlier user with the same id created it")
            }
            Some((id, None)) => format!("user {id}, who created it, does not exist"),
            None => "the id of the user who created it is invalid".to_owned(),
        };
        self.key_note(row, name, "unknown_creator", Done::Changed, why)?;
        Ok(None)
    }

    /// Reasons to deactivate the key because of its secret.
    fn faults(
        &mut self,
        plain: &str,
        row: SourceRow,
        name: &str,
    ) -> Result<Vec<Fault>, ImportError> {
        let mut faults = vec![];
        if is_placeholder(plain) {
            faults.push(("placeholder", "it is a placeholder from documentation".into()));
        } else if let Some(weakness) = weakness(plain) {
            let why = match weakness {
                Weakness::Short => {
                    format!("it has fewer than {KEY_MIN_LENGTH} characters and could be guessed")
                }
                Weakness::Guessable => "it is not random enough and could be guessed".to_owned(),
            };
            if self.options.accept_weak {
                self.key_note(row, name, "weak", Done::Kept, why)?;
            } else {
                faults.push(("weak", why));
            }
        }
        if !plain.bytes().all(|b| b.is_ascii_graphic()) {
            let why = "it has characters other than visible ASCII: a header field cannot hold it";
            faults.push(("cannot_be_sent", why.into()));
        } else if !key_format::is_plausible(plain) {
            let why = "it has the length of an Octopus key but not a valid checksum: it would be \
                       rejected as mistyped";
            faults.push(("cannot_be_sent", why.into()));
        }
        Ok(faults)
    }

    /// The scopes of the key. Unknown scopes grant nothing. A key without any known scope becomes
    /// inactive, unless `keep_effective_access` is set.
    fn scopes(
        &mut self,
        row: SourceRow,
        name: &str,
        raw: Option<Vec<u8>>,
        was_active: bool,
        faults: &mut Vec<Fault>,
    ) -> Result<Scopes, ImportError> {
        let text = values::label(raw).unwrap_or_else(|| Scopes::READ.to_string());
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        // The FastAPI app granted what these scopes allow to `admin` only, whatever their names.
        let is_known = |word: &&str| word.parse().is_ok_and(|scope: Scope| !scope.is_admin_only());
        let (known, unknown): (Vec<&str>, Vec<&str>) = words.partition(is_known);
        if !unknown.is_empty() {
            let listed = self.listed(&text, &unknown);
            let why = format!("unknown scope '{listed}': it grants nothing");
            self.key_note(row, name, "unknown_scope", Done::Changed, why)?;
        }
        let own: Option<Scopes> = known.join(",").parse().ok();
        if own.is_some_and(Scopes::is_admin) {
            return Ok(own.unwrap_or(Scopes::READ));
        }
        let lacks = |scopes: Scopes| EFFECTIVE_SCOPES.iter().any(|scope| !scopes.allow(*scope));
        let narrow = own.is_none_or(lacks);
        if narrow && was_active && self.options.keep_effective_access {
            let wide = format!("{},read,write", known.join(","));
            let wide = wide.parse().unwrap_or(Scopes::READ);
            let why = format!(
                "the FastAPI app let every key read and write: its scopes '{}' are now '{wide}'",
                known.join(",")
            );
            self.key_note(row, name, "widened", Done::Changed, why)?;
            return Ok(wide);
        }
        if narrow && was_active && own.is_some() {
            let why = format!(
                "the FastAPI app let every key read and write: it is now limited to '{}'; \
                 --keep-effective-access would widen it",
                known.join(",")
            );
            self.key_note(row, name, "narrower", Done::Kept, why)?;
        }
        Ok(own.unwrap_or_else(|| {
            faults.push(("no_scope", "it has no known scope; it is set to 'read'".into()));
            Scopes::READ
        }))
    }

    /// The allowed addresses; `None` means all, as null and `''` did in the FastAPI app. Any other
    /// list without a valid entry, such as `','`, matched no address there. The key becomes
    /// inactive, because it must not work from more addresses than before.
    fn addresses(
        &mut self,
        row: SourceRow,
        name: &str,
        raw: Option<Vec<u8>>,
        faults: &mut Vec<Fault>,
    ) -> Result<Option<AddressList>, ImportError> {
        let text = values::label(raw).unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        let entries = entries(&text);
        let mut valid: Vec<IpNet> = vec![];
        let mut dropped: Vec<String> = vec![];
        for entry in entries {
            match network::parse(&entry).filter(|network| network.trunc() == *network) {
                Some(network) if valid.contains(&network) => {}
                Some(network) if valid.len() < MAX_ADDRESSES => valid.push(network),
                _ => dropped.push(entry),
            }
        }
        if !dropped.is_empty() {
            let listed = self.listed(&text, &dropped);
            let why = format!(
                "'{listed}' in its address list is not an address, or beyond the first \
                 {MAX_ADDRESSES}"
            );
            self.key_note(row, name, "address_dropped", Done::Changed, why)?;
        }
        if valid.iter().any(|network| network.prefix_len() < network.max_prefix_len()) {
            let why = "networks in its address list apply now; the FastAPI app ignored them";
            self.key_note(row, name, "network", Done::Kept, why)?;
        }
        let texts: Vec<String> = valid.iter().map(ToString::to_string).collect();
        let list = texts.join(",").parse().ok();
        if list.is_none() {
            let why = "its address list has no valid address: it could not be used from anywhere";
            faults.push(("no_address", why.into()));
        }
        Ok(list)
    }

    /// `parts` of the comma-separated `text`, for a note. If `text` contains a secret, returns the
    /// whole text with the secret replaced, as the parts could be parts of the secret.
    fn listed(&self, text: &str, parts: &[impl Borrow<str>]) -> String {
        if self.secrets.found_in(text) {
            return self.secrets.redact(text.to_owned());
        }
        parts.join("', '")
    }

    fn key_note(
        &mut self,
        row: SourceRow,
        name: &str,
        kind: &'static str,
        done: Done,
        why: impl Into<String>,
    ) -> Result<(), ImportError> {
        let SourceRow { table, id } = row;
        let name = Some(name.replace(char::is_control, "\u{fffd}"));
        let why = self.secrets.redact(why.into());
        Ok(self.notes.add(Note { table, id: Some(id), name, kind, done, why })?)
    }
}

/// The displayed prefix of a key; shorter for a short key, so that the rest cannot be guessed.
fn key_prefix(plain: &str) -> String {
    let characters = plain.chars().count();
    if characters >= KEY_MIN_LENGTH {
        return display_prefix(plain);
    }
    plain.chars().take(characters / 4).collect()
}

/// The entries of a list: separated by commas, or a JSON array.
fn entries(text: &str) -> Vec<String> {
    let listed: Vec<String> = match serde_json::from_str(text.trim()) {
        Ok(list) => list,
        Err(_) => text.split(',').map(str::to_owned).collect(),
    };
    let entries = listed.iter().map(|entry| entry.trim());
    entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_list_has_no_entries_in_any_notation() {
        for empty in ["", "  ", "[]", "[ ]", ",", "[\"\"]"] {
            assert_eq!(entries(empty), Vec::<String>::new(), "{empty}");
        }
        for list in
            ["192.0.2.1,10.0.0.1", " 192.0.2.1 , 10.0.0.1 ", "[\"192.0.2.1\", \"10.0.0.1\"]"]
        {
            assert_eq!(entries(list), ["192.0.2.1", "10.0.0.1"], "{list}");
        }
    }

    #[test]
    fn the_displayed_prefix_of_a_short_key_is_shorter() {
        assert_eq!(key_prefix("octopus_0123456789abcdefghijklmnopq"), "octopus_0123");
        assert_eq!((key_prefix("hunter2"), key_prefix("abc")), ("h".to_owned(), String::new()));
    }
}
