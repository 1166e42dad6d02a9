//! A writer: what it has made, what was acknowledged, and what it cannot know.

use super::things::{Facts, Talk, Thing, facts_of, once};
use super::writes::Kind;
use crate::support::{Answer, Call};
use rand::RngExt;
use rand::seq::IndexedRandom;
use reqwest::Method;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Things of one kind that it keeps changing. It makes more, and leaves the others as they are.
const IN_HAND: usize = 5;
/// Credentials that ended, of which it remembers the last few.
const ENDED: usize = 8;

/// One request that changes something.
#[derive(Debug)]
pub struct Write {
    pub kind: Kind,
    pub method: Method,
    pub path: String,
    /// The name and the value of the header field that says who asks.
    pub credential: Option<(&'static str, String)>,
    /// Its type and itself.
    pub body: Option<(&'static str, String)>,
    /// Its `Idempotency-Key`.
    pub once: Option<String>,
    /// What is true until it happens, and then.
    pub before: Facts,
    pub after: Facts,
    /// What it leaves in its writer's hands.
    pub things: Vec<Thing>,
    /// Who is in conversations it changes.
    pub names: BTreeSet<String>,
    /// The credentials it ends.
    pub ends: Vec<String>,
}

impl Write {
    /// One that makes `after` of the things `before`.
    pub fn new(
        kind: Kind,
        (method, path): (Method, String),
        before: &[Thing],
        after: Vec<Thing>,
    ) -> Self {
        let talks = before.iter().chain(&after).filter_map(|thing| match thing {
            Thing::Talk(talk) => Some(talk.names()),
            _ => None,
        });
        Self {
            kind,
            method,
            path,
            credential: None,
            body: None,
            once: None,
            names: talks.flatten().collect(),
            before: facts_of(before),
            after: facts_of(&after),
            things: after,
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

    /// With an `Idempotency-Key`, and making `count` things.
    pub fn once(mut self, key: String, count: usize) -> Self {
        self.after.insert(once(&Sha256::digest(&key)), count.to_string());
        self.once = Some(key);
        self
    }

    /// Ready to be sent to the server at `url`.
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

    /// As it goes over the wire: its head and its body.
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
        let once = self.once.as_deref().map(|key| ("Idempotency-Key", key));
        credential.into_iter().chain(body).chain(once)
    }
}

/// Something that may have happened or not, but not in part.
#[derive(Debug)]
struct Doubt {
    kind: Kind,
    once: Option<String>,
    before: Facts,
    after: Facts,
}

/// One who makes things and changes them, one request after the other, and nobody else's.
#[derive(Debug)]
pub struct Writer {
    pub(super) name: String,
    pub(super) admin: String,
    pub(super) made: usize,
    pub(super) things: Vec<Thing>,
    /// Who is in conversations that are out of its hands: to delete them would change those.
    pub(super) entangled: BTreeSet<String>,
    /// What was acknowledged.
    facts: Facts,
    doubtful: Vec<Doubt>,
    /// A request whose answer was lost, and which may be sent again.
    again: Option<Write>,
    ended: Vec<String>,
    pub acknowledged: usize,
    /// Which kinds were.
    pub kinds: BTreeSet<Kind>,
    /// Requests sent again, and how many of them had happened.
    pub repeated: (usize, usize),
}

impl Writer {
    pub fn new(name: String, admin: String) -> Self {
        Self {
            name,
            admin,
            made: 0,
            things: vec![],
            entangled: BTreeSet::new(),
            facts: Facts::new(),
            doubtful: vec![],
            again: None,
            ended: vec![],
            acknowledged: 0,
            kinds: BTreeSet::new(),
            repeated: (0, 0),
        }
    }

    /// What it writes next: of any kind, or what it must send again.
    pub fn next(&mut self) -> Write {
        if let Some(write) = self.again.take() {
            self.repeated.0 += 1;
            return write;
        }
        loop {
            let kind = Kind::ALL.choose_weighted(&mut rand::rng(), |(_, weight)| *weight);
            let (kind, _) = kind.expect("some weigh something");
            if let Some(write) = self.make(*kind) {
                return write;
            }
        }
    }

    /// A name nobody else has.
    pub(super) fn fresh(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", self.name, self.made)
    }

    /// Takes one of the things that fit into its hands.
    pub(super) fn take(&mut self, fits: impl Fn(&Thing) -> bool) -> Option<Thing> {
        let fitting: Vec<usize> =
            (0..self.things.len()).filter(|n| fits(&self.things[*n])).collect();
        let n = fitting.choose(&mut rand::rng())?;
        Some(self.things.swap_remove(*n))
    }

    /// `write` was answered 2xx, or as one is that happened before.
    pub fn acknowledge(&mut self, write: Write, answer: &Answer) {
        let is_new = (200..300).contains(&answer.status);
        assert!(
            is_new || (answer.status == 409 && write.kind.tells_no_secret_twice()),
            "{write:?} was refused: {} {}",
            answer.status,
            answer.text
        );
        if !is_new || answer.header("idempotency-replayed").is_some() {
            self.repeated.1 += 1;
        }
        self.doubtful.retain(|doubt| doubt.once.is_none() || doubt.once != write.once);
        self.happened(&write.before, write.after);
        self.acknowledged += 1;
        self.kinds.insert(write.kind);
        self.ended.extend(write.ends);
        self.ended.drain(..self.ended.len().saturating_sub(ENDED));
        if !is_new {
            return;
        }
        for thing in write.kind.adopt(write.things, &answer.body) {
            let same_kind = std::mem::discriminant(&thing);
            let fits = |other: &Thing| std::mem::discriminant(other) == same_kind;
            if self.things.iter().filter(|thing| fits(thing)).count() >= IN_HAND
                && let Some(Thing::Talk(talk)) = self.take(fits)
            {
                self.let_go(&talk);
            }
            self.things.push(thing);
        }
        if let Some(talk) = write.kind.is_import().then_some(write.names) {
            self.entangled.extend(talk);
        }
    }

    fn let_go(&mut self, talk: &Talk) {
        self.entangled.extend(talk.names());
    }

    /// The answer to `write` was lost, or said that nobody knows.
    pub fn doubt(&mut self, write: Write) {
        self.entangled.extend(write.names.iter().cloned());
        // One that was sent again is the same as before.
        self.doubtful.retain(|doubt| doubt.once.is_none() || doubt.once != write.once);
        let (before, after) = (write.before.clone(), write.after.clone());
        self.doubtful.push(Doubt { kind: write.kind, once: write.once.clone(), before, after });
        if write.once.is_some() {
            self.again = Some(write);
        }
    }

    fn happened(&mut self, before: &Facts, after: Facts) {
        self.facts.retain(|name, _| !before.contains_key(name));
        self.facts.extend(after);
    }

    /// Finds out from what is stored what became of each doubtful write: how many there were, and
    /// how many of them happened.
    pub fn resolve(&mut self, stored: &Facts) -> (usize, usize) {
        let (all, mut happened) = (self.doubtful.len(), 0);
        for Doubt { kind, before, after, .. } in std::mem::take(&mut self.doubtful) {
            let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
            let is = |facts: &Facts| names.iter().all(|n| facts.get(*n) == stored.get(*n));
            if is(&after) {
                self.happened(&before, after);
                happened += 1;
            } else if !is(&before) {
                let found: Vec<_> = names.iter().map(|name| (name, stored.get(*name))).collect();
                panic!("{kind:?} happened by halves:\n{before:#?}\n{after:#?}\n{found:#?}");
            }
        }
        (all, happened)
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The keys that must work, each with its id, and the tokens.
    pub fn good_credentials(&self) -> (Vec<(&str, i64)>, Vec<&str>) {
        let keys = self.things.iter().filter_map(|thing| match thing {
            Thing::Key(key) => {
                let works = key.rows.last().is_some_and(|row| row.is_active);
                works.then_some((key.secret.as_str(), key.id))
            }
            _ => None,
        });
        let tokens = self.things.iter().filter_map(|thing| match thing {
            Thing::Person(person) => Some(person.tokens.iter().map(String::as_str)),
            _ => None,
        });
        (keys.collect(), tokens.flatten().collect())
    }

    /// The last credentials that ended, none of which may work.
    pub fn ended_credentials(&self) -> &[String] {
        &self.ended
    }

    /// Something to say: mostly short, now and then some pages of the database long.
    pub(super) fn words(&mut self) -> String {
        let mut rng = rand::rng();
        let long = if rng.random_ratio(1, 20) { 9000 } else { 200 };
        let words = "all work and no play ".repeat(rng.random_range(0..long) / 21);
        format!("{} {words}", self.fresh())
    }
}
