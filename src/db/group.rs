//! Group commit for SQLite: writers that wait for one another share one transaction, each in a
//! savepoint of its own, and so one sync of the disk.
//!
//! Whoever opens a group queues its closer behind those who wait already. They run first, one after
//! the other; then the closer commits for all of them and tells them. The closer of a lone writer runs
//! at once. Nothing depends on a member going on: one that ends without a commit is rolled back by
//! whoever comes next.
//!
//! What a member needs before its first statement goes to SQLite's thread together with it, as each
//! walk there and back costs more than most statements do ([`Member::entrance`]).
//!
//! A member sees what those before it wrote, which may not be on the disk yet. What it concludes from
//! that ("the name is taken") must not be told before it is: see [`settled`].

use super::connect::ACQUIRE_TIMEOUT;
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::pool::PoolConnection;
use sqlx::{Result, Sqlite, SqliteConnection, SqlitePool};
use std::borrow::Cow;
use std::cell::RefCell;
use std::error::Error as StdError;
use std::fmt::{self, Display, Formatter};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task_local;
use tokio::time::timeout;

/// How a group ended, once it has.
type End = Option<Result<(), Arc<sqlx::Error>>>;

/// The one connection that writes. Clones share it.
#[derive(Clone, Debug)]
pub struct Writer {
    pool: SqlitePool,
    /// Fair: who asks first is first.
    turn: Arc<Mutex<Option<Group>>>,
}

/// A transaction, from before its first statement.
#[derive(Debug)]
struct Group {
    connection: PoolConnection<Sqlite>,
    end: watch::Sender<End>,
    place: Place,
    /// Whether a part was committed.
    has_kept: bool,
    /// Whether its one member shares it with nobody.
    is_alone: bool,
}

/// Where the transaction stands. `true` and `false` are the names of savepoints, which alternate: a
/// member whose entrance failed has none of its name, and is not taken for the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has not begun.
    Before,
    /// A savepoint has nothing in it.
    Fresh(bool),
    /// A member writes after its savepoint, or ended without a commit.
    Open(bool),
    /// A member committed what is after its savepoint.
    Kept(bool),
}

/// One writer's part of a transaction. Dropping it rolls that part back.
#[derive(Debug)]
pub struct Member {
    group: OwnedMutexGuard<Option<Group>>,
    entry: Entry,
}

/// Whether a member has its savepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// Nothing was run yet.
    Due,
    /// The first statement was sent, with the entrance before it.
    Tried,
    /// It worked.
    Done,
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
    for mut group in seen {
        told(group.wait_for(Option::is_some).await.as_deref().ok().unwrap_or(&None))?;
    }
    Ok(result)
}

impl Writer {
    /// Writes on the connections of `pool`, of which there is one.
    pub fn new(pool: SqlitePool) -> Self {
        Self { pool, turn: Arc::default() }
    }

    /// The pool, for what is no transaction.
    pub fn pool(&self) -> &SqlitePool {
        &self.pool
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
            *turn = Some(Group::new(self.pool.acquire().await?, is_alone));
            let next = self.turn.clone().lock_owned();
            tokio::spawn(async move { close(&mut *next.await, Ok(())).await });
        }
        Ok(Member { group: turn, entry: Entry::Due })
    }
}

/// Makes the group one that the next member can enter, or ends it.
async fn clear(turn: &mut Option<Group>, is_alone: bool) {
    let Some(group) = turn else { return };
    if is_alone || group.is_alone {
        close(turn, Ok(())).await;
    } else if let Err(error) = group.roll_back().await {
        // SQLite has rolled back all of it, as it does when the disk is full.
        close(turn, Err(error)).await;
    }
}

/// Ends the group, if there is one, and tells its members.
async fn close(turn: &mut Option<Group>, so_far: Result<()>) {
    let Some(mut group) = turn.take() else { return };
    let end = match so_far {
        Ok(()) => group.commit().await,
        Err(error) => Err(error),
    };
    if end.is_err() {
        // Where SQLite has done so already, there is nothing to be rolled back.
        let _ = run(&mut group.connection, "ROLLBACK").await;
    }
    group.end.send_replace(Some(end.map_err(Arc::new)));
}

