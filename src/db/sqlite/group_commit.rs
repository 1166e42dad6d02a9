//! Group commit for SQLite: concurrent transactions share one SQLite transaction, each in its own
//! savepoint, and therefore one disk sync.
//!
//! The transaction that opens a commit group queues a closing task behind the transactions that
//! already wait. They run first, one after another; then the closing task commits for all of them
//! and reports the result. The closing task of a lone transaction runs immediately. A transaction
//! that ends without a commit is rolled back by the next one, so a cancelled caller blocks nothing.
//!
//! `BEGIN` and `SAVEPOINT` are sent to SQLite's thread together with the first statement: a round
//! trip between threads costs more than most statements ([`GroupedTransaction::enter`]).
//!
//! A transaction sees what earlier transactions of its group wrote, which may not be durable yet. A
//! conclusion from that ("the name is taken") must not be reported before it is: see [`settled`].

use super::open_files::OpenFiles;
use super::pool::{ConnectionPool, NOT_BEGUN, PooledConnection, message_contains, run};
use crate::core::transient_error::LostFile;
use crate::db::timeout::ACQUIRE_TIMEOUT;
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

/// Result of a commit group; `None` until it has ended.
type GroupResult = Option<Result<(), Arc<sqlx::Error>>>;

/// The write connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Writer {
    pool: ConnectionPool,
    /// The current commit group. The running transaction holds the lock, which is fair: first come,
    /// first served.
    current: Arc<Mutex<Option<Group>>>,
    /// Checked before each transaction and after each commit.
    files: Option<OpenFiles>,
}

/// An SQLite transaction that several transactions share, from before its first statement.
#[derive(Debug)]
struct Group {
    connection: PooledConnection,
    end: watch::Sender<GroupResult>,
    stage: Stage,
    /// Whether any of its transactions committed.
    has_commits: bool,
    /// Whether it consists of one transaction and admits no other.
    is_exclusive: bool,
    files: Option<OpenFiles>,
}

/// Progress of the SQLite transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// `BEGIN` was not sent.
    NotBegun,
    /// The savepoint is empty.
    Empty(Savepoint),
    /// A transaction runs in the savepoint, or ended without a commit.
    Open(Savepoint),
    /// The transaction in the savepoint committed.
    Committed(Savepoint),
}

/// Names of savepoints, used alternately. If the first statements of a transaction fail or are
/// cancelled, its savepoint does not exist and is not mistaken for the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Savepoint {
    A,
    B,
}

/// A transaction in a commit group. Dropping it rolls back its savepoint.
#[derive(Debug)]
pub struct GroupedTransaction {
    group: OwnedMutexGuard<Option<Group>>,
    state: State,
}

/// Whether the next statement of a transaction can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No statement was sent.
    New,
    /// All statements so far succeeded.
    Ready,
    /// A statement was sent. If it fails or is cancelled, the state is final, as on Postgres:
    /// SQLite may have rolled everything back, and would run the next statement outside a
    /// transaction.
    Pending,
}

task_local! {
    /// Commit groups whose writes this task saw before they were durable.
    static OBSERVED: RefCell<Vec<watch::Receiver<GroupResult>>>;
}

/// Runs `work`, then waits until everything that its transactions saw is durable, including
/// transactions that changed nothing. Fails if a commit group failed: the result of `work` then
/// rests on data that was rolled back.
pub async fn settled<T>(work: impl Future<Output = T>) -> Result<T> {
    let both = async {
        let result = work.await;
        (result, OBSERVED.with(RefCell::take))
    };
    let (result, seen) = OBSERVED.scope(RefCell::default(), both).await;
    for group in seen {
        group_result(group).await?;
    }
    Ok(result)
}

impl Writer {
    /// Creates a writer on a pool of one connection. Transactions fail while one of `files` is
    /// lost.
    pub fn new(pool: ConnectionPool, files: Option<OpenFiles>) -> Self {
        Self { pool, current: Arc::default(), files }
    }

