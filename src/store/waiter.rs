//! A waiter: a request for a lock that another holder has, and the connection to answer it on.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use super::rows::AsOf;
use crate::domain::token::Validity;
use crate::domain::waitlist::QueueEntry;
use crate::domain::{Acquire, Acquired};
use crate::error::Error;
use crate::time::{Timestamp, Ttl};

/// The connection of a waiter.
pub trait Client: Send {
    /// Whether the client has disconnected or was answered.
    fn is_gone(&self) -> bool;
    /// Calls `callback` once when the client disconnects, unless it was answered before. `callback` must not
    /// block.
    fn when_gone(&self, callback: Box<dyn FnOnce() + Send>);
    /// Sends the final answer.
    fn answer(self: Box<Self>, answer: Result<AsOf<Acquired>, Error>);
}

/// A request for a lock that may wait.
pub struct Waiter {
    /// The number of the waiter on its server.
    pub id: i64,
    /// Whether the waiter is connected to another server on the same database.
    pub(super) is_elsewhere: bool,
    /// The request.
    pub request: Acquire,
    /// Maximum waiting time.
    pub wait: Ttl,
    /// How long the credentials of the request are valid.
    pub validity: Validity,
    client: Mutex<Option<Box<dyn Client>>>,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Waiter").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Waiter {
    /// Creates a waiter for `request`.
    #[must_use]
    pub fn new(request: Acquire, wait: Ttl, validity: Validity, client: Box<dyn Client>) -> Arc<Self> {
        static LAST_ID: AtomicI64 = AtomicI64::new(0);
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Mutex::new(Some(client));
        Arc::new(Self { id, is_elsewhere: false, request, wait, validity, client })
    }

    /// A waiter that is connected to another server. That server answers it.
    #[must_use]
    pub fn of_other_server(id: i64, request: Acquire, validity: Validity, is_there: bool) -> Arc<Self> {
        let client: Box<dyn Client> = Box::new(OtherServer);
        let client = Mutex::new(is_there.then_some(client));
        Arc::new(Self { id, is_elsewhere: true, request, wait: Ttl::from_millis(0), validity, client })
    }

    /// Sends the answer, unless one was sent before.
    pub fn answer(&self, answer: Result<AsOf<Acquired>, Error>) {
        let client = lock(&self.client).take();
        if let Some(client) = client {
            client.answer(answer);
        }
    }

    /// Whether the client has disconnected or was answered.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        lock(&self.client).as_ref().is_none_or(|client| client.is_gone())
    }
}

/// The client of a waiter that is connected to another server.
struct OtherServer;

impl Client for OtherServer {
    fn is_gone(&self) -> bool {
        false
    }

    fn when_gone(&self, _: Box<dyn FnOnce() + Send>) {}

    fn answer(self: Box<Self>, _: Result<AsOf<Acquired>, Error>) {}
}

/// A waiter in the queue of a lock.
#[derive(Debug, Clone)]
pub struct QueuedWaiter {
    /// The waiter.
    pub waiter: Arc<Waiter>,
    /// When the wait began (lease time).
    pub since: Timestamp,
    /// When the wait ends (lease time). If another holder has the lock then, the waiter is answered
    /// with that lock.
    pub until: Timestamp,
    /// Whether the server of the waiter stops.
    pub is_leaving: bool,
}

impl QueueEntry for QueuedWaiter {
    fn request(&self) -> &Acquire {
        &self.waiter.request
    }

    fn until(&self) -> Timestamp {
        self.until
    }

    fn is_gone(&self) -> bool {
        self.waiter.is_gone()
    }

    fn is_leaving(&self) -> bool {
        self.is_leaving
    }
}
