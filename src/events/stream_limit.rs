//! How many streams of events each user has: each takes a connection, of which there are only so many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who has how many streams.
#[derive(Debug, Default)]
pub(super) struct StreamLimit {
    taken: Mutex<HashMap<String, u32>>,
}

/// Room for one stream, until this is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<StreamLimit>,
    of: String,
}

impl StreamLimit {
    /// One more for `of`, if they have fewer than `most`.
    pub(super) fn take(self: &Arc<Self>, of: String, most: u32) -> Option<Seat> {
        let mut taken = self.lock();
        let count = taken.get(&of).copied().unwrap_or_default();
        if count >= most {
            return None;
        }
        taken.insert(of.clone(), count + 1);
        Some(Seat { seats: Arc::clone(self), of })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        // Nothing panics while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
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
    fn each_has_so_many_and_nothing_is_kept_of_those_who_left() {
        let seats = Arc::new(StreamLimit::default());
        let take = |of: &str| seats.take(of.to_owned(), 2);
        let (one, two) = (take("alice").unwrap(), take("alice").unwrap());
        assert!(take("alice").is_none() && take("bob").is_some());
        drop(one);
        let three = take("alice").unwrap();
        assert!(take("alice").is_none());
        drop((two, three));
        assert!(seats.lock().is_empty());
    }
}
