//! Nobody writes an answer before its turn.
//!
//! A client may send several requests on one connection without waiting. `tiny_http` lets the answers come in any
//! order and makes the thread that answers too early wait inside it, which is how every thread ends up waiting. So an
//! answer that is early is put by here, and whoever completes the one before writes both.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where an answer goes: the writer for one request.
pub(super) type Outlet = Box<dyn Write + Send>;

/// The place of a request among those of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn<K> {
    connection: K,
    number: u64,
}

/// The connections with requests that are not answered yet.
#[derive(Default)]
pub(super) struct Turns<K> {
    connections: Mutex<HashMap<K, Connection>>,
}

#[derive(Default)]
struct Connection {
    /// The turn that the next request gets.
    arriving: u64,
    /// The turn whose answer is to be written next.
    leaving: u64,
    /// Answers that are complete and not written.
    complete: BTreeMap<u64, (Outlet, Vec<u8>)>,
}

impl<K: Copy + Eq + Hash> Turns<K> {
    /// A request has arrived on `connection`. To be called in the order in which they arrive; each turn must be
    /// completed.
    pub(super) fn take(&self, connection: K) -> Turn<K> {
        let mut connections = self.lock();
        let entry = connections.entry(connection).or_default();
        let number = entry.arriving;
        entry.arriving += 1;
        Turn { connection, number }
    }

    /// Its answer is complete: it is written when its turn comes, by whoever is then at hand.
    pub(super) fn complete(&self, turn: Turn<K>, outlet: Outlet, answer: Vec<u8>) {
        let mut connections = self.lock();
        let Some(entry) = connections.get_mut(&turn.connection) else { return };
        entry.complete.insert(turn.number, (outlet, answer));
        loop {
            let Some(entry) = connections.get_mut(&turn.connection) else { return };
            // Nothing to write, or somebody is writing just that answer and comes by here again.
            let Some((mut outlet, answer)) = entry.complete.remove(&entry.leaving) else {
                if entry.leaving == entry.arriving {
                    connections.remove(&turn.connection);
                }
                return;
            };
            drop(connections);
            // A client that has gone away is no concern of ours.
            let _ = outlet.write_all(&answer).and_then(|()| outlet.flush());
            // Only now may the next one be written.
            drop(outlet);
            connections = self.lock();
            if let Some(entry) = connections.get_mut(&turn.connection) {
                entry.leaving += 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Connection>> {
        // Nothing panics while it is held.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Wire(Arc<Mutex<Vec<u8>>>);

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn answers_leave_in_the_order_in_which_the_requests_came() {
        let turns = Turns::default();
        let (one, other) = (Wire::default(), Wire::default());
        let first = turns.take(1);
        let second = turns.take(1);
        let elsewhere = turns.take(2);
        let third = turns.take(1);
        turns.complete(third, Box::new(one.clone()), b"3".to_vec());
        turns.complete(elsewhere, Box::new(other.clone()), b"x".to_vec());
        turns.complete(second, Box::new(one.clone()), b"2".to_vec());
        assert_eq!(*one.0.lock().unwrap(), b"");
        assert_eq!(*other.0.lock().unwrap(), b"x");
        turns.complete(first, Box::new(one.clone()), b"1".to_vec());
        assert_eq!(*one.0.lock().unwrap(), b"123");
        assert!(turns.connections.lock().unwrap().is_empty(), "nothing is kept of what is answered");
    }

    #[test]
    fn answers_that_are_completed_at_the_same_time_leave_in_order_and_none_is_left() {
        let (turns, wire) = (Turns::default(), Wire::default());
        for _ in 0..200 {
            let taken: Vec<_> = (0..8_u8).map(|number| (number, turns.take(1))).collect();
            std::thread::scope(|scope| {
                for (number, turn) in taken {
                    let (turns, outlet) = (&turns, wire.clone());
                    scope.spawn(move || turns.complete(turn, Box::new(outlet), vec![number]));
                }
            });
            assert_eq!(*wire.0.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
            wire.0.lock().unwrap().clear();
        }
        assert!(turns.connections.lock().unwrap().is_empty());
    }
}
