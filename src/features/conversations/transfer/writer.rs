//! Writes a conversation that has arrived, many rows at a time.
//!
//! One that is too long for one transaction is hidden until the last: nobody finds it before, and
//! others write in between. Where it does not come to the last one, what was written is removed
//! like a conversation that is old, by the job that does so.

use super::model::{ImportedMessage, Match, Part, People, REPORTED, Sought};
use super::repository::{self, NewConversation, NewMessage};
use super::spool::Spooled;
use crate::audit::{Action, Origin};
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::features::conversations::model::{Account, Name};
use crate::features::conversations::repository::{accounts, participants};
use crate::features::conversations::search::{self, IndexPart};
use crate::security::{Actor, Scope, recheck};
use crate::state::AppState;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// Messages written in one statement, and in smaller ones what is left: few texts of statements, as
/// the databases keep each.
const ROWS: [usize; 3] = [256, 16, 1];
/// Bytes of messages that are held at most, and one message more.
const BYTES: usize = 2 * 1024 * 1024;
/// Bytes and rows of messages written in one transaction, about.
const PIECE: usize = 16 * BYTES;
const PIECE_ROWS: usize = 16 * ROWS[0];
/// How long it stays hidden until it counts as left behind: much longer than one transaction, in
/// each of which that is renewed.
const HIDDEN: TimeDelta = TimeDelta::hours(1);
/// People looked up in one statement.
const PEOPLE: usize = 256;
/// People who are remembered.
const REMEMBERED: usize = 10_000;

/// A conversation that is being written.
pub struct Writer<'a> {
    app: &'a AppState,
    actor: &'a Actor,
    /// `None` when it was given up.
    tx: Option<Tx>,
    id: i64,
    /// Whether a part of it is committed.
    has_pieces: bool,
    /// Bytes and rows of the piece that is being written.
    piece: (usize, usize),
    seq: i64,
    held: Vec<ImportedMessage>,
    bytes: usize,
    /// Who take part, from the last transaction on.
    joining: Vec<i64>,
    /// Who is who: `None` is nobody.
    users: HashMap<Name, Option<Account>>,
    /// When the conversation began.
    created_at: DateTime<Utc>,
    /// Whether history is attached to users who are newer.
    attach_newer: bool,
    people: People,
}

impl<'a> Writer<'a> {
    /// Begins to write `new`.
    pub async fn begin(
        app: &'a AppState,
        actor: &'a Actor,
        new: &NewConversation<'_>,
        attach_newer: bool,
    ) -> Result<Self> {
        let mut tx = begin(app, actor).await?;
        let id = repository::insert(&mut tx, new, app.clock.now() + HIDDEN).await?;
        Ok(Self {
            app,
            actor,
            tx: Some(tx),
            id,
            has_pieces: false,
            piece: (0, 0),
            seq: 0,
            held: vec![],
            bytes: 0,
            joining: vec![],
            users: HashMap::new(),
            created_at: new.created_at,
            attach_newer,
            people: People::default(),
        })
    }

    /// Writes `parts` and lets everybody find the conversation, by the name `external_id`: the
    /// people in it. `None` where there is one of that name now.
    pub async fn write(&mut self, mut parts: Spooled, external_id: &str) -> Result<Option<People>> {
        while let Some(part) = parts.next().await? {
            match part {
                Part::Participants(people) => self.participants(&people).await?,
                Part::Message(message) => {
                    self.bytes += message.content.len();
                    self.held.push(message);
                    if self.held.len() == ROWS[0] || self.bytes >= BYTES {
                        self.messages().await?;
                    }
                    if self.piece.0 >= PIECE || self.piece.1 >= PIECE_ROWS {
                        self.next_piece().await?;
                    }
                }
            }
        }
        self.messages().await?;
        self.show(external_id).await
    }

    /// Gives up what was written. What cannot be marked now counts as left behind later.
    pub async fn abandon(mut self) {
        let undone = async {
            if let Some(tx) = self.tx.take() {
                tx.rollback().await?;
            }
            if self.has_pieces {
                let mut tx = self.app.db.begin().await?;
                repository::leave_behind(&mut tx, self.id, self.app.clock.now()).await?;
                tx.commit().await?;
            }
            Ok::<(), sqlx::Error>(())
        };
        if let Err(error) = undone.await {
            tracing::warn!(event = "conversations.left_behind", %error, "removed in an hour");
        }
    }

    fn tx(&mut self) -> Result<&mut Tx> {
        self.tx.as_mut().ok_or_else(|| Error::Internal("an import that was given up".into()))
    }

    /// Commits what is written, hidden, and goes on in another transaction.
    async fn next_piece(&mut self) -> Result<()> {
        let (id, until) = (self.id, self.app.clock.now() + HIDDEN);
        let tx = self.tx()?;
        repository::forget_events(tx, id).await?;
        if let Some(tx) = self.tx.take() {
            tx.commit().await?;
        }
        self.has_pieces = true;
        self.piece = (0, 0);
        let mut tx = begin(self.app, self.actor).await?;
        let is_hidden = repository::hide(&mut tx, id, self.app.clock.now(), until).await?;
        self.tx = Some(tx);
        if is_hidden { Ok(()) } else { Err(TOO_LONG) }
    }

