//! Writes an imported conversation in batches of rows.
//!
//! A conversation that is too long for one transaction stays hidden until the last transaction, so
//! other writers can run in between. If the import fails, the retention job removes the rows.

use super::model::{ImportedMessage, Match, REPORTED, Sought, SpooledPart, UserMatches};
use super::repository::{self, NewConversation, NewMessage};
use super::spool::Spooled;
use crate::audit::{Action, Origin};
use crate::core::error::{Error, Result};
use crate::db::Tx;
use crate::features::conversations::model::{LookupName, NameOwner};
use crate::features::conversations::repository::{accounts, participants};
use crate::features::conversations::search::{self, BatchSize};
use crate::security::{Actor, Scope, revalidate};
use crate::state::AppState;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// Rows per INSERT statement, largest first. A fixed set of sizes keeps the number of distinct
/// statements small, because the databases cache each one.
const ROWS: [usize; 3] = [256, 16, 1];
/// Size of held messages at which they are written, in bytes.
const HELD_BYTES: usize = 2 * 1024 * 1024;
/// Approximate bytes and rows of messages written in one transaction.
const TRANSACTION_BYTES: usize = 16 * HELD_BYTES;
const TRANSACTION_ROWS: usize = 16 * ROWS[0];
/// Time after which a hidden conversation counts as abandoned. Each transaction renews it, and
/// takes much less time.
const HIDDEN_FOR: TimeDelta = TimeDelta::hours(1);
/// Maximum number of users looked up in one statement.
const LOOKUP_BATCH: usize = 256;
/// Maximum number of cached lookups.
const MAX_CACHED_LOOKUPS: usize = 10_000;

/// A conversation that is being written.
pub struct Writer<'a> {
    app: &'a AppState,
    actor: &'a Actor,
    /// `None` after the import was abandoned.
    tx: Option<Tx>,
    id: i64,
    /// Whether a batch is committed.
    has_committed_batch: bool,
    /// Bytes and rows written in the current transaction.
    batch: (usize, usize),
    seq: i64,
    held: Vec<ImportedMessage>,
    bytes: usize,
    /// Ids of the participants, inserted in the last transaction.
    participant_ids: Vec<i64>,
    /// Cached lookups; `None` if no user has the name.
    lookups: HashMap<LookupName, Option<NameOwner>>,
    /// Time of creation of the conversation.
    created_at: DateTime<Utc>,
    /// Whether to attach history to users who took the name after it was created.
    attach_newer: bool,
    matches: UserMatches,
}

impl<'a> Writer<'a> {
    /// Inserts `new` as a hidden conversation.
    pub async fn begin(
        app: &'a AppState,
        actor: &'a Actor,
        new: &NewConversation<'_>,
        attach_newer: bool,
    ) -> Result<Self> {
        let mut tx = begin(app, actor).await?;
        let id = repository::insert(&mut tx, new, app.clock.now() + HIDDEN_FOR).await?;
        Ok(Self {
            app,
            actor,
            tx: Some(tx),
            id,
            has_committed_batch: false,
            batch: (0, 0),
            seq: 0,
            held: vec![],
            bytes: 0,
            participant_ids: vec![],
            lookups: HashMap::new(),
            created_at: new.created_at,
            attach_newer,
            matches: UserMatches::default(),
        })
    }

    /// Writes `parts` and makes the conversation visible as `external_id`. Returns the matching
    /// results; `None` if a conversation with this `external_id` exists now.
    pub async fn write(
        &mut self,
        mut parts: Spooled,
        external_id: &str,
    ) -> Result<Option<UserMatches>> {
        while let Some(part) = parts.next().await? {
            match part {
                SpooledPart::Participants(people) => self.participants(&people).await?,
                SpooledPart::Message(message) => {
                    self.bytes += message.content.len();
                    self.held.push(message);
                    if self.held.len() == ROWS[0] || self.bytes >= HELD_BYTES {
                        self.messages().await?;
                    }
                    if self.batch.0 >= TRANSACTION_BYTES || self.batch.1 >= TRANSACTION_ROWS {
                        self.next_batch().await?;
                    }
                }
            }
        }
        self.messages().await?;
        self.show(external_id).await
    }

    /// Discards the conversation. If it cannot be marked for removal now, it counts as abandoned
    /// after [`HIDDEN_FOR`].
    pub async fn abandon(mut self) {
        let discarded = async {
            if let Some(tx) = self.tx.take() {
                tx.rollback().await?;
            }
            if self.has_committed_batch {
                let mut tx = self.app.db.begin().await?;
                repository::mark_for_removal(&mut tx, self.id, self.app.clock.now()).await?;
                tx.commit().await?;
            }
            Ok::<(), sqlx::Error>(())
        };
        if let Err(error) = discarded.await {
            tracing::warn!(event = "conversations.import_abandoned", %error, "removed in an hour");
        }
    }

