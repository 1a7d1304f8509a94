//! Tokens, as they are asked for with every request: from memory, looked up anew now and then.
//!
//! `lockhouse token` writes into the database beside the server. So what is in memory is good for a second: a token that
//! was revoked there is refused from then on. One that was revoked here is refused at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use hashlink::LruCache;

use super::{STEP, Service};
use crate::domain::token::{Hash, Lasts, Scope, Token};
use crate::error::Error;
use crate::store::{AsOf, Keys, WorkingSet};
use crate::time::WallTime;

/// How long what is known of a token is good for.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// Most tokens that are known at a time.
const KNOWN: usize = 10_000;
/// A use is written down if it is so much later than the last one that was (milliseconds).
const USE_MS: i64 = 60_000;
/// A token that is over is forgotten after so long (milliseconds): until then the list shows that it was there.
const KEPT_MS: i64 = 24 * 60 * 60 * 1_000;

/// What is known of tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    /// The one that was not used for the longest time makes room for another.
    known: Mutex<LruCache<Hash, Known>>,
    /// How many were revoked: what was read before the last of them may be of one that was.
    revoked: AtomicU64,
    /// When tokens were last used, as far as that is to be written down.
    used: Mutex<HashMap<String, WallTime>>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            known: Mutex::new(LruCache::new(KNOWN)),
            revoked: AtomicU64::default(),
            used: Mutex::default(),
        }
    }
}

/// What is in memory of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recalled {
    /// It was looked up just now; it is good for something, or over.
    Known(Option<Token>),
    /// There was one a while ago. It is to be looked up anew.
    Stale,
    /// Nothing.
    Unknown,
}

#[derive(Debug)]
struct Known {
    token: Token,
    looked_up: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of them is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// What time it is for tokens and their likes: the wall clock.
    #[must_use]
    pub fn wall(&self) -> WallTime {
        self.store.clock().clock().wall()
    }

    /// The token with this hash, if it is good for something now. It counts as used.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn token(&self, hash: &Hash) -> Result<Option<Token>, Error> {
        match self.recall_token(hash) {
            Recalled::Known(token) => Ok(token),
            Recalled::Stale | Recalled::Unknown => {
                let token = self.look_up(hash, self.monotonic())?;
                Ok(self.good_for_something(token))
            }
        }
    }

    /// The same as far as memory goes: nothing is read.
    #[must_use]
    pub fn recall_token(&self, hash: &Hash) -> Recalled {
        let now = self.monotonic();
        let mut known = lock(&self.tokens.known);
        let Some(token) = known.get(hash) else { return Recalled::Unknown };
        if now.saturating_sub(token.looked_up) >= GOOD_FOR {
            return Recalled::Stale;
        }
        let token = token.token.clone();
        drop(known);
        Recalled::Known(self.good_for_something(Some(token)))
    }

    /// The token, if it is not over. It counts as used.
    fn good_for_something(&self, token: Option<Token>) -> Option<Token> {
        let wall = self.wall();
        let token = token.filter(|token| token.is_good(wall));
        if let Some(token) = &token
            && token.last_used_at.is_none_or(|last| wall.0.saturating_sub(last.0) >= USE_MS)
        {
            let mut used = lock(&self.tokens.used);
            if used.len() < KNOWN || used.contains_key(&token.token_id) {
                used.insert(token.token_id.clone(), wall);
            }
        }
        token
    }

    /// Whether credentials are good now. Where it cannot be found out, they are as good as they were.
    #[must_use]
    pub fn are_good(&self, lasts: &Lasts) -> bool {
        match lasts {
            Lasts::Always => true,
            Lasts::Until(end) => self.wall() < *end,
            Lasts::AsLongAs(hash) => !matches!(self.token(hash), Ok(None)),
        }
    }

    fn look_up(&self, hash: &Hash, now: Duration) -> Result<Option<Token>, Error> {
        let revoked = self.tokens.revoked.load(Ordering::SeqCst);
        let found = self.store.read(|rows| rows.token(hash))?.value;
        // How long it takes to find it says something of the hash at most; what decides takes the same time for each.
        let found = found.filter(|(_, stored)| verify_slices_are_equal(stored, hash).is_ok());
        let mut known = lock(&self.tokens.known);
        let Some((token, _)) = found else {
            known.remove(hash);
            return Ok(None);
        };
        if revoked != self.tokens.revoked.load(Ordering::SeqCst) {
            return Ok(Some(token));
        }
        known.insert(*hash, Known { token: token.clone(), looked_up: now });
        Ok(Some(token))
    }

    /// Keeps a new token.
    pub fn create_token(
        &self,
        token: Token,
        hash: Hash,
        reply: impl FnOnce(Result<AsOf<Token>, Error>) + Send + 'static,
    ) {
        let work = move |set: &WorkingSet<'_>| set.create_token(&token, &hash).map(|()| token.clone());
        self.store.submit(Keys::default(), work, reply);
    }

    /// Tokens by id, after `after`, at most `limit`.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn list_tokens(&self, after: &str, limit: usize) -> Result<Vec<Token>, Error> {
        let found = self.store.read(|rows| rows.tokens(after, limit))?.value;
        let used = lock(&self.tokens.used);
        let with_use = |token: Token| {
            let last_used_at = used.get(&token.token_id).copied().or(token.last_used_at);
            Token { last_used_at, ..token }
        };
        Ok(found.into_iter().map(with_use).collect())
    }

    /// Forgets a token, if it is of this scope: from now on it is good for nothing.
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
                let mut known = lock(&service.tokens.known);
                service.tokens.revoked.fetch_add(1, Ordering::SeqCst);
                known.retain(|_, known| known.token.token_id != of);
                drop(known);
                reply(revoked.map(|revoked| revoked.value));
            },
        );
    }

    /// Writes down when tokens were used, and forgets those that are long over: one step of the sweeper.
    ///
    /// # Errors
    /// What keeps the store from writing.
    pub fn tidy_tokens(&self) -> Result<(), Error> {
        let used: Vec<_> = std::mem::take(&mut *lock(&self.tokens.used)).into_iter().collect();
        if !used.is_empty() {
            self.store.write(move |set| {
                used.iter().try_for_each(|(token_id, at)| set.set_token_used(token_id, *at))
            })?;
        }
        let before = WallTime(self.wall().0.saturating_sub(KEPT_MS));
        if self.store.read(|rows| rows.has_tokens_expired_before(before))?.value {
            self.store.write(move |set| set.delete_tokens_expired_before(before, STEP))?;
        }
        Ok(())
    }
}