    /// Fails if a file of the database was removed or replaced. Logs the loss once, and its end.
    pub fn check_files(&self) -> Result<()> {
        check(self.files.as_ref())
    }

    /// The pool of the connection, for statements outside a transaction.
    pub fn pool(&self) -> &ConnectionPool {
        &self.pool
    }

    /// Waits for the connection and joins the current commit group, or opens one of its own if
    /// `is_exclusive`.
    pub async fn begin(&self, is_exclusive: bool) -> Result<GroupedTransaction> {
        self.check_files()?;
        let current = timeout(ACQUIRE_TIMEOUT, self.current.clone().lock_owned()).await;
        let mut current = current.map_err(|_| sqlx::Error::PoolTimedOut)?;
        if let Some(group) = &*current
            && (is_exclusive || group.is_exclusive || matches!(group.stage, Stage::Open(_)))
        {
            // In a separate task, which a cancelled caller cannot interrupt.
            let cleared = tokio::spawn(async move {
                clear(&mut current, is_exclusive).await;
                current
            });
            current = cleared.await.map_err(|_| sqlx::Error::WorkerCrashed)?;
        }
        if current.is_none() {
            *current =
                Some(Group::new(self.pool.acquire().await?, is_exclusive, self.files.clone()));
            let next = self.current.clone().lock_owned();
            tokio::spawn(async move { close(&mut *next.await).await });
        }
        Ok(GroupedTransaction { group: current, state: State::New })
    }
}

fn check(files: Option<&OpenFiles>) -> Result<()> {
    files.map_or(Ok(()), OpenFiles::check)
}

/// Makes the group ready for the next transaction, or closes it.
async fn clear(current: &mut Option<Group>, is_exclusive: bool) {
    let Some(group) = current else { return };
    if is_exclusive || group.is_exclusive || group.rollback_open().await.is_err() {
        close(current).await;
    }
}

/// Commits the group, if there is one, and reports the result to its transactions.
async fn close(current: &mut Option<Group>) {
    let Some(mut group) = current.take() else { return };
    let end = group.commit().await;
    if end.is_ok() {
        group.connection.mark_clean();
    }
    group.end.send_replace(Some(end.map_err(Arc::new)));
}

/// SQLite's error message for a missing savepoint.
const NO_SAVEPOINT: &str = "no such savepoint";

impl Group {
    fn new(connection: PooledConnection, is_exclusive: bool, files: Option<OpenFiles>) -> Self {
        let end = watch::Sender::new(None);
        Self { connection, end, stage: Stage::NotBegun, has_commits: false, is_exclusive, files }
    }

    /// Returns the SQL to run before the first statement of a transaction. If that SQL fails, the
    /// next transaction finds the savepoint missing.
    fn enter(&mut self) -> &'static str {
        let (name, sql) = match self.stage {
            Stage::NotBegun => (Savepoint::A, "BEGIN IMMEDIATE; SAVEPOINT a; "),
            Stage::Committed(Savepoint::A) => (Savepoint::B, "RELEASE a; SAVEPOINT b; "),
            Stage::Committed(Savepoint::B) => (Savepoint::A, "RELEASE b; SAVEPOINT a; "),
            Stage::Empty(name) | Stage::Open(name) => (name, ""),
        };
        self.stage = Stage::Open(name);
        sql
    }

    /// Rolls back the last transaction if it did not commit.
    async fn rollback_open(&mut self) -> Result<()> {
        let (name, sql) = match self.stage {
            Stage::Open(Savepoint::A) => (Savepoint::A, "ROLLBACK TO a"),
            Stage::Open(Savepoint::B) => (Savepoint::B, "ROLLBACK TO b"),
            _ => return Ok(()),
        };
        run(self.connection.connection(), sql).await?;
        self.stage = Stage::Empty(name);
        Ok(())
    }

    /// Commits the SQLite transaction. Fails if SQLite has rolled it back, as it does when the disk
    /// is full.
    async fn commit(&mut self) -> Result<()> {
        if self.stage == Stage::NotBegun {
            return Ok(());
        }
        if !self.has_commits {
            // COMMIT would write pages that were changed and then restored.
            return run(self.connection.connection(), "ROLLBACK").await;
        }
        match self.rollback_open().await {
            // Without the savepoint, no statement after it ran.
            Err(error) if !message_contains(&error, NO_SAVEPOINT) => return Err(error),
            _ => {}
        }
        match run(self.connection.connection(), "COMMIT").await {
            // The transaction whose statement caused the rollback has received the cause.
            Err(error) if message_contains(&error, NOT_BEGUN) => Err(sqlx::Error::WorkerCrashed),
            // What was committed to a removed file is not durable.
            Ok(()) => check(self.files.as_ref()),
            end => end,
        }
    }
}

