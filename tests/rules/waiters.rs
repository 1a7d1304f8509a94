//! The clients that wait on an engine, and what they are answered.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use lockhouse::domain::{Acquire, Acquired};
use lockhouse::error::Error;
use lockhouse::store::AsOf;
use lockhouse::store::queue::Client;

/// The answer to a waiter, with its request.
pub type WaiterAnswer = (Acquire, Result<AsOf<Acquired>, Error>);

/// The answers to the waiters of one engine.
#[derive(Default)]
pub struct Answers {
    received: Mutex<Vec<WaiterAnswer>>,
    more: Condvar,
}

impl Answers {
    /// Waits until this number of answers was received, and takes them.
    pub fn take(&self, count: usize) -> Vec<WaiterAnswer> {
        let received = self.received.lock().unwrap();
        let enough = |received: &mut Vec<WaiterAnswer>| received.len() < count;
        let (mut received, _) =
            self.more.wait_timeout_while(received, Duration::from_secs(20), enough).unwrap();
        assert_eq!(received.len(), count, "each waiter that left the queue is answered once");
        std::mem::take(&mut *received)
    }
}

pub struct WaitingClient {
    pub request: Acquire,
    pub answers: Arc<Answers>,
}

impl Client for WaitingClient {
    fn is_gone(&self) -> bool {
        false
    }

    fn when_gone(&self, _: Box<dyn FnOnce() + Send>) {}

    fn answer(self: Box<Self>, answer: Result<AsOf<Acquired>, Error>) {
        self.answers.received.lock().unwrap().push((self.request, answer));
        self.answers.more.notify_all();
    }
}