    fn tx(&mut self) -> Result<&mut Tx> {
        self.tx.as_mut().ok_or_else(|| Error::Internal("the import was abandoned".into()))
    }

    /// Commits the current batch, still hidden, and begins the next transaction.
    async fn next_batch(&mut self) -> Result<()> {
        let (id, until) = (self.id, self.app.clock.now() + HIDDEN_FOR);
        let tx = self.tx()?;
        repository::forget_events(tx, id).await?;
        if let Some(tx) = self.tx.take() {
            tx.commit().await?;
        }
        self.has_committed_batch = true;
        self.batch = (0, 0);
        let mut tx = begin(self.app, self.actor).await?;
        let is_hidden = repository::hide(&mut tx, id, self.app.clock.now(), until).await?;
        self.tx = Some(tx);
        if is_hidden { Ok(()) } else { Err(TOO_LONG) }
    }

    /// Commits the last transaction, which makes the conversation visible.
    async fn show(&mut self, external_id: &str) -> Result<Option<UserMatches>> {
        let (id, now) = (self.id, self.app.clock.now());
        let participant_ids = std::mem::take(&mut self.participant_ids);
        let tx = self.tx()?;
        for ids in participant_ids.chunks(LOOKUP_BATCH) {
            participants::insert(tx, id, ids).await?;
        }
        // A new conversation has no subscribers, and imported history must not be reported as
        // events.
        repository::forget_events(tx, id).await?;
        if repository::exists_by_external_id(&mut *tx, external_id).await? {
            return Ok(None);
        }
        match repository::show(tx, id, external_id, now).await {
            Ok(true) => {}
            Ok(false) => return Err(TOO_LONG),
            // A concurrent import was faster.
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
        Ok(Some(std::mem::take(&mut self.matches)))
    }

    async fn participants(&mut self, people: &[Sought]) -> Result<()> {
        for people in people.chunks(LOOKUP_BATCH) {
            self.look_up(people.iter()).await?;
            for person in people {
                let id = self.user_id(person, self.created_at);
                self.participant_ids.extend(id);
            }
        }
        Ok(())
    }

    async fn messages(&mut self) -> Result<()> {
        let (held, bytes) = (std::mem::take(&mut self.held), std::mem::take(&mut self.bytes));
        self.batch.0 += bytes;
        self.batch.1 += held.len();
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
        Ok(search::index_backlog(self.tx()?, BatchSize::of(held.len(), bytes)).await?)
    }

    fn row<'m>(&mut self, message: &'m ImportedMessage) -> NewMessage<'m> {
        self.seq += 1;
        let user_id =
            message.user.as_ref().and_then(|person| self.user_id(person, message.created_at));
        NewMessage { seq: self.seq, user_id, message }
    }

    /// The user to whom to attach history of `person` from time `at`, if any. Adds `person` to the
    /// matching results. `person` must have been looked up.
    fn user_id(&mut self, person: &Sought, at: DateTime<Utc>) -> Option<i64> {
        let Some(account) = self.lookups.get(&person.name()).copied().flatten() else {
            add_entry(&mut self.matches.unmatched, person, Sought::clone);
            return None;
        };
        let is_attached = self.attach_newer || account.since <= at;
        let known = if is_attached { &mut self.matches.matched } else { &mut self.matches.newer };
        let found = |person: &Sought| Match { person: person.clone(), user_id: account.id };
        add_entry(known, person, found);
        is_attached.then_some(account.id)
    }

    /// Looks up the users for `people` and caches the results.
    async fn look_up(&mut self, people: impl Iterator<Item = &Sought>) -> Result<()> {
        if self.lookups.len() > MAX_CACHED_LOOKUPS {
            self.lookups.clear();
        }
        let names: HashSet<LookupName> =
            people.map(Sought::name).filter(|name| !self.lookups.contains_key(name)).collect();
        let found = accounts(self.tx()?, &names).await?;
        self.lookups.extend(names.into_iter().map(|name| (name, None)));
        self.lookups.extend(found.into_iter().map(|(name, account)| (name, Some(account))));
        Ok(())
    }
}

/// Adds `person` to `known`, unless it is there or `known` has more than [`REPORTED`] entries.
fn add_entry<T: PartialEq>(known: &mut Vec<T>, person: &Sought, entry: impl Fn(&Sought) -> T) {
    if known.len() <= REPORTED {
        let entry = entry(person);
        if !known.contains(&entry) {
            known.push(entry);
        }
    }
}

const TOO_LONG: Error = Error::Unavailable("A conversation took too long to write; send it again");

/// Begins a transaction and checks the permission of `actor` again, because the lines can take
/// hours to arrive.
async fn begin(app: &AppState, actor: &Actor) -> Result<Tx> {
    let mut tx = app.db.begin_long().await?;
    let (ip, now) = (Some(actor.ip()), app.clock.now());
    revalidate::revalidate_in_transaction(&mut tx, actor.key_id(), ip, Scope::Admin, now).await?;
    Ok(tx)
}
