//! Use cases on tokens. Every request checks a token, so lookups are cached for a short time.
//!
//! `lockhouse token` writes to the database from another process. So a cache entry is valid for one second: a
//! token that was revoked there is refused after that. A token that was revoked by this server is refused at
//! once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashlink::LruCache;
use subtle::ConstantTimeEq as _;

use super::{STEP, Service};
use crate::domain::token::{Hash, Scope, Token, Validity};
use crate::error::Error;
use crate::store::{Keys, Reply, WorkingSet};
use crate::time::WallTime;

/// How long a cache entry is valid.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// Maximum number of cached tokens.
const CACHE_SIZE: usize = 10_000;
/// A use is stored if it is at least this much later than the last stored use (milliseconds).
const USE_RESOLUTION_MS: i64 = 60_000;
/// An expired token is deleted this long after its end (milliseconds). Until then the list shows it.
const KEEP_EXPIRED_MS: i64 = 24 * 60 * 60 * 1_000;

/// Cache of tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    /// LRU cache: the least recently used token makes room for a new one.
    cache: Mutex<LruCache<Hash, CachedToken>>,
    /// Number of revocations. A row that was read before the last revocation may belong to a revoked token,
    /// so it is not cached.
    revoked: AtomicU64,
    /// Times of last use that are not stored yet, by token id.
    used: Mutex<HashMap<String, WallTime>>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            cache: Mutex::new(LruCache::new(CACHE_SIZE)),
            revoked: AtomicU64::default(),
            used: Mutex::default(),
        }
    }
}

/// Result of a cache lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheLookup {
    /// A valid cache entry: the token, or `None` if it has expired.
    Hit(Option<Token>),
    /// The entry is too old. The token must be looked up in the store.
    Stale,
    /// No entry.
    Miss,
}

#[derive(Debug)]
struct CachedToken {
    token: Token,
    loaded_at: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Wall clock time, for the validity of credentials.
    #[must_use]
    pub fn wall(&self) -> WallTime {
        self.store.clock().clock().wall()
    }

    /// Returns the token with this hash if it is valid now, and counts it as used.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn token(&self, hash: &Hash) -> Result<Option<Token>, Error> {
        match self.cached_token(hash) {
            CacheLookup::Hit(token) => Ok(token),
            CacheLookup::Stale | CacheLookup::Miss => {
                let token = self.look_up(hash, self.monotonic())?;
                Ok(self.valid_and_recorded(token))
            }
        }
    }

    /// Like [`Self::token`], from the cache only. Reads nothing from the store.
    #[must_use]
    pub fn cached_token(&self, hash: &Hash) -> CacheLookup {
        let now = self.monotonic();
        let mut cache = lock(&self.tokens.cache);
        let Some(token) = cache.get(hash) else { return CacheLookup::Miss };
        if now.saturating_sub(token.loaded_at) >= CACHE_TTL {
            return CacheLookup::Stale;
        }
        let token = token.token.clone();
        drop(cache);
        CacheLookup::Hit(self.valid_and_recorded(Some(token)))
    }

    /// Returns the token if it has not expired, and counts it as used.
    fn valid_and_recorded(&self, token: Option<Token>) -> Option<Token> {
        let wall = self.wall();
        let token = token.filter(|token| token.is_valid(wall));
        if let Some(token) = &token
            && token.last_used_at.is_none_or(|last| wall.0.saturating_sub(last.0) >= USE_RESOLUTION_MS)
        {
            let mut used = lock(&self.tokens.used);
            if used.len() < CACHE_SIZE || used.contains_key(&token.token_id) {
                used.insert(token.token_id.clone(), wall);
            }
        }
        token
    }

    /// Whether credentials are valid now. If the store cannot be read, they count as valid.
    #[must_use]
    pub fn are_valid(&self, validity: &Validity) -> bool {
        match validity {
            Validity::Unlimited => true,
            Validity::Until(end) => self.wall() < *end,
            Validity::WhileTokenValid(hash) => !matches!(self.token(hash), Ok(None)),
        }
    }

    fn look_up(&self, hash: &Hash, now: Duration) -> Result<Option<Token>, Error> {
        let revoked = self.tokens.revoked.load(Ordering::SeqCst);
        let found = self.store.read(|rows| rows.token(hash))?.value;
        // The timing of the lookup can reveal something about the hash at most. The deciding comparison takes
        // constant time.
        let found = found.filter(|(_, stored)| stored.ct_eq(hash).into());
        let mut cache = lock(&self.tokens.cache);
        let Some((token, _)) = found else {
            cache.remove(hash);
            return Ok(None);
        };
        if revoked != self.tokens.revoked.load(Ordering::SeqCst) {
            return Ok(Some(token));
        }
        cache.insert(*hash, CachedToken { token: token.clone(), loaded_at: now });
        Ok(Some(token))
    }

    /// Stores a new token.
    pub fn create_token(&self, token: Token, hash: Hash, reply: impl Reply<Token>) {
        let work = move |set: &WorkingSet<'_>| set.create_token(&token, &hash).map(|()| token.clone());
        self.store.submit(Keys::default(), work, reply);
    }

    /// Returns tokens, ordered by id, after `after`, at most `limit`.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn list_tokens(&self, after: &str, limit: usize) -> Result<Vec<Token>, Error> {
        let found = self.store.read(|rows| rows.tokens(after, limit))?.value;
        let used = lock(&self.tokens.used);
        let with_use = |token: Token| {
            let last_used_at = used.get(&token.token_id).copied().or(token.last_used_at);
            Token { last_used_at, ..token }
        };
        Ok(found.into_iter().map(with_use).collect())
    }

    /// Revokes a token. With `only`, it is revoked only if it has this scope.
    pub fn revoke_token(
        self: &Arc<Self>,
        token_id: String,
        only: Option<Scope>,
        reply: impl FnOnce(Result<bool, Error>) + Send + 'static,
    ) {
        let service = Arc::clone(self);
        let of = token_id.clone();
        self.store.submit(
            Keys::default(),
            move |set| set.revoke_token(&token_id, only),
            move |revoked| {
                let mut cache = lock(&service.tokens.cache);
                service.tokens.revoked.fetch_add(1, Ordering::SeqCst);
                cache.retain(|_, cached| cached.token.token_id != of);
                drop(cache);
                reply(revoked.map(|revoked| revoked.value));
            },
        );
    }

    /// Stores times of last use and deletes tokens that expired long ago. One step of the sweeper.
    ///
    /// # Errors
    /// An error of the store when it cannot write.
    pub fn tidy_tokens(&self) -> Result<(), Error> {
        let used: Vec<_> = std::mem::take(&mut *lock(&self.tokens.used)).into_iter().collect();
        if !used.is_empty() {
            self.store.write(move |set| {
                used.iter().try_for_each(|(token_id, at)| set.set_token_used(token_id, *at))
            })?;
        }
        let before = WallTime(self.wall().0.saturating_sub(KEEP_EXPIRED_MS));
        if self.store.read(|rows| rows.has_tokens_expired_before(before))?.value {
            self.store.write(move |set| set.delete_tokens_expired_before(before, STEP))?;
        }
        Ok(())
    }
}
