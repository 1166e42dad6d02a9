//! A writer: its entities, its acknowledged writes, and its unconfirmed writes.

use super::model::{Conversation, Entity, Facts, facts_of, idempotency_fact};
use super::writes::Kind;
use crate::support::{Answer, Call};
use rand::RngExt;
use rand::seq::IndexedRandom;
use reqwest::Method;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Entities of one kind that a writer keeps changing. It leaves further ones unchanged.
const IN_HAND: usize = 5;
/// Number of ended credentials that a writer keeps.
const ENDED: usize = 8;

/// A write request and its expected effects.
#[derive(Debug)]
pub struct Write {
    pub kind: Kind,
    pub method: Method,
    pub path: String,
    /// Name and value of the header that holds the credential.
    pub credential: Option<(&'static str, String)>,
    /// Content type and body.
    pub body: Option<(&'static str, String)>,
    /// The value of `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// The facts before and after the write.
    pub before: Facts,
    pub after: Facts,
    /// The entities that the writer has after the write.
    pub entities: Vec<Entity>,
    /// The participants and authors of the conversations that the write changes.
    pub names: BTreeSet<String>,
    /// The credentials that the write ends.
    pub ends: Vec<String>,
}

impl Write {
    /// A write that replaces the entities `before` with `after`.
    pub fn new(
        kind: Kind,
        (method, path): (Method, String),
        before: &[Entity],
        after: Vec<Entity>,
    ) -> Self {
        let conversations = before.iter().chain(&after).filter_map(|entity| match entity {
            Entity::Conversation(conversation) => Some(conversation.names()),
            _ => None,
        });
        Self {
            kind,
            method,
            path,
            credential: None,
            body: None,
            idempotency_key: None,
            names: conversations.flatten().collect(),
            before: facts_of(before),
            after: facts_of(&after),
            entities: after,
            ends: vec![],
        }
    }

    pub fn key(mut self, key: &str) -> Self {
        self.credential = Some(("Octopus-API-Key", key.to_owned()));
        self
    }

    pub fn session(mut self, token: &str) -> Self {
        self.credential = Some(("Authorization", format!("Bearer {token}")));
        self
    }

    #[expect(clippy::needless_pass_by_value, reason = "calls read better")]
    pub fn json(mut self, body: Value) -> Self {
        self.body = Some(("application/json", body.to_string()));
        self
    }

    /// Adds an `Idempotency-Key`. The write creates `count` resources.
    pub fn idempotent(mut self, key: String, count: usize) -> Self {
        self.after.insert(idempotency_fact(&Sha256::digest(&key)), count.to_string());
        self.idempotency_key = Some(key);
        self
    }

    /// The request to the server at `url`.
    pub fn call(&self, client: &reqwest::Client, url: &str) -> Call {
        let mut call =
            Call::new(client.request(self.method.clone(), format!("{url}{}", self.path)));
        for (name, value) in self.fields() {
            call = call.header(name, value);
        }
        match &self.body {
            Some((_, body)) => call.body(body.clone()),
            None => call,
        }
    }

    /// The HTTP/1.1 request as text: head and body.
    pub fn text(&self) -> (String, &str) {
        let body = self.body.as_ref().map_or("", |(_, body)| body);
        let mut head = format!("{} {} HTTP/1.1\r\nHost: x\r\n", self.method, self.path);
        for (name, value) in self.fields() {
            head.extend([name, ": ", value, "\r\n"]);
        }
        (format!("{head}Content-Length: {}\r\n\r\n", body.len()), body)
    }

    fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let credential = self.credential.as_ref().map(|(name, value)| (*name, value.as_str()));
        let body = self.body.as_ref().map(|(kind, _)| ("Content-Type", *kind));
        let idempotency_key = self.idempotency_key.as_deref().map(|key| ("Idempotency-Key", key));
        credential.into_iter().chain(body).chain(idempotency_key)
    }
}

/// A write without a response. The server applied all of it or none of it.
#[derive(Debug)]
struct Unconfirmed {
    kind: Kind,
    idempotency_key: Option<String>,
    before: Facts,
    after: Facts,
}

/// Creates entities and changes them, one request at a time. Writers share no entities.
#[derive(Debug)]
pub struct Writer {
    pub(super) name: String,
    pub(super) admin: String,
    pub(super) made: usize,
    pub(super) entities: Vec<Entity>,
    /// Users in conversations that the writer no longer tracks. It does not delete these users,
    /// because that would change the conversations.
    pub(super) entangled: BTreeSet<String>,
    /// The facts of the acknowledged writes.
    facts: Facts,
    unconfirmed: Vec<Unconfirmed>,
    /// A request without a response that has an `Idempotency-Key`.
    retry: Option<Write>,
    ended: Vec<String>,
    pub acknowledged: usize,
    /// The kinds of the acknowledged writes.
    pub kinds: BTreeSet<Kind>,
    /// Retried requests: how many, and how many were already applied.
    pub repeated: (usize, usize),
}

impl Writer {
    pub fn new(name: String, admin: String) -> Self {
        Self {
            name,
            admin,
            made: 0,
            entities: vec![],
            entangled: BTreeSet::new(),
            facts: Facts::new(),
            unconfirmed: vec![],
            retry: None,
            ended: vec![],
            acknowledged: 0,
            kinds: BTreeSet::new(),
            repeated: (0, 0),
        }
    }

