//! The entities that writers create, and the facts expected in a database that stores them.

use std::collections::{BTreeMap, BTreeSet};

/// Expected or stored values, by the name of what they describe.
pub type Facts = BTreeMap<String, String>;

/// An entity that a writer created and keeps changing.
#[derive(Clone, Debug)]
pub enum Entity {
    Key(Key),
    User(User),
    Conversation(Conversation),
}

/// An API key and its predecessors, which were rotated.
#[derive(Clone, Debug)]
pub struct Key {
    pub name: String,
    pub id: i64,
    pub secret: String,
    /// The keys, newest last.
    pub rows: Vec<KeyRow>,
    pub audit_entries: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub struct KeyRow {
    pub scopes: String,
    pub description: String,
    pub is_active: bool,
    pub is_rotated: bool,
}

#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub id: i64,
    pub full_name: String,
    pub is_active: bool,
    /// Tokens of the active sessions.
    pub tokens: Vec<String>,
    pub sessions: usize,
    pub audit_entries: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub struct Conversation {
    pub name: String,
    pub id: i64,
    pub title: String,
    /// Ids by name.
    pub participants: BTreeMap<String, i64>,
    pub messages: Vec<Message>,
    pub events: BTreeMap<&'static str, usize>,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub id: i64,
    pub author: Option<String>,
    pub content: String,
    pub version: i64,
    pub is_deleted: bool,
}

impl Entity {
    pub fn facts(&self) -> Facts {
        match self {
            Self::Key(key) => key.facts(),
            Self::User(user) => user.facts(),
            Self::Conversation(conversation) => conversation.facts(),
        }
    }
}

/// The facts of several entities.
pub fn facts_of(entities: &[Entity]) -> Facts {
    entities.iter().flat_map(Entity::facts).collect()
}

impl Key {
    fn facts(&self) -> Facts {
        let rows: Vec<_> = self.rows.iter().map(KeyRow::fact).collect();
        Facts::from([
            (format!("key {}", self.name), rows.join(" | ")),
            (format!("audit entries of key {}", self.name), self.audit_entries.join(" ")),
        ])
    }

    /// The facts that remain after the newest key is deleted.
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

impl User {
    pub fn facts(&self) -> Facts {
        let fact = user_fact(&self.full_name, self.is_active, self.sessions);
        let mut facts = self.facts_when_deleted();
        facts.insert(format!("user {}", self.name), fact);
        facts
    }

    /// The facts that remain after the user is deleted.
    pub fn facts_when_deleted(&self) -> Facts {
        let audit_entries =
            (format!("audit entries of user {}", self.name), self.audit_entries.join(" "));
        Some(audit_entries).filter(|(_, fact)| !fact.is_empty()).into_iter().collect()
    }
}

pub fn user_fact(full_name: &str, is_active: bool, sessions: usize) -> String {
    format!("{full_name:?} active={is_active} sessions={sessions}")
}

/// The name of the fact about the `Idempotency-Key` with this SHA-256.
pub fn idempotency_fact(hash: &[u8]) -> String {
    format!("made by {}", hex::encode(hash))
}

impl Conversation {
    /// A new conversation of `participants`.
    pub fn new(name: String, participants: BTreeMap<String, i64>) -> Self {
        let mut conversation = Self {
            title: format!("talk {name}"),
            name,
            id: 0,
            participants,
            messages: vec![],
            events: BTreeMap::new(),
        };
        conversation.happened("participant.added", conversation.participants.len());
        conversation
    }

    pub fn happened(&mut self, kind: &'static str, times: usize) {
        if times > 0 {
            *self.events.entry(kind).or_default() += times;
        }
    }

    pub fn append(&mut self, author: Option<String>, content: String) {
        self.messages.push(Message { id: 0, author, content, version: 1, is_deleted: false });
        self.happened("message.created", 1);
    }

    /// Removes a participant. Their messages keep their author.
    pub fn leave(&mut self, name: &str) {
        if self.participants.remove(name).is_some() {
            self.happened("participant.removed", 1);
        }
    }

    /// The names of the participants and the authors.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let authors = self.messages.iter().filter_map(|message| message.author.clone());
        self.participants.keys().cloned().chain(authors)
    }

    /// Clears the author of a user's messages.
    pub fn clear_author(&mut self, name: &str) {
        for message in &mut self.messages {
            message.author = message.author.take().filter(|author| author != name);
        }
    }

    fn facts(&self) -> Facts {
        let name = &self.name;
        let mut facts = Facts::from([(
            format!("conversation {name}"),
            format!("{:?} last_seq={}", self.title, self.messages.len()),
        )]);
        if !self.participants.is_empty() {
            let participants: BTreeSet<_> = self.participants.keys().map(String::as_str).collect();
            let participants: Vec<_> = participants.into_iter().collect();
            facts.insert(format!("participants of {name}"), participants.join(" "));
        }
        if !self.events.is_empty() {
            let events: Vec<_> = self.events.iter().map(|(k, n)| format!("{k}×{n}")).collect();
            facts.insert(format!("events of {name}"), events.join(" "));
        }
        for (seq, message) in (1..).zip(&self.messages) {
            facts.insert(format!("message in {name}, {seq}"), message.fact());
        }
        facts
    }
}

impl Message {
    pub fn fact(&self) -> String {
        let Self { author, content, version, is_deleted, .. } = self;
        let author = author.as_deref().unwrap_or("no author");
        format!("{author}: {content:?} version={version} deleted={is_deleted}")
    }
}
