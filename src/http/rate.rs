//! How often each caller may call: a token bucket each.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Requests at once are as many as in so many seconds.
const BURST_SECONDS: f64 = 10.0;
/// Most callers that are told apart. When there are more, those who have not called for a while are forgotten, and then
/// everybody.
const CALLERS: usize = 100_000;

/// A limit on requests.
#[derive(Debug)]
pub struct RateLimit {
    per_second: f64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Requests that may be made, at `at`.
    left: f64,
    at: Duration,
}

impl RateLimit {
    /// So many requests a second for each caller.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), buckets: Mutex::default() }
    }

    /// One request of `caller`.
    ///
    /// # Errors
    /// After how many seconds they may try again.
    pub fn take(&self, caller: String, now: Duration) -> Result<(), u64> {
        let full = self.per_second * BURST_SECONDS;
        // Nothing panics while it is held.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CALLERS && !buckets.contains_key(&caller) {
            buckets.retain(|_, bucket| now.saturating_sub(bucket.at).as_secs_f64() < BURST_SECONDS);
            if buckets.len() >= CALLERS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(caller).or_insert(Bucket { left: full, at: now });
        let passed = now.saturating_sub(bucket.at).as_secs_f64();
        *bucket = Bucket { left: (bucket.left + passed * self.per_second).min(full), at: now.max(bucket.at) };
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - bucket.left) / self.per_second);
        Err(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_may_make_so_many_at_once_and_then_so_many_a_second() {
        let rate = RateLimit::new(2);
        let take = |caller: &str, ms| rate.take(caller.to_owned(), Duration::from_millis(ms));
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
    fn callers_are_forgotten_not_piled_up() {
        let rate = RateLimit::new(1);
        for number in 0..CALLERS + 10 {
            assert_eq!(rate.take(number.to_string(), Duration::ZERO), Ok(()));
        }
        assert!(rate.buckets.lock().unwrap().len() <= CALLERS);
    }
}
