//! Limits the event streams of each caller. A stream occupies one of the limited connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Open streams by caller.
#[derive(Debug, Default)]
pub(super) struct StreamLimit {
    taken: Mutex<HashMap<String, u32>>,
}

/// A reserved stream. It is released on drop.
#[derive(Debug)]
pub struct StreamSlot {
    stream_limit: Arc<StreamLimit>,
    of: String,
}

impl StreamLimit {
    /// Reserves one more stream for `of`, if they have fewer than `most`.
    pub(super) fn take(self: &Arc<Self>, of: String, most: u32) -> Option<StreamSlot> {
        let mut taken = self.lock();
        let count = taken.get(&of).copied().unwrap_or_default();
        if count >= most {
            return None;
        }
        taken.insert(of.clone(), count + 1);
        Some(StreamSlot { stream_limit: Arc::clone(self), of })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        // Nothing panics while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut taken = self.stream_limit.lock();
        match taken.get_mut(&self.of) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(taken.remove(&self.of)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_limited_per_caller_and_idle_callers_are_forgotten() {
        let stream_limit = Arc::new(StreamLimit::default());
        let take = |of: &str| stream_limit.take(of.to_owned(), 2);
        let (one, two) = (take("alice").unwrap(), take("alice").unwrap());
        assert!(take("alice").is_none() && take("bob").is_some());
        drop(one);
        let three = take("alice").unwrap();
        assert!(take("alice").is_none());
        drop((two, three));
        assert!(stream_limit.lock().is_empty());
    }
}
