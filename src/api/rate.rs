//! The rate limit of requests: a token bucket for each caller.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The size of a bucket, as the time in which it fills: a caller may send that many requests at once.
const BURST: Duration = Duration::from_secs(10);
/// The limit of buckets. Beyond it, the fullest bucket is dropped.
///
/// The caller of the fullest bucket loses the least by it. A caller who has used up their bucket stays
/// limited, however many others come.
const MAX_BUCKETS: usize = 100_000;

/// A limit on requests.
#[derive(Debug)]
pub struct RateLimit {
    /// The time between two requests at the full rate.
    interval: Duration,
    /// The size of a bucket, as the time in which it fills.
    burst: Duration,
    most: usize,
    buckets: Mutex<Buckets>,
}

/// The buckets. Each is stored as the time when it is full (generic cell rate algorithm, ITU-T I.371).
///
/// Full buckets need not be stored.
#[derive(Debug, Default)]
struct Buckets {
    full_at: HashMap<Arc<str>, Duration>,
    /// The same buckets, ordered by time.
    by_time: BTreeSet<(Duration, Arc<str>)>,
}

impl RateLimit {
    /// A limit of `per_second` requests for each caller.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            burst: BURST,
            most: MAX_BUCKETS,
            buckets: Mutex::default(),
        }
    }

    /// A limit of `count` requests a minute for each caller, which may come at once.
    #[must_use]
    pub fn per_minute(count: u32) -> Self {
        let burst = Duration::from_secs(60);
        Self { interval: burst / count.max(1), burst, most: MAX_BUCKETS, buckets: Mutex::default() }
    }

    /// Counts one request of `caller`.
    ///
    /// # Errors
    /// The number of seconds to wait before retrying.
    pub fn take(&self, caller: &str, now: Duration) -> Result<(), u64> {
        // No code panics while it holds this lock, so the contents of a poisoned lock are sound.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = self.full_after_one_more(&buckets, caller, now)?;
        buckets.set(caller, full_at);
        // Up to two full buckets are dropped for each request, so that their number shrinks.
        buckets.evict_first_if(|first, _| first <= now);
        buckets.evict_first_if(|first, count| first <= now || count > self.most);
        Ok(())
    }

    /// Checks whether `caller` could send a request, without counting one.
    ///
    /// # Errors
    /// The errors of [`Self::take`].
    pub fn look(&self, caller: &str, now: Duration) -> Result<(), u64> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        self.full_after_one_more(&buckets, caller, now).map(drop)
    }

    /// The time when the bucket would be full after one more request.
    fn full_after_one_more(&self, buckets: &Buckets, caller: &str, now: Duration) -> Result<Duration, u64> {
        let full_at = buckets.full_at.get(caller).copied().unwrap_or_default();
        let after = full_at.max(now).saturating_add(self.interval);
        let wait = after.saturating_sub(now).saturating_sub(self.burst);
        if wait.is_zero() { Ok(after) } else { Err(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)) }
    }
}

impl Buckets {
    fn set(&mut self, caller: &str, full_at: Duration) {
        let known = self.full_at.get_key_value(caller).map(|(caller, before)| (Arc::clone(caller), *before));
        let caller = known.map_or_else(
            || Arc::from(caller),
            |(caller, before)| {
                let entry = (before, caller);
                self.by_time.remove(&entry);
                entry.1
            },
        );
        self.by_time.insert((full_at, Arc::clone(&caller)));
        self.full_at.insert(caller, full_at);
    }

    /// Drops the bucket that is full first, if `so` returns true for that time and the number of buckets.
    fn evict_first_if(&mut self, so: impl FnOnce(Duration, usize) -> bool) {
        if let Some((first, _)) = self.by_time.first()
            && so(*first, self.by_time.len())
            && let Some((_, caller)) = self.by_time.pop_first()
        {
            self.full_at.remove(&caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_a_burst_and_then_a_rate_per_second() {
        let rate = RateLimit::new(2);
        let take = |caller: &str, ms| rate.take(caller, Duration::from_millis(ms));
        for _ in 0..20 {
            assert_eq!(take("alice", 0), Ok(()));
        }
        assert_eq!(take("alice", 0), Err(1));
        assert_eq!(take("bob", 0), Ok(()), "each for themselves");
        assert_eq!(take("alice", 499), Err(1));
        assert_eq!(take("alice", 500), Ok(()));
        assert_eq!(take("alice", 500), Err(1));
        for _ in 0..20 {
            assert_eq!(take("alice", 100_000), Ok(()));
        }
        assert_eq!(take("alice", 100_000), Err(1), "what was not used does not pile up");
    }

    #[test]
    fn a_limited_caller_stays_limited_while_others_are_evicted() {
        let rate = RateLimit { most: 100, ..RateLimit::new(1) };
        for _ in 0..10 {
            assert_eq!(rate.take("alice", Duration::ZERO), Ok(()));
        }
        for number in 0..1_000 {
            assert_eq!(rate.take(&number.to_string(), Duration::ZERO), Ok(()));
        }
        assert_eq!(rate.buckets.lock().unwrap().full_at.len(), 100, "they are forgotten, not piled up");
        assert_eq!(rate.take("alice", Duration::ZERO), Err(1));
        assert_eq!(rate.look("alice", Duration::ZERO), Err(1));
        assert_eq!(rate.look("alice", Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn callers_with_a_full_burst_are_not_kept() {
        let rate = RateLimit::new(1);
        for number in 0..1_000 {
            assert_eq!(rate.take(&number.to_string(), Duration::from_secs(10 * number)), Ok(()));
        }
        let buckets = rate.buckets.lock().unwrap();
        assert!(buckets.full_at.len() <= 2 && buckets.by_time.len() == buckets.full_at.len());
    }
}
