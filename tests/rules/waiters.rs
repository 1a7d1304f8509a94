//! The clients that wait on an engine, and what they are answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use lockhouse::domain::{Acquire, Acquired};
use lockhouse::error::Error;
use lockhouse::store::AsOf;
use lockhouse::store::queue::Client;

/// The answer to a waiter, with its request.
pub type WaiterAnswer = (Acquire, Result<AsOf<Acquired>, Error>);

/// The answers to the waiters of one engine, by the number of the waiter.
#[derive(Default)]
pub struct Answers {
    received: Mutex<BTreeMap<usize, WaiterAnswer>>,
    more: Condvar,
}

impl Answers {
    /// Waits until at least this number of answers was received, and takes all.
    #[track_caller]
    pub fn take(&self, count: usize) -> BTreeMap<usize, WaiterAnswer> {
        let received = self.received.lock().unwrap();
        let too_few = |received: &mut BTreeMap<_, _>| received.len() < count;
        let (mut received, _) =
            self.more.wait_timeout_while(received, Duration::from_secs(20), too_few).unwrap();
        assert!(
            received.len() >= count,
            "each waiter that left the queue is answered: {received:?} of {count}"
        );
        std::mem::take(&mut *received)
    }
}

pub struct WaitingClient {
    pub number: usize,
    pub request: Acquire,
    pub answers: Arc<Answers>,
    /// Whether its server has stopped.
    pub is_gone: Arc<AtomicBool>,
}

impl Client for WaitingClient {
    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
    }

    fn when_gone(&self, _: Box<dyn FnOnce() + Send>) {}

    fn answer(self: Box<Self>, answer: Result<AsOf<Acquired>, Error>) {
        if self.is_gone() {
            return;
        }
        let before = self.answers.received.lock().unwrap().insert(self.number, (self.request, answer));
        assert!(before.is_none(), "a waiter is answered once");
        self.answers.more.notify_all();
    }
}
