//! Finds API keys by the hash of their secret, with a cache in memory.
//!
//! The cache never returns a key from before a change: a change invalidates every look-up that
//! began before it, whether the result is in the cache already or the database query is still
//! running.

use super::key::Key;
use super::repository;
use super::secret::SecretHash;
use crate::core::error::Result;
use crate::db::Db;
use moka::sync::Cache;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Maximum number of cached keys. Only existing keys are cached: unknown ones use no memory.
const MAX_KEYS: u64 = 10_000;
/// Maximum time a key stays in the cache.
const MAX_AGE: Duration = Duration::from_secs(10);
/// Number of invalidation slots. Keys share slots by their ids; a change invalidates every key of
/// the slot.
const SLOTS: usize = 1024;

/// The API keys of a database, with a cache. Clones share the cache.
#[derive(Clone)]
pub struct KeyCache(Arc<Inner>);

struct Inner {
    db: Db,
    cache: Cache<SecretHash, Entry>,
    /// Incremented by each change. A look-up reads it before it queries the database.
    epoch: AtomicU64,
    /// The epoch of the last invalidation of all keys.
    invalidate_all: AtomicU64,
    /// The epoch of the last change of a key in each slot.
    changed: Box<[AtomicU64]>,
    /// Cached keys may be used until this time, in microseconds from `start`: until then, changes
    /// by other processes are detected.
    trusted_until: AtomicU64,
    start: Instant,
}

#[derive(Clone)]
struct Entry {
    key: Arc<Key>,
    epoch: u64,
}

impl Debug for KeyCache {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("cached", &self.len()).finish_non_exhaustive()
    }
}

impl KeyCache {
    /// An empty cache of the keys in `db`. It is not used before the first
    /// [`KeyCache::enable_until`].
    pub fn new(db: Db) -> Self {
        let cache = Cache::builder().max_capacity(MAX_KEYS).time_to_live(MAX_AGE).build();
        Self(Arc::new(Inner {
            db,
            cache,
            epoch: AtomicU64::new(1),
            invalidate_all: AtomicU64::new(0),
            changed: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            trusted_until: AtomicU64::new(0),
            start: Instant::now(),
        }))
    }

    /// Finds the key with this secret, whether it is valid or not.
    pub async fn find(&self, key: &str) -> Result<Option<Arc<Key>>> {
        self.find_by_hash(SecretHash::of(key)).await
    }

    /// Finds the key whose secret has this hash.
    pub(super) async fn find_by_hash(&self, hash: SecretHash) -> Result<Option<Arc<Key>>> {
        if let Some(entry) = self.0.cache.get(&hash)
            && self.is_current(&entry)
        {
            return Ok(Some(entry.key));
        }
        // Read before the query: a change that commits during the query gets a later epoch.
        let epoch = self.0.epoch.load(Ordering::SeqCst);
        let found = repository::key_by_hash(&self.0.db, hash).await?;
        let Some(key) = found.map(Arc::new) else { return Ok(None) };
        self.0.cache.insert(hash, Entry { key: key.clone(), epoch });
        Ok(Some(key))
    }

    fn is_current(&self, entry: &Entry) -> bool {
        let inner = &*self.0;
        entry.epoch >= inner.slot(entry.key.id).load(Ordering::SeqCst)
            && entry.epoch >= inner.invalidate_all.load(Ordering::SeqCst)
            && self.micros(Instant::now()) < inner.trusted_until.load(Ordering::SeqCst)
    }

    /// Invalidates key `id`. Call it after a change was committed, or may have been committed.
    pub fn changed(&self, id: i64) {
        let epoch = self.0.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.slot(id).fetch_max(epoch, Ordering::SeqCst);
    }

    /// Invalidates every key. Call it if any key may have changed.
    pub fn invalidate_all(&self) {
        let epoch = self.0.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.invalidate_all.fetch_max(epoch, Ordering::SeqCst);
    }

    /// Enables the cache until `end`: until then, changes by other processes are detected.
    pub fn enable_until(&self, end: Instant) {
        self.0.trusted_until.fetch_max(self.micros(end), Ordering::SeqCst);
    }

    /// Disables the cache until the next [`KeyCache::enable_until`].
    pub fn disable(&self) {
        self.0.trusted_until.store(0, Ordering::SeqCst);
    }

    /// Approximate number of cached keys.
    pub fn len(&self) -> u64 {
        self.0.cache.entry_count()
    }

    /// Returns whether no key is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn micros(&self, at: Instant) -> u64 {
        let micros = at.saturating_duration_since(self.0.start).as_micros();
        u64::try_from(micros).unwrap_or(u64::MAX)
    }
}

impl Inner {
    fn slot(&self, id: i64) -> &AtomicU64 {
        let index = usize::try_from(id).unwrap_or_default() % SLOTS;
        &self.changed[index]
    }
}