/// Runs a statement that is kept prepared, which a text without arguments is not.
async fn run(connection: &mut SqliteConnection, sql: &'static str) -> Result<()> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

impl Group {
    fn new(connection: PoolConnection<Sqlite>, is_alone: bool) -> Self {
        let end = watch::Sender::new(None);
        Self { connection, end, place: Place::Before, has_kept: false, is_alone }
    }

    /// What to run before the first statement of a member. Whether that worked shows at the end: who
    /// comes next asks for the savepoint.
    fn enter(&mut self) -> &'static str {
        let (savepoint, sql) = match self.place {
            Place::Before => (false, "BEGIN IMMEDIATE; SAVEPOINT a; "),
            Place::Kept(false) => (true, "RELEASE a; SAVEPOINT b; "),
            Place::Kept(true) => (false, "RELEASE b; SAVEPOINT a; "),
            Place::Fresh(savepoint) | Place::Open(savepoint) => (savepoint, ""),
        };
        self.place = Place::Open(savepoint);
        sql
    }

    /// What undoes what the last member did. It fails where SQLite has rolled the transaction back, or
    /// never began it.
    fn undo(&self) -> &'static str {
        match self.place {
            Place::Open(false) => "ROLLBACK TO a; ",
            Place::Open(true) => "ROLLBACK TO b; ",
            _ => "",
        }
    }

    async fn roll_back(&mut self) -> Result<()> {
        if let Place::Open(savepoint) = self.place {
            let sql = self.undo();
            run(&mut self.connection, sql).await?;
            self.place = Place::Fresh(savepoint);
        }
        Ok(())
    }

    /// Makes last what there is of it.
    async fn commit(&mut self) -> Result<()> {
        if self.place == Place::Before {
            return Ok(());
        }
        if !self.has_kept {
            // A COMMIT would write pages that were changed and changed back.
            return run(&mut self.connection, "ROLLBACK").await;
        }
        self.roll_back().await?;
        run(&mut self.connection, "COMMIT").await
    }
}

impl Member {
    /// What to run before the next statement and in one text with it; say [`Self::entered`] when that
    /// worked. After a first statement that failed, this makes sure of the savepoint: without a
    /// transaction the second one would be committed by itself.
    pub fn entrance(&mut self) -> &'static str {
        let Some(group) = &mut *self.group else { return "" };
        match std::mem::replace(&mut self.entry, Entry::Tried) {
            Entry::Due => group.enter(),
            Entry::Tried => group.undo(),
            Entry::Done => {
                self.entered();
                ""
            }
        }
    }

    /// The entrance worked.
    pub fn entered(&mut self) {
        self.entry = Entry::Done;
    }

    /// The connection, for statements that cannot have anything before them.
    pub async fn connection(&mut self) -> Result<&mut SqliteConnection> {
        let entrance = self.entrance();
        if !entrance.is_empty() {
            run(self, entrance).await?;
        }
        self.entered();
        Ok(self)
    }

    /// Comes back when what it wrote is on the disk.
    pub async fn commit(mut self) -> Result<()> {
        let group = self.group.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let Place::Open(savepoint) = group.place else { return Ok(()) };
        group.place = Place::Kept(savepoint);
        group.has_kept = true;
        self.end().await
    }

    /// Undoes it. Comes back when what it saw is on the disk, for whoever reads it next.
    pub async fn rollback(self) -> Result<()> {
        let group = self.group.as_ref().ok_or(sqlx::Error::WorkerCrashed)?;
        if self.entry != Entry::Due && group.has_kept { self.end().await } else { Ok(()) }
    }

    async fn end(self) -> Result<()> {
        let group = self.group.as_ref().ok_or(sqlx::Error::WorkerCrashed)?;
        let mut end = group.end.subscribe();
        drop(self); // the next one joins, or the closer commits
        told(end.wait_for(Option::is_some).await.as_deref().ok().unwrap_or(&None))
    }
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

/// What a member is told of the end of its group.
fn told(end: &End) -> Result<()> {
    match end {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(shared(error)),
        None => Err(sqlx::Error::WorkerCrashed),
    }
}

impl Deref for Member {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.group.as_ref().expect(OPEN).connection
    }
}

impl DerefMut for Member {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.group.as_mut().expect(OPEN).connection
    }
}

const OPEN: &str = "a member's group is open, as nobody else has the turn";

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
