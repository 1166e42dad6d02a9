//! Finds keys by their secrets, mostly in memory.
//!
//! A key is never served as it was before a change: every look-up that began before the change
//! counts as old from then on, whether its result is in the cache already or still on its way.

use super::key::{Key, KeyRow, columns};
use super::secret::{self, Hash};
use crate::core::error::Result;
use crate::db::{Db, query};
use moka::sync::Cache;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Most keys remembered. Only keys that exist are: made-up ones cost no memory.
const MAX_KEYS: u64 = 10_000;
/// No key is remembered for longer, whatever happens.
const MAX_AGE: Duration = Duration::from_secs(10);
/// Keys share marks of change by their ids; those of a changed key's mark are looked up anew.
const MARKS: usize = 1024;

/// Every key, by its secret. Clones share the cache.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    db: Db,
    cache: Cache<Hash, Entry>,
    /// Counts changes. A look-up takes its number before it asks the database.
    epoch: AtomicU64,
    /// The epoch of the last change of all keys at once.
    all_changed: AtomicU64,
    /// The epoch of the last change of a key with this mark.
    changed: Box<[AtomicU64]>,
    /// Until when changes by other processes are sure to be noticed, in microseconds from `start`.
    trusted_until: AtomicU64,
    start: Instant,
}

#[derive(Clone)]
struct Entry {
    key: Arc<Key>,
    epoch: u64,
}

impl Debug for Keys {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("cached", &self.len()).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys in `db`. Nothing is served from memory until [`Keys::trust_until`] says that
    /// changes by others would be noticed.
    pub fn new(db: Db) -> Self {
        let cache = Cache::builder().max_capacity(MAX_KEYS).time_to_live(MAX_AGE).build();
        Self(Arc::new(Inner {
            db,
            cache,
            epoch: AtomicU64::new(1),
            all_changed: AtomicU64::new(0),
            changed: (0..MARKS).map(|_| AtomicU64::new(0)).collect(),
            trusted_until: AtomicU64::new(0),
            start: Instant::now(),
        }))
    }

    /// The key with this secret, be it good or not.
    pub async fn find(&self, key: &str) -> Result<Option<Arc<Key>>> {
        self.find_by_hash(secret::hash(key)).await
    }

    /// The key whose secret has this hash.
    pub(super) async fn find_by_hash(&self, hash: Hash) -> Result<Option<Arc<Key>>> {
        if let Some(entry) = self.0.cache.get(&hash)
            && self.is_current(&entry)
        {
            return Ok(Some(entry.key));
        }
        // Before the database is asked: a change that commits meanwhile has a later number.
        let epoch = self.0.epoch.load(Ordering::SeqCst);
        let Some(row) = self.load(hash).await? else { return Ok(None) };
        let key = Arc::new(Key::from(row));
        self.0.cache.insert(hash, Entry { key: key.clone(), epoch });
        Ok(Some(key))
    }

    async fn load(&self, hash: Hash) -> sqlx::Result<Option<KeyRow>> {
        const SQL: &str = concat!("SELECT ", columns!(), " FROM api_keys WHERE key_hash = $1");
        query(&self.0.db, SQL).bind(hash.to_vec()).optional().await
    }

    fn is_current(&self, entry: &Entry) -> bool {
        let inner = &*self.0;
        entry.epoch >= inner.mark(entry.key.id).load(Ordering::SeqCst)
            && entry.epoch >= inner.all_changed.load(Ordering::SeqCst)
            && self.micros(Instant::now()) < inner.trusted_until.load(Ordering::SeqCst)
    }

    /// To be called after a change of key `id` was committed, or may have been: the next look-up
    /// sees it.
    pub fn changed(&self, id: i64) {
        let epoch = self.0.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.mark(id).fetch_max(epoch, Ordering::SeqCst);
    }

    /// To be called when any key may have changed.
    pub fn all_changed(&self) {
        let epoch = self.0.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.all_changed.fetch_max(epoch, Ordering::SeqCst);
    }

    /// Serves keys from memory until `end`: until then, changes by other processes are told of.
    pub fn trust_until(&self, end: Instant) {
        self.0.trusted_until.fetch_max(self.micros(end), Ordering::SeqCst);
    }

    /// Serves no key from memory until it is told to again.
    pub fn distrust(&self) {
        self.0.trusted_until.store(0, Ordering::SeqCst);
    }

    /// Keys remembered now, about.
    pub fn len(&self) -> u64 {
        self.0.cache.entry_count()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn micros(&self, at: Instant) -> u64 {
        let micros = at.saturating_duration_since(self.0.start).as_micros();
        u64::try_from(micros).unwrap_or(u64::MAX)
    }
}

impl Inner {
    fn mark(&self, id: i64) -> &AtomicU64 {
        let index = usize::try_from(id).unwrap_or_default() % MARKS;
        &self.changed[index]
    }
}
