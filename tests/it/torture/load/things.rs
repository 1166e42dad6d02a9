//! What writers make, and which facts a database that has it shows.

use std::collections::{BTreeMap, BTreeSet};

/// What a database says, by the name of what it says it of.
pub type Facts = BTreeMap<String, String>;

/// Something that a writer made, and goes on changing.
#[derive(Clone, Debug)]
pub enum Thing {
    Item(Item),
    Key(Key),
    Person(Person),
    Talk(Talk),
}

#[derive(Clone, Debug)]
pub struct Item {
    pub id: String,
    pub name: String,
}

/// A key, with those whose place it took.
#[derive(Clone, Debug)]
pub struct Key {
    pub name: String,
    pub id: i64,
    pub secret: String,
    /// Each of them, the newest last.
    pub rows: Vec<KeyRow>,
    pub trail: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub struct KeyRow {
    pub scopes: String,
    pub description: String,
    pub is_active: bool,
    pub is_rotated: bool,
}

#[derive(Clone, Debug)]
pub struct Person {
    pub name: String,
    pub id: i64,
    pub full_name: String,
    pub is_active: bool,
    /// Of the sessions that go on.
    pub tokens: Vec<String>,
    pub sessions: usize,
    pub trail: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub struct Talk {
    pub name: String,
    pub id: i64,
    pub title: String,
    /// Who take part: their names and ids.
    pub people: BTreeMap<String, i64>,
    pub said: Vec<Said>,
    pub events: BTreeMap<&'static str, usize>,
}

#[derive(Clone, Debug)]
pub struct Said {
    pub id: i64,
    pub author: Option<String>,
    pub content: String,
    pub version: i64,
    pub is_deleted: bool,
}

impl Thing {
    pub fn facts(&self) -> Facts {
        match self {
            Self::Item(item) => Facts::from([(format!("item {}", item.id), item.name.clone())]),
            Self::Key(key) => key.facts(),
            Self::Person(person) => person.facts(),
            Self::Talk(talk) => talk.facts(),
        }
    }
}

/// The facts of several things.
pub fn facts_of(things: &[Thing]) -> Facts {
    things.iter().flat_map(Thing::facts).collect()
}

impl Key {
    fn facts(&self) -> Facts {
        let rows: Vec<_> = self.rows.iter().map(KeyRow::fact).collect();
        Facts::from([
            (format!("key {}", self.name), rows.join(" | ")),
            (format!("trail of key {}", self.name), self.trail.join(" ")),
        ])
    }

    /// What stays when the newest is deleted.
    pub fn facts_without_newest(mut self) -> Facts {
        self.rows.pop();
        let mut facts = self.facts();
        facts.retain(|_, fact| !fact.is_empty());
        facts
    }

    pub fn newest(&mut self) -> &mut KeyRow {
        self.rows.last_mut().expect("a key has a row")
    }
}

impl KeyRow {
    pub fn fact(&self) -> String {
        let Self { scopes, description, is_active, is_rotated } = self;
        format!("{scopes} {description:?} active={is_active} rotated={is_rotated}")
    }
}

impl Person {
    pub fn facts(&self) -> Facts {
        let fact = person(&self.full_name, self.is_active, self.sessions);
        let mut facts = self.facts_when_gone();
        facts.insert(format!("person {}", self.name), fact);
        facts
    }

    /// What is said of them when they are deleted.
    pub fn facts_when_gone(&self) -> Facts {
        let trail = (format!("trail of person {}", self.name), self.trail.join(" "));
        Some(trail).filter(|(_, fact)| !fact.is_empty()).into_iter().collect()
    }
}

pub fn person(full_name: &str, is_active: bool, sessions: usize) -> String {
    format!("{full_name:?} active={is_active} sessions={sessions}")
}

/// What is said of an `Idempotency-Key` with this SHA-256.
pub fn once(hash: &[u8]) -> String {
    format!("made by {}", hex::encode(hash))
}

impl Talk {
    /// One that `people` begin.
    pub fn new(name: String, people: BTreeMap<String, i64>) -> Self {
        let mut talk = Self {
            title: format!("talk {name}"),
            name,
            id: 0,
            people,
            said: vec![],
            events: BTreeMap::new(),
        };
        talk.happened("participant.added", talk.people.len());
        talk
    }

    pub fn happened(&mut self, kind: &'static str, times: usize) {
        if times > 0 {
            *self.events.entry(kind).or_default() += times;
        }
    }

    pub fn say(&mut self, author: Option<String>, content: String) {
        self.said.push(Said { id: 0, author, content, version: 1, is_deleted: false });
        self.happened("message.created", 1);
    }

    /// Lets somebody leave. What they said stays theirs.
    pub fn leave(&mut self, name: &str) {
        if self.people.remove(name).is_some() {
            self.happened("participant.removed", 1);
        }
    }

    /// Who take part or said something.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let authors = self.said.iter().filter_map(|said| said.author.clone());
        self.people.keys().cloned().chain(authors)
    }

    /// Makes what somebody said nobody's.
    pub fn disown(&mut self, name: &str) {
        for said in &mut self.said {
            said.author = said.author.take().filter(|author| author != name);
        }
    }

    fn facts(&self) -> Facts {
        let name = &self.name;
        let mut facts = Facts::from([(
            format!("talk {name}"),
            format!("{:?} last_seq={}", self.title, self.said.len()),
        )]);
        if !self.people.is_empty() {
            let people: BTreeSet<_> = self.people.keys().map(String::as_str).collect();
            let people: Vec<_> = people.into_iter().collect();
            facts.insert(format!("people in {name}"), people.join(" "));
        }
        if !self.events.is_empty() {
            let events: Vec<_> = self.events.iter().map(|(k, n)| format!("{k}×{n}")).collect();
            facts.insert(format!("events of {name}"), events.join(" "));
        }
        for (seq, said) in (1..).zip(&self.said) {
            facts.insert(format!("said in {name}, {seq}"), said.fact());
        }
        facts
    }
}

impl Said {
    pub fn fact(&self) -> String {
        let Self { author, content, version, is_deleted, .. } = self;
        let author = author.as_deref().unwrap_or("nobody");
        format!("{author}: {content:?} version={version} deleted={is_deleted}")
    }
}