impl GroupedTransaction {
    /// Returns the connection and the SQL to prepend to the next statement. Call [`Self::mark_succeeded`]
    /// when that statement succeeded. Fails after a statement that did not.
    pub fn enter(&mut self) -> Result<(&mut SqliteConnection, &'static str)> {
        let group = self.group.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let before = match std::mem::replace(&mut self.state, State::Pending) {
            State::New => group.enter(),
            State::Ready => "",
            State::Pending => return Err(failed()),
        };
        Ok((group.connection.connection(), before))
    }

    /// Records that the last statement succeeded.
    pub fn mark_succeeded(&mut self) {
        self.state = State::Ready;
    }

    /// Runs the SQL of [`Self::enter`] separately, for a statement that must be alone in its text.
    pub async fn enter_alone(&mut self) -> Result<()> {
        if self.state == State::New {
            let (connection, before) = self.enter()?;
            if !before.is_empty() {
                run(connection, before).await?;
            }
            self.mark_succeeded();
        }
        Ok(())
    }

    /// Commits. Returns when the writes are durable.
    pub async fn commit(mut self) -> Result<()> {
        let group = self.group.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let Stage::Open(name) = group.stage else { return Ok(()) };
        if self.state != State::Ready {
            return Err(failed());
        }
        group.stage = Stage::Committed(name);
        group.has_commits = true;
        self.end().await
    }

    /// Leaves the writes to be rolled back by the next transaction. Returns when everything that
    /// this transaction saw is durable, so that the caller can report it.
    pub async fn rollback(self) -> Result<()> {
        let group = self.group.as_ref().ok_or(sqlx::Error::WorkerCrashed)?;
        if self.state != State::New && group.has_commits { self.end().await } else { Ok(()) }
    }

    async fn end(self) -> Result<()> {
        let group = self.group.as_ref().ok_or(sqlx::Error::WorkerCrashed)?;
        let end = group.end.subscribe();
        drop(self); // the next transaction joins, or the closing task commits
        group_result(end).await
    }
}

fn failed() -> sqlx::Error {
    sqlx::Error::Protocol("a statement of this transaction failed".into())
}

impl Drop for GroupedTransaction {
    fn drop(&mut self) {
        if let Some(group) = &*self.group
            && group.has_commits
            && matches!(group.stage, Stage::Open(_))
        {
            // Outside `settled` there is no response to delay.
            let _ = OBSERVED.try_with(|seen| seen.borrow_mut().push(group.end.subscribe()));
        }
    }
}

/// Waits until the commit group has ended and returns its result.
async fn group_result(mut end: watch::Receiver<GroupResult>) -> Result<()> {
    match end.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(Ok(()))) => Ok(()),
        Ok(Some(Err(error))) => Err(shared(error)),
        _ => Err(sqlx::Error::WorkerCrashed),
    }
}

/// Copies the error of a commit group for each of its transactions.
fn shared(error: &Arc<sqlx::Error>) -> sqlx::Error {
    match &**error {
        sqlx::Error::Database(_) => sqlx::Error::Database(Box::new(Shared(error.clone()))),
        sqlx::Error::Io(cause) => LostFile::of(cause)
            .map_or(sqlx::Error::WorkerCrashed, |lost| sqlx::Error::Io(lost.into())),
        _ => sqlx::Error::WorkerCrashed,
    }
}

/// A database error that several transactions share.
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
