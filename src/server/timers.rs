//! Who has to be looked at when: a heap of deadlines, most of which are never reached.
//!
//! A connection's deadline moves with every request, nearly always to a later time. So an entry is not moved with it:
//! it stays, and when its time comes the true deadline is looked up, and entered if it is yet to come.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// A connection's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadline {
    /// When it is reached, if ever.
    at: Option<Duration>,
    /// The earliest entry in the heap.
    entered: Option<Duration>,
}

impl Deadline {
    pub(super) const NEVER: Self = Self { at: None, entered: None };

    /// Whether its entry in the heap is that for `at`.
    pub(super) fn is_entered(&self, at: Duration) -> bool {
        self.entered == Some(at)
    }

    pub(super) const fn at(&self) -> Option<Duration> {
        self.at
    }
}

/// The deadlines of many, named by `K`.
#[derive(Debug)]
pub(super) struct Timers<K> {
    heap: BinaryHeap<Reverse<(Duration, K)>>,
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Moves the deadline of `key`.
    pub(super) fn set(&mut self, key: K, deadline: &mut Deadline, at: Option<Duration>) {
        deadline.at = at;
        if let Some(at) = at
            && deadline.entered.is_none_or(|entered| at < entered)
        {
            self.heap.push(Reverse((at, key)));
            deadline.entered = Some(at);
        }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Removes entries that mean nothing any more: of connections that have ended, above all.
    pub(super) fn forget(&mut self, is_void: impl Fn(Duration, K) -> bool) {
        self.heap.retain(|Reverse((at, key))| !is_void(*at, *key));
        self.heap.shrink_to(2 * self.heap.len());
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// One whose deadline may have been reached; [`Timers::is_due`] tells.
    pub(super) fn pop(&mut self, now: Duration) -> Option<(Duration, K)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether the deadline has been reached, after its entry for `at` was popped; else it is entered again.
    pub(super) fn is_due(&mut self, at: Duration, key: K, deadline: &mut Deadline, now: Duration) -> bool {
        if deadline.entered != Some(at) {
            return false;
        }
        deadline.entered = None;
        if deadline.at.is_some_and(|at| at <= now) {
            return true;
        }
        self.set(key, deadline, deadline.at);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn due(timers: &mut Timers<u8>, deadline: &mut Deadline, now: Duration) -> usize {
        let mut due = 0;
        while let Some((at, key)) = timers.pop(now) {
            due += usize::from(timers.is_due(at, key, deadline, now));
        }
        due
    }

    #[test]
    fn a_deadline_that_moves_is_due_when_it_was_moved_to_and_once() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::NEVER);
        timers.set(1, &mut deadline, Some(seconds(10)));
        timers.set(1, &mut deadline, Some(seconds(75)));
        assert_eq!(due(&mut timers, &mut deadline, seconds(74)), 0);
        timers.set(1, &mut deadline, Some(seconds(20)));
        timers.set(1, &mut deadline, Some(seconds(15)));
        assert_eq!(timers.next(), Some(seconds(15)));
        assert_eq!(due(&mut timers, &mut deadline, seconds(15)), 1);
        assert_eq!(due(&mut timers, &mut deadline, seconds(500)), 0);
    }

    #[test]
    fn one_that_was_called_off_is_not_due_and_leaves_nothing_behind() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::NEVER);
        timers.set(1, &mut deadline, Some(seconds(1)));
        timers.set(1, &mut deadline, None);
        assert_eq!(due(&mut timers, &mut deadline, seconds(5)), 0);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn what_is_void_can_be_forgotten() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::NEVER);
        for second in (1..1_000).rev() {
            timers.set(1, &mut deadline, Some(seconds(second)));
        }
        timers.forget(|at, _| !deadline.is_entered(at));
        assert_eq!((timers.len(), timers.next()), (1, Some(seconds(1))));
    }

    #[test]
    fn a_busy_connection_has_one_entry() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::NEVER);
        for request in 0..1_000 {
            timers.set(1, &mut deadline, None);
            timers.set(1, &mut deadline, Some(seconds(75 + request)));
        }
        assert_eq!(timers.heap.len(), 1);
    }
}
