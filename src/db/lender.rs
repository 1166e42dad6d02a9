//! Connections to SQLite, lent to one after the other.
//!
//! sqlx's pool asks each connection that comes back whether it still works, in a task made for it: a
//! second walk to SQLite's thread and back for each statement. Here those whose last statement worked
//! are kept in front of the pool, and only the others are asked.

use super::connect::ACQUIRE_TIMEOUT;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Result, Sqlite, SqliteConnection, SqlitePool};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What SQLite says to COMMIT and ROLLBACK where there is no transaction.
pub(super) const NOT_BEGUN: &str = "no transaction is active";

/// A pool's connections. Clones share them.
#[derive(Clone, Debug)]
pub struct Lender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Opens them, in the place of those that are lost, too, and closes them.
    pool: SqlitePool,
    /// As many as the pool opens at most, so that nobody waits for one that is idle here.
    places: Arc<Semaphore>,
    idle: Mutex<Vec<PoolConnection<Sqlite>>>,
}

/// A connection that nobody else has until this is dropped.
#[derive(Debug)]
pub struct Lent {
    /// Gone only once this is dropped.
    connection: Option<PoolConnection<Sqlite>>,
    /// Whether it is in no transaction, and nothing is under way.
    is_sound: bool,
    lender: Lender,
    /// Given back after the connection.
    place: Option<OwnedSemaphorePermit>,
}

impl Lender {
    /// Lends what `pool` has.
    pub fn new(pool: SqlitePool) -> Self {
        let size = pool.options().get_max_connections();
        let places = Arc::new(Semaphore::new(size.try_into().unwrap_or(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Inner { pool, places, idle: Mutex::default() }))
    }

    /// Waits for a connection; who asks first is first. Fails as sqlx's pool does.
    pub async fn lend(&self) -> Result<Lent> {
        let lent = timeout(ACQUIRE_TIMEOUT, self.lend_at_last()).await;
        lent.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn lend_at_last(&self) -> Result<Lent> {
        let place = self.0.places.clone().acquire_owned().await;
        let place = place.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.0.pool.acquire().await?,
        };
        let (connection, place) = (Some(connection), Some(place));
        Ok(Lent { connection, is_sound: true, lender: self.clone(), place })
    }

    /// How connections are opened.
    pub fn options(&self) -> Arc<SqliteConnectOptions> {
        self.0.pool.connect_options()
    }

    /// How many connections are open, and how many of them nobody has.
    pub fn open_and_idle(&self) -> (usize, usize) {
        let idle = self.idle().len() + self.0.pool.num_idle();
        (self.0.pool.size() as usize, idle)
    }

    /// Lends no more, and closes the connections as they come back.
    pub async fn close(&self) {
        self.0.places.close();
        self.idle().clear();
        self.0.pool.close().await;
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PoolConnection<Sqlite>>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_back(&self, connection: PoolConnection<Sqlite>) {
        let mut idle = self.idle();
        if !self.0.places.is_closed() {
            idle.push(connection);
        }
    }
}

impl Lent {
    /// The connection; say [`Self::done`] when all statements have worked, and no transaction is open.
    ///
    /// # Panics
    /// Never: the connection is there.
    pub fn connection(&mut self) -> &mut SqliteConnection {
        self.is_sound = false;
        self.connection.as_mut().expect("it was not dropped")
    }

    /// Whoever is next can have it as it is.
    pub fn done(&mut self) {
        self.is_sound = true;
    }
}

/// The pool would have them come back in tasks, which there may be none any more.
impl Drop for Inner {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        idle.drain(..).for_each(|connection| drop(connection.detach()));
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.is_sound {
            return self.lender.take_back(connection);
        }
        let (lender, place) = (self.lender.clone(), self.place.take());
        tokio::spawn(async move {
            match run(&mut connection, "ROLLBACK").await {
                Err(error) if !says(&error, NOT_BEGUN) => {
                    // Whoever got it next would go on in its transaction.
                    connection.close_on_drop();
                    drop(connection);
                }
                _ => lender.take_back(connection),
            }
            drop(place);
        });
    }
}

/// Runs a statement that is kept prepared, which a text without arguments is not.
pub(super) async fn run(connection: &mut SqliteConnection, sql: &'static str) -> Result<()> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

/// Whether it is an error of SQLite with `text` in it.
pub(super) fn says(error: &sqlx::Error, text: &str) -> bool {
    error.as_database_error().is_some_and(|error| error.message().contains(text))
}