    /// The next write: a retry if one is pending, otherwise a random one.
    pub fn next(&mut self) -> Write {
        if let Some(write) = self.retry.take() {
            self.repeated.0 += 1;
            return write;
        }
        loop {
            let kind = Kind::ALL.choose_weighted(&mut rand::rng(), |(_, weight)| *weight);
            let (kind, _) = kind.expect("a weight is positive");
            if let Some(write) = self.make(*kind) {
                return write;
            }
        }
    }

    /// A unique name.
    pub(super) fn fresh(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", self.name, self.made)
    }

    /// Takes a random entity that `fits`.
    pub(super) fn take(&mut self, fits: impl Fn(&Entity) -> bool) -> Option<Entity> {
        let fitting: Vec<usize> =
            (0..self.entities.len()).filter(|n| fits(&self.entities[*n])).collect();
        let n = fitting.choose(&mut rand::rng())?;
        Some(self.entities.swap_remove(*n))
    }

    /// Records a 2xx response, or a 409 for a retry that was already applied.
    pub fn acknowledge(&mut self, write: Write, answer: &Answer) {
        let is_new = (200..300).contains(&answer.status);
        assert!(
            is_new || (answer.status == 409 && write.kind.refuses_replay()),
            "{write:?} was refused: {} {}",
            answer.status,
            answer.text
        );
        if !is_new || answer.header("idempotency-replayed").is_some() {
            self.repeated.1 += 1;
        }
        self.unconfirmed.retain(|entry| {
            entry.idempotency_key.is_none() || entry.idempotency_key != write.idempotency_key
        });
        self.happened(&write.before, write.after);
        self.acknowledged += 1;
        self.kinds.insert(write.kind);
        self.ended.extend(write.ends);
        self.ended.drain(..self.ended.len().saturating_sub(ENDED));
        if !is_new {
            return;
        }
        for entity in write.kind.adopt(write.entities, &answer.body) {
            let same_kind = std::mem::discriminant(&entity);
            let fits = |other: &Entity| std::mem::discriminant(other) == same_kind;
            if self.entities.iter().filter(|entity| fits(entity)).count() >= IN_HAND
                && let Some(Entity::Conversation(conversation)) = self.take(fits)
            {
                self.release(&conversation);
            }
            self.entities.push(entity);
        }
        if let Some(names) = write.kind.is_import().then_some(write.names) {
            self.entangled.extend(names);
        }
    }

    fn release(&mut self, conversation: &Conversation) {
        self.entangled.extend(conversation.names());
    }

    /// Records that `write` got no response, or a 503.
    pub fn mark_unconfirmed(&mut self, write: Write) {
        self.entangled.extend(write.names.iter().cloned());
        // A retry replaces the entry of the first attempt.
        self.unconfirmed.retain(|entry| {
            entry.idempotency_key.is_none() || entry.idempotency_key != write.idempotency_key
        });
        let (before, after) = (write.before.clone(), write.after.clone());
        self.unconfirmed.push(Unconfirmed {
            kind: write.kind,
            idempotency_key: write.idempotency_key.clone(),
            before,
            after,
        });
        if write.idempotency_key.is_some() {
            self.retry = Some(write);
        }
    }

    fn happened(&mut self, before: &Facts, after: Facts) {
        self.facts.retain(|name, _| !before.contains_key(name));
        self.facts.extend(after);
    }

    /// Decides for each unconfirmed write whether it is stored. Returns how many there were and
    /// how many of them were applied.
    pub fn resolve(&mut self, stored: &Facts) -> (usize, usize) {
        let (all, mut happened) = (self.unconfirmed.len(), 0);
        for Unconfirmed { kind, before, after, .. } in std::mem::take(&mut self.unconfirmed) {
            let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
            let is = |facts: &Facts| names.iter().all(|n| facts.get(*n) == stored.get(*n));
            if is(&after) {
                self.happened(&before, after);
                happened += 1;
            } else if !is(&before) {
                let found: Vec<_> = names.iter().map(|name| (name, stored.get(*name))).collect();
                panic!("{kind:?} was applied in part:\n{before:#?}\n{after:#?}\n{found:#?}");
            }
        }
        (all, happened)
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The valid API keys with their ids, and the valid session tokens.
    pub fn good_credentials(&self) -> (Vec<(&str, i64)>, Vec<&str>) {
        let keys = self.entities.iter().filter_map(|entity| match entity {
            Entity::Key(key) => {
                let works = key.rows.last().is_some_and(|row| row.is_active);
                works.then_some((key.secret.as_str(), key.id))
            }
            _ => None,
        });
        let tokens = self.entities.iter().filter_map(|entity| match entity {
            Entity::User(user) => Some(user.tokens.iter().map(String::as_str)),
            _ => None,
        });
        (keys.collect(), tokens.flatten().collect())
    }

    /// The most recently ended credentials. The server must reject all of them.
    pub fn ended_credentials(&self) -> &[String] {
        &self.ended
    }

    /// The content of a message: mostly short, sometimes several database pages long.
    pub(super) fn words(&mut self) -> String {
        let mut rng = rand::rng();
        let long = if rng.random_ratio(1, 20) { 9000 } else { 200 };
        let words = "all work and no play ".repeat(rng.random_range(0..long) / 21);
        format!("{} {words}", self.fresh())
    }
}
