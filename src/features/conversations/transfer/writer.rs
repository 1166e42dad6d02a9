//! Writes what belongs to a conversation, many rows at a time.

use super::model::{ImportedMessage, Name, Part, REPORTED, Sought};
use super::repository::{self, NewMessage};
use crate::core::error::Result;
use crate::db::Tx;
use crate::features::conversations::repository::participants;
use std::collections::{HashMap, HashSet};

/// Messages written in one statement, and in smaller ones what is left: few texts of statements, as
/// the databases keep each.
const ROWS: [usize; 3] = [256, 16, 1];
/// Bytes of messages that are held at most, and one message more.
const BYTES: usize = 2 * 1024 * 1024;
/// People looked up in one statement.
const PEOPLE: usize = 256;
/// People who are remembered.
const REMEMBERED: usize = 10_000;

/// What is written into a new conversation.
pub struct Writer<'t> {
    tx: &'t mut Tx,
    id: i64,
    seq: i64,
    held: Vec<ImportedMessage>,
    bytes: usize,
    /// Who is who: `None` is nobody.
    users: HashMap<Name, Option<i64>>,
    unmatched: Vec<Sought>,
}

impl<'t> Writer<'t> {
    /// Into conversation `id`, which has nothing yet.
    pub fn new(tx: &'t mut Tx, id: i64) -> Self {
        let (users, unmatched) = (HashMap::new(), vec![]);
        Self { tx, id, seq: 0, held: vec![], bytes: 0, users, unmatched }
    }

    /// Writes `part`, or holds it until there is more.
    pub async fn write(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Participants(people) => self.participants(&people).await,
            Part::Message(message) => {
                self.bytes += message.content.len();
                self.held.push(message);
                if self.held.len() == ROWS[0] || self.bytes >= BYTES {
                    self.messages().await?;
                }
                Ok(())
            }
        }
    }

    /// Writes what is held. The people who were not found: one more than are reported, at most.
    pub async fn finish(mut self) -> Result<Vec<Sought>> {
        self.messages().await?;
        Ok(self.unmatched)
    }

    async fn participants(&mut self, people: &[Sought]) -> Result<()> {
        for people in people.chunks(PEOPLE) {
            self.look_up(people.iter()).await?;
            let ids: Vec<i64> = people.iter().filter_map(|person| self.user_id(person)).collect();
            participants::insert(self.tx, self.id, &ids).await?;
        }
        Ok(())
    }

    async fn messages(&mut self) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        self.bytes = 0;
        self.look_up(held.iter().filter_map(|message| message.user.as_ref())).await?;
        let mut rest = &held[..];
        for size in ROWS {
            while let Some((now, later)) = rest.split_at_checked(size) {
                let rows: Vec<NewMessage<'_>> =
                    now.iter().map(|message| self.row(message)).collect();
                repository::insert_messages(self.tx, self.id, &rows).await?;
                rest = later;
            }
        }
        Ok(())
    }

    fn row<'m>(&mut self, message: &'m ImportedMessage) -> NewMessage<'m> {
        self.seq += 1;
        let user_id = message.user.as_ref().and_then(|person| self.user_id(person));
        NewMessage { seq: self.seq, user_id, message }
    }

    /// The user that `person`, who was looked up, is.
    fn user_id(&mut self, person: &Sought) -> Option<i64> {
        let id = self.users.get(&person.name()).copied().flatten();
        let is_news = id.is_none() && self.unmatched.len() <= REPORTED;
        if is_news && !self.unmatched.contains(person) {
            self.unmatched.push(person.clone());
        }
        id
    }

    /// Finds out who `people` are.
    async fn look_up(&mut self, people: impl Iterator<Item = &Sought>) -> Result<()> {
        if self.users.len() > REMEMBERED {
            self.users.clear();
        }
        let names: HashSet<Name> =
            people.map(Sought::name).filter(|name| !self.users.contains_key(name)).collect();
        let found = repository::users(self.tx, &names).await?;
        self.users.extend(names.into_iter().map(|name| (name, None)));
        self.users.extend(found.into_iter().map(|(name, id)| (name, Some(id))));
        Ok(())
    }
}