    /// The last transaction: from its end on everybody finds the conversation.
    async fn show(&mut self, external_id: &str) -> Result<Option<People>> {
        let (id, now) = (self.id, self.app.clock.now());
        let joining = std::mem::take(&mut self.joining);
        let tx = self.tx()?;
        for ids in joining.chunks(PEOPLE) {
            participants::insert(tx, id, ids).await?;
        }
        // Nobody has watched a conversation that was not there, and its past is no news.
        repository::forget_events(tx, id).await?;
        if repository::is_here(&mut *tx, external_id).await? {
            return Ok(None);
        }
        match repository::show(tx, id, external_id, now).await {
            Ok(true) => {}
            Ok(false) => return Err(TOO_LONG),
            // Somebody was quicker by less than a statement.
            Err(error) if Error::is_unique_violation(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let (by, messages) = (Origin::from(self.actor), self.seq);
        let details =
            json!({ "conversation_id": id, "external_id": external_id, "messages": messages });
        let (audit, action) = (&self.app.audit, Action::ImportConversation);
        audit.record_of_key(self.tx()?, Some(&by), action, &details, now).await?;
        if let Some(tx) = self.tx.take() {
            tx.commit().await?;
        }
        Ok(Some(std::mem::take(&mut self.people)))
    }

    async fn participants(&mut self, people: &[Sought]) -> Result<()> {
        for people in people.chunks(PEOPLE) {
            self.look_up(people.iter()).await?;
            for person in people {
                let id = self.user_id(person, self.created_at);
                self.joining.extend(id);
            }
        }
        Ok(())
    }

    async fn messages(&mut self) -> Result<()> {
        let (held, bytes) = (std::mem::take(&mut self.held), std::mem::take(&mut self.bytes));
        self.piece.0 += bytes;
        self.piece.1 += held.len();
        self.look_up(held.iter().filter_map(|message| message.user.as_ref())).await?;
        let mut rest = &held[..];
        for size in ROWS {
            while let Some((now, later)) = rest.split_at_checked(size) {
                let rows: Vec<NewMessage<'_>> =
                    now.iter().map(|message| self.row(message)).collect();
                let id = self.id;
                repository::insert_messages(self.tx()?, id, &rows).await?;
                rest = later;
            }
        }
        Ok(search::keep_up(self.tx()?, IndexPart::of(held.len(), bytes)).await?)
    }

    fn row<'m>(&mut self, message: &'m ImportedMessage) -> NewMessage<'m> {
        self.seq += 1;
        let user_id =
            message.user.as_ref().and_then(|person| self.user_id(person, message.created_at));
        NewMessage { seq: self.seq, user_id, message }
    }

    /// The user to whom history of `person`, who was looked up, from time `at` is attached.
    fn user_id(&mut self, person: &Sought, at: DateTime<Utc>) -> Option<i64> {
        let Some(account) = self.users.get(&person.name()).copied().flatten() else {
            note(&mut self.people.unmatched, person, Sought::clone);
            return None;
        };
        let is_attached = self.attach_newer || account.since <= at;
        let known = if is_attached { &mut self.people.matched } else { &mut self.people.newer };
        let found = |person: &Sought| Match { person: person.clone(), user_id: account.id };
        note(known, person, found);
        is_attached.then_some(account.id)
    }

    /// Finds out who `people` are.
    async fn look_up(&mut self, people: impl Iterator<Item = &Sought>) -> Result<()> {
        if self.users.len() > REMEMBERED {
            self.users.clear();
        }
        let names: HashSet<Name> =
            people.map(Sought::name).filter(|name| !self.users.contains_key(name)).collect();
        let found = accounts(self.tx()?, &names).await?;
        self.users.extend(names.into_iter().map(|name| (name, None)));
        self.users.extend(found.into_iter().map(|(name, account)| (name, Some(account))));
        Ok(())
    }
}

/// Adds `person` to those who are `known`, one more than are reported at most.
fn note<T: PartialEq>(known: &mut Vec<T>, person: &Sought, entry: impl Fn(&Sought) -> T) {
    if known.len() <= REPORTED {
        let entry = entry(person);
        if !known.contains(&entry) {
            known.push(entry);
        }
    }
}

const TOO_LONG: Error = Error::Unavailable("A conversation took too long to write; send it again");

/// A transaction of `actor`, who may have lost the right: the lines may take hours to arrive.
async fn begin(app: &AppState, actor: &Actor) -> Result<Tx> {
    let mut tx = app.db.begin_long().await?;
    let (ip, now) = (Some(actor.ip()), app.clock.now());
    recheck::still_allowed(&mut tx, actor.key_id(), ip, Scope::Admin, now).await?;
    Ok(tx)
}
