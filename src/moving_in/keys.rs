//! API keys: they go on working, but for those that everybody could guess.

use super::report::{Done, Note};
use super::repository::{self, NewKey};
use super::secrets::Secrets;
use super::source::KeyRow;
use super::{MoveError, Mover, values};
use crate::core::config::{KEY_MIN_LENGTH, is_placeholder};
use crate::core::key_format;
use crate::core::network;
use crate::core::text::folded;
use crate::security::{AddressList, Scope, Scopes, secret};
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::net::IpAddr;

const TABLE: &str = "api_keys";
/// Most entries of a list of addresses.
const MAX_ADDRESSES: usize = 100;
/// What the original let every key do, whatever its scopes.
const EFFECTIVE: [Scope; 2] = [Scope::Read, Scope::Write];

/// The keys of the original, for what speaks of them.
#[derive(Default)]
pub struct Keys {
    /// Those that are here, by their ids there.
    pub by_id: HashMap<i64, Known>,
    /// Those that were taken over just now, and what the audit log says of each.
    pub taken: Vec<(i64, String, Value)>,
}

/// A key here.
pub struct Known {
    pub id: i64,
    pub name: String,
    /// When it was made, if that can be read.
    pub since: Option<DateTime<Utc>>,
}

/// Why a key does not work here, in a word and in a sentence.
type Fault = (&'static str, String);

impl Mover<'_> {
    pub(super) async fn take_keys(&mut self) -> Result<(), MoveError> {
        let found = self.source.count(TABLE).await?.unsigned_abs();
        self.count(TABLE).found = found;
        self.begin("API keys", Some(found));
        let mut after = i64::MIN;
        loop {
            let page = self.source.keys(after).await?;
            let Some(last) = page.last().map(|row| row.id) else { return Ok(()) };
            self.progress.advance(page.len() as u64);
            for row in page {
                self.take_key(row).await?;
            }
            after = last;
        }
    }

    /// Remembers every secret, so that it can be told where one stands that must not.
    pub(super) async fn collect_secrets(&mut self) -> Result<(), MoveError> {
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

    async fn take_key(&mut self, key: KeyRow) -> Result<(), MoveError> {
        let row = (TABLE, key.id);
        let plain =
            key.key.and_then(|raw| String::from_utf8(raw).ok()).filter(|key| !key.is_empty());
        let Some(plain) = plain.map(SecretString::from) else {
            self.count(TABLE).left_out += 1;
            let why = "it has no secret that could be sent";
            return self.note(row, "no_secret", Done::LeftOut, why);
        };
        let (hash, prefix) = (secret::hash(plain.expose_secret()), shown(plain.expose_secret()));
        let plain = plain.expose_secret();
        let since = key.created_at.as_deref().and_then(values::time);
        if let Some((id, name)) = repository::key(&mut self.tx, &hash).await? {
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
        let name = self.secrets.taken_out(name);
        let name = if name.is_empty() { format!("Key {}", key.id) } else { name };
        let description = self.text(row, "description", key.description)?;
        let description = description.map(|text| self.secrets.taken_out(text));
        let created_at = self.since(row, &[&key.created_at])?;
        let was_active = self.is_on(row, "is_active", key.is_active, true)?;
        let mut faults = self.faults(plain, row, &name)?;
        let expires_at = key.expires_at.as_ref().map(|raw| {
            values::time(raw).unwrap_or_else(|| {
                faults.push(("end_unreadable", "when it ends cannot be read: it has ended".into()));
                self.now
            })
        });
        let addresses = self.addresses(row, &name, key.allowed_ips, &mut faults)?;
        let scopes = self.scopes(row, &name, key.scopes, was_active, &mut faults)?;
        let created_by = self.creator(row, &name, key.created_by_user_id.as_deref(), since)?;
        let is_active = was_active && faults.is_empty();
        for (kind, why) in faults {
            let done = if was_active { Done::SwitchedOff } else { Done::Kept };
            let why = if was_active { why } else { format!("{why}; it was switched off already") };
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
            last_used_at: key.last_used_at.as_deref().and_then(values::time),
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

    /// Who made it: nobody, where that user is not there, or came only later.
    fn creator(
        &mut self,
        row: (&'static str, i64),
        name: &str,
        raw: Option<&[u8]>,
        since: Option<DateTime<Utc>>,
    ) -> Result<Option<i64>, MoveError> {
        let Some(raw) = raw else { return Ok(None) };
        let why = match values::id(raw).map(|id| (id, self.users.get(&id))) {
            Some((_, Some(person))) if !person.came_after(since) => return Ok(Some(person.id)),
            Some((id, Some(_))) => format!(
                "user {id} registered only after it was made: a user before with the same id made it"
            ),
            Some((id, None)) => format!("user {id}, who made it, is not there"),
            None => "what it names as the user who made it is no id".to_owned(),
        };
        self.key_note(row, name, "unknown_creator", Done::Changed, why)?;
        Ok(None)
    }

    /// Why the secret itself cannot be left to work.
    fn faults(
        &mut self,
        plain: &str,
        row: (&'static str, i64),
        name: &str,
    ) -> Result<Vec<Fault>, MoveError> {
        let mut faults = vec![];
        if is_placeholder(plain) {
            faults.push(("placeholder", "it is what documents write where a key belongs".into()));
        } else if plain.chars().count() < KEY_MIN_LENGTH {
            let why = format!("it has less than {KEY_MIN_LENGTH} characters and could be guessed");
            if self.options.accept_weak {
                self.key_note(row, name, "weak", Done::Kept, why)?;
            } else {
                faults.push(("weak", why));
            }
        }
        if !plain.bytes().all(|b| b.is_ascii_graphic()) {
            let why = "it has other characters than visible ASCII, which no header field can hold";
            faults.push(("cannot_be_sent", why.into()));
        } else if !key_format::is_plausible(plain) {
            let why = "it has the length of our own keys and not their checksum: it would be \
                       refused as mistyped";
            faults.push(("cannot_be_sent", why.into()));
        }
        Ok(faults)
    }

    /// Its scopes. Those that nobody knows give no right; a key without any that is known is off,
    /// unless it may go on as it could.
    fn scopes(
        &mut self,
        row: (&'static str, i64),
        name: &str,
        raw: Option<Vec<u8>>,
        was_active: bool,
        faults: &mut Vec<Fault>,
    ) -> Result<Scopes, MoveError> {
        let text = values::label(raw).unwrap_or_else(|| Scopes::READ.to_string());
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let (known, unknown): (Vec<&str>, Vec<&str>) =
            words.partition(|word| word.parse::<Scope>().is_ok());
        if !unknown.is_empty() {
            let listed = self.listed(&text, &unknown);
            let why = format!("there is no scope '{listed}': it gives no right");
            self.key_note(row, name, "unknown_scope", Done::Changed, why)?;
        }
        let own: Option<Scopes> = known.join(",").parse().ok();
        if own.is_some_and(Scopes::is_admin) {
            return Ok(own.unwrap_or(Scopes::READ));
        }
        let lacks = |scopes: Scopes| EFFECTIVE.iter().any(|scope| !scopes.allow(*scope));
        let narrow = own.is_none_or(lacks);
        if narrow && was_active && self.options.keep_effective_access {
            let wide = format!("{},read,write", known.join(","));
            let wide = wide.parse().unwrap_or(Scopes::READ);
            let why = format!(
                "the original let every key read and write: its scopes '{}' are '{wide}' here",
                known.join(",")
            );
            self.key_note(row, name, "widened", Done::Changed, why)?;
            return Ok(wide);
        }
        if narrow && was_active && own.is_some() {
            let why = format!(
                "the original let every key read and write: from now on it may do what '{}' says; \
                 --keep-effective-access would widen it",
                known.join(",")
            );
            self.key_note(row, name, "narrower", Done::Kept, why)?;
        }
        Ok(own.unwrap_or_else(|| {
            faults.push(("no_scope", "it has no scope that there is; 'read' stands in".into()));
            Scopes::READ
        }))
    }

    /// The addresses it may be used from; none means all. What is no address never let anybody in,
    /// and a list of nothing else must not become a list of all.
    fn addresses(
        &mut self,
        row: (&'static str, i64),
        name: &str,
        raw: Option<Vec<u8>>,
        faults: &mut Vec<Fault>,
    ) -> Result<Option<AddressList>, MoveError> {
        let text = values::label(raw).unwrap_or_default();
        let entries = entries(&text);
        if entries.is_empty() {
            return Ok(None);
        }
        let mut good: Vec<IpNet> = vec![];
        let mut dropped: Vec<String> = vec![];
        for entry in entries {
            match network::parse(&entry).filter(|network| network.trunc() == *network) {
                Some(network) if good.contains(&network) => {}
                Some(network) if good.len() < MAX_ADDRESSES => good.push(network),
                _ => dropped.push(entry),
            }
        }
        if !dropped.is_empty() {
            let listed = self.listed(&text, &dropped);
            let why = format!(
                "'{listed}' in its list of addresses is no address, or beyond the first \
                 {MAX_ADDRESSES}"
            );
            self.key_note(row, name, "address_dropped", Done::Changed, why)?;
        }
        if good.iter().any(|network| network.prefix_len() < network.max_prefix_len()) {
            let why = "networks in its list of addresses count here; in the original they let \
                       nobody in";
            self.key_note(row, name, "network", Done::Kept, why)?;
        }
        let texts: Vec<String> = good.iter().map(ToString::to_string).collect();
        let list = texts.join(",").parse().ok();
        if list.is_none() {
            let why = "its list of addresses has none that there is: it could be used from nowhere";
            faults.push(("no_address", why.into()));
        }
        Ok(list)
    }

    /// What of a list with commas is told of, which must not be the parts of a secret.
    fn listed(&self, text: &str, parts: &[impl Borrow<str>]) -> String {
        if self.secrets.stand_in(text) {
            return self.secrets.taken_out(text.to_owned());
        }
        parts.join("', '")
    }

    fn key_note(
        &mut self,
        (table, id): (&'static str, i64),
        name: &str,
        kind: &'static str,
        done: Done,
        why: impl Into<String>,
    ) -> Result<(), MoveError> {
        let name = Some(name.replace(char::is_control, "\u{fffd}"));
        let why = self.secrets.taken_out(why.into());
        Ok(self.notes.add(Note { table, id: Some(id), name, kind, done, why })?)
    }
}

/// The beginning of a key, for people: less of a short one, so that the rest cannot be guessed.
fn shown(plain: &str) -> String {
    let characters = plain.chars().count();
    if characters >= KEY_MIN_LENGTH {
        return secret::shown(plain);
    }
    plain.chars().take(characters / 4).collect()
}

/// The entries of a list: with commas, or as JSON.
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
    fn an_empty_list_has_no_entries_however_it_is_written() {
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
    fn what_is_shown_of_a_short_key_gives_nothing_away() {
        assert_eq!(shown("octopus_0123456789abcdefghijklmnopq"), "octopus_0123");
        assert_eq!((shown("hunter2"), shown("abc")), ("h".to_owned(), String::new()));
    }
}
