//! Group commit for SQLite: writers that wait for one another share one transaction, each in a
//! savepoint of its own, and so one sync of the disk.
//!
//! Whoever opens a group queues its closer behind those who wait already. They run first, one after
//! the other; then the closer commits for all of them and tells them. The closer of a lone writer runs
//! at once. Nothing depends on a member going on: one that ends without a commit is rolled back by
//! whoever comes next.
//!
//! What a member needs before its first statement goes to SQLite's thread together with it, as each
//! walk there and back costs more than most statements do ([`Member::enter`]).
//!
//! A member sees what those before it wrote, which may not be on the disk yet. What it concludes from
//! that ("the name is taken") must not be told before it is: see [`settled`].

use super::connect::ACQUIRE_TIMEOUT;
use super::lender::{Lender, Lent, NOT_BEGUN, run, says};
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::{Result, SqliteConnection};
use std::borrow::Cow;
use std::cell::RefCell;
use std::error::Error as StdError;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task_local;
use tokio::time::timeout;

/// How a group ended, once it has.
type End = Option<Result<(), Arc<sqlx::Error>>>;

/// The one connection that writes. Clones share it.
#[derive(Clone, Debug)]
pub struct Writer {
    lender: Lender,
    /// Fair: who asks first is first.
    turn: Arc<Mutex<Option<Group>>>,
}

/// A transaction, from before its first statement.
#[derive(Debug)]
struct Group {
    connection: Lent,
    end: watch::Sender<End>,
    place: Place,
    /// Whether a part was committed.
    has_kept: bool,
    /// Whether it has one member, and no other may join.
    is_alone: bool,
}

/// Where the transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has not begun.
    Before,
    /// A savepoint has nothing in it.
    Fresh(Name),
    /// A member writes after its savepoint, or ended without a commit.
    Open(Name),
    /// A member committed what is after its savepoint.
    Kept(Name),
}

/// Savepoints have two names in turn: a member whose entrance failed, or was cut off, has none of its
/// name, and is not taken for the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    A,
    B,
}

/// One writer's part of a transaction. Dropping it rolls that part back.
#[derive(Debug)]
pub struct Member {
    group: OwnedMutexGuard<Option<Group>>,
    state: State,
}

/// Whether a member's next statement can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is the first.
    New,
    /// All so far have worked.
    Sound,
    /// One was sent. If it failed, or nobody waits for it any more, this is for good, as on Postgres:
    /// SQLite may have rolled everything back, and would run the next one outside of a transaction.
    Unsure,
}

task_local! {
    /// Groups of which this task has seen a part that was not on the disk.
    static SEEN: RefCell<Vec<watch::Receiver<End>>>;
}

/// Does `work`, and waits until what its transactions saw is on the disk, those too that changed
/// nothing themselves. Fails where it never will be: what `work` concluded from it is not so.
pub async fn settled<T>(work: impl Future<Output = T>) -> Result<T> {
    let both = async {
        let result = work.await;
        (result, SEEN.with(RefCell::take))
    };
    let (result, seen) = SEEN.scope(RefCell::default(), both).await;
    for group in seen {
        told(group).await?;
    }
    Ok(result)
}

impl Writer {
    /// Writes on the connections of `lender`, which has one.
    pub fn new(lender: Lender) -> Self {
        Self { lender, turn: Arc::default() }
    }

    /// Who has the connection, for what is no transaction.
    pub fn lender(&self) -> &Lender {
        &self.lender
    }

    /// Waits for a turn: in a group, or, if `is_alone`, between two.
    pub async fn begin(&self, is_alone: bool) -> Result<Member> {
        let turn = timeout(ACQUIRE_TIMEOUT, self.turn.clone().lock_owned()).await;
        let mut turn = turn.map_err(|_| sqlx::Error::PoolTimedOut)?;
        if let Some(group) = &*turn
            && (is_alone || group.is_alone || matches!(group.place, Place::Open(_)))
        {
            // In a task of its own, so that a caller who goes away cannot stop half-way.
            let cleared = tokio::spawn(async move {
                clear(&mut turn, is_alone).await;
                turn
            });
            turn = cleared.await.map_err(|_| sqlx::Error::WorkerCrashed)?;
        }
        if turn.is_none() {
            *turn = Some(Group::new(self.lender.lend().await?, is_alone));
            let next = self.turn.clone().lock_owned();
            tokio::spawn(async move { close(&mut *next.await).await });
        }
        Ok(Member { group: turn, state: State::New })
    }
}

/// Makes the group one that the next member can enter, or ends it.
async fn clear(turn: &mut Option<Group>, is_alone: bool) {
    let Some(group) = turn else { return };
    if is_alone || group.is_alone || group.undo_open().await.is_err() {
        close(turn).await;
    }
}

/// Ends the group, if there is one, and tells its members.
async fn close(turn: &mut Option<Group>) {
    let Some(mut group) = turn.take() else { return };
    let end = group.commit().await;
    if end.is_ok() {
        group.connection.done();
    }
    group.end.send_replace(Some(end.map_err(Arc::new)));
}

/// What SQLite says of a savepoint that is not there.
const NO_SAVEPOINT: &str = "no such savepoint";

impl Group {
    fn new(connection: Lent, is_alone: bool) -> Self {
        let end = watch::Sender::new(None);
        Self { connection, end, place: Place::Before, has_kept: false, is_alone }
    }

