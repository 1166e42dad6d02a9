//! Group commit for SQLite: writers that wait for one another share one transaction, each in a
//! savepoint of its own, and so one sync of the disk.
//!
//! Whoever opens a group queues its closer behind those who wait already. They run first, one after
//! the other; then the closer commits for all of them and tells them. The closer of a lone writer runs
//! at once. Nothing depends on a member going on: one that ends without a commit is rolled back by
//! whoever comes next.
//!
//! A member sees what those before it wrote, which may not be on the disk yet. What it concludes from
//! that ("the name is taken") must not be told before it is: see [`settled`].

use super::connect::ACQUIRE_TIMEOUT;
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::pool::PoolConnection;
use sqlx::{Executor, Result, Sqlite, SqliteConnection, SqlitePool};
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

/// An open transaction.
#[derive(Debug)]
struct Group {
    connection: PoolConnection<Sqlite>,
    end: watch::Sender<End>,
    /// Whether its last member committed.
    keeps_last: bool,
    /// Whether one before did.
    has_kept: bool,
}

/// One writer's part of a transaction. Dropping it rolls that part back.
#[derive(Debug)]
pub struct Member(OwnedMutexGuard<Option<Group>>);

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

    /// Waits for a turn, and begins.
    pub async fn begin(&self) -> Result<Member> {
        let turn = timeout(ACQUIRE_TIMEOUT, self.turn.clone().lock_owned()).await;
        let turn = turn.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let writer = self.clone();
        // In a task of its own, so that a caller who goes away cannot stop between two of its steps.
        let begun = tokio::spawn(async move { writer.begin_in(turn).await }).await;
        begun.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    async fn begin_in(&self, mut turn: OwnedMutexGuard<Option<Group>>) -> Result<Member> {
        if let Some(group) = &mut *turn {
            match group.join().await {
                Ok(()) => return Ok(Member(turn)),
                // SQLite has rolled back all of it, as it does when the disk is full.
                Err(error) => close(&mut turn, Err(error)).await,
            }
        }
        *turn = Some(Group::open(self.pool.acquire().await?).await?);
        let next = self.turn.clone().lock_owned();
        tokio::spawn(async move { close(&mut *next.await, Ok(())).await });
        Ok(Member(turn))
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
        let _ = group.connection.execute("ROLLBACK").await;
    }
    group.end.send_replace(Some(end.map_err(Arc::new)));
}

impl Group {
    async fn open(mut connection: PoolConnection<Sqlite>) -> Result<Self> {
        if let Err(error) = connection.execute("BEGIN IMMEDIATE; SAVEPOINT member").await {
            let _ = connection.execute("ROLLBACK").await;
            return Err(error);
        }
        Ok(Self { connection, end: watch::Sender::new(None), keeps_last: false, has_kept: false })
    }

    /// Lets the next one in. Either statement fails where SQLite has rolled the transaction back.
    async fn join(&mut self) -> Result<()> {
        let sql = match self.keeps_last {
            true => "RELEASE member; SAVEPOINT member",
            false => "ROLLBACK TO member",
        };
        self.has_kept |= self.keeps_last;
        self.keeps_last = false;
        self.connection.execute(sql).await.map(drop)
    }

    /// Makes last what there is of it.
    async fn commit(&mut self) -> Result<()> {
        let sql = match (self.keeps_last, self.has_kept) {
            (true, _) => "COMMIT",
            (false, true) => "ROLLBACK TO member; COMMIT",
            // A COMMIT would write pages that were changed and changed back.
            (false, false) => "ROLLBACK",
        };
        self.connection.execute(sql).await.map(drop)
    }
}

impl Member {
    /// Comes back when what it wrote is on the disk.
    pub async fn commit(mut self) -> Result<()> {
        let group = self.0.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        group.keeps_last = true;
        self.end().await
    }

    /// Undoes it. Comes back when what it saw is on the disk, for whoever reads it next.
    pub async fn rollback(self) -> Result<()> {
        let group = self.0.as_ref().ok_or(sqlx::Error::WorkerCrashed)?;
        if group.has_kept { self.end().await } else { Ok(()) }
    }

    async fn end(self) -> Result<()> {
        let group = self.0.as_ref().ok_or(sqlx::Error::WorkerCrashed)?;
        let mut end = group.end.subscribe();
        drop(self); // the next one joins, or the closer commits
        told(end.wait_for(Option::is_some).await.as_deref().ok().unwrap_or(&None))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(group) = &*self.0
            && group.has_kept
            && !group.keeps_last
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
        &self.0.as_ref().expect(OPEN).connection
    }
}

impl DerefMut for Member {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.0.as_mut().expect(OPEN).connection
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