    /// What to run before the first statement of a member. Whether that worked shows later: who comes
    /// next asks for the savepoint.
    fn enter(&mut self) -> &'static str {
        let (name, sql) = match self.place {
            Place::Before => (Name::A, "BEGIN IMMEDIATE; SAVEPOINT a; "),
            Place::Kept(Name::A) => (Name::B, "RELEASE a; SAVEPOINT b; "),
            Place::Kept(Name::B) => (Name::A, "RELEASE b; SAVEPOINT a; "),
            Place::Fresh(name) | Place::Open(name) => (name, ""),
        };
        self.place = Place::Open(name);
        sql
    }

    /// Undoes what the last member did, if it did not commit.
    async fn undo_open(&mut self) -> Result<()> {
        let (name, sql) = match self.place {
            Place::Open(Name::A) => (Name::A, "ROLLBACK TO a"),
            Place::Open(Name::B) => (Name::B, "ROLLBACK TO b"),
            _ => return Ok(()),
        };
        run(self.connection.connection(), sql).await?;
        self.place = Place::Fresh(name);
        Ok(())
    }

    /// Makes last what there is of it. Fails where SQLite has rolled all of it back, as it does when
    /// the disk is full.
    async fn commit(&mut self) -> Result<()> {
        if self.place == Place::Before {
            return Ok(());
        }
        if !self.has_kept {
            // A COMMIT would write pages that were changed and changed back.
            return run(self.connection.connection(), "ROLLBACK").await;
        }
        match self.undo_open().await {
            // Nothing that stands after the savepoint was run, if it was never made.
            Err(error) if !says(&error, NO_SAVEPOINT) => return Err(error),
            _ => {}
        }
        match run(self.connection.connection(), "COMMIT").await {
            // Why, the member was told in whose statement it was.
            Err(error) if says(&error, NOT_BEGUN) => Err(sqlx::Error::WorkerCrashed),
            end => end,
        }
    }
}

impl Member {
    /// The connection, and what to run in one text before the next statement; say [`Self::worked`] when
    /// that has worked. Fails after one that has not.
    pub fn enter(&mut self) -> Result<(&mut SqliteConnection, &'static str)> {
        let group = self.group.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let before = match std::mem::replace(&mut self.state, State::Unsure) {
            State::New => group.enter(),
            State::Sound => "",
            State::Unsure => return Err(failed()),
        };
        Ok((group.connection.connection(), before))
    }

    /// The last statement did what it should.
    pub fn worked(&mut self) {
        self.state = State::Sound;
    }

    /// Enters, for a statement that cannot have anything before it in its text.
    pub async fn enter_alone(&mut self) -> Result<()> {
        if self.state == State::New {
            let (connection, before) = self.enter()?;
            if !before.is_empty() {
                run(connection, before).await?;
            }
            self.worked();
        }
        Ok(())
    }

    /// Comes back when what it wrote is on the disk.
    pub async fn commit(mut self) -> Result<()> {
        let group = self.group.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let Place::Open(name) = group.place else { return Ok(()) };
        if self.state != State::Sound {
            return Err(failed());
        }
        group.place = Place::Kept(name);
        group.has_kept = true;
        self.end().await
    }

    /// Leaves what it wrote to be undone by whoever comes next. Comes back when what it saw is on the
    /// disk, for whoever reads it then.
    pub async fn rollback(self) -> Result<()> {
        let group = self.group.as_ref().ok_or(sqlx::Error::WorkerCrashed)?;
        if self.state != State::New && group.has_kept { self.end().await } else { Ok(()) }
    }

    async fn end(self) -> Result<()> {
        let group = self.group.as_ref().ok_or(sqlx::Error::WorkerCrashed)?;
        let end = group.end.subscribe();
        drop(self); // the next one joins, or the closer commits
        told(end).await
    }
}

fn failed() -> sqlx::Error {
    sqlx::Error::Protocol("a statement of this transaction failed".into())
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(group) = &*self.group
            && group.has_kept
            && matches!(group.place, Place::Open(_))
        {
            // Outside of a request nobody is told anything.
            let _ = SEEN.try_with(|seen| seen.borrow_mut().push(group.end.subscribe()));
        }
    }
}

/// What a member is told of the end of its group, when it has come.
async fn told(mut end: watch::Receiver<End>) -> Result<()> {
    match end.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(Ok(()))) => Ok(()),
        Ok(Some(Err(error))) => Err(shared(error)),
        _ => Err(sqlx::Error::WorkerCrashed),
    }
}

/// Several requests fail for the same reason, and each is told.
fn shared(error: &Arc<sqlx::Error>) -> sqlx::Error {
    match **error {
        sqlx::Error::Database(_) => sqlx::Error::Database(Box::new(Shared(error.clone()))),
        _ => sqlx::Error::WorkerCrashed,
    }
}

#[derive(Debug)]
struct Shared(Arc<sqlx::Error>);

impl Shared {
    fn database(&self) -> Option<&dyn DatabaseError> {
        self.0.as_database_error()
    }
}

impl Display for Shared {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Shared {}

impl DatabaseError for Shared {
    fn message(&self) -> &str {
        self.database().map_or("", DatabaseError::message)
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.database()?.code()
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        self.database().map_or(ErrorKind::Other, DatabaseError::kind)
    }
}
