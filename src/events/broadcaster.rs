//! Sends events to their followers. One thread serves all of them, in rounds (`rounds.rs`).
//!
//! The same thread runs the timer of leases ([`crate::app::sweep`]): a lease that ends becomes an event when it ends.

mod rounds;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::chunk::{StreamChunk, StreamMemory};
use super::followers::{Follower, Followers};
use super::presence::{Presence, PresentUser};
use super::stream_limit::{StreamLimit, StreamSlot};
use super::subscription::{EventEncoder, EventSink, Subscription};
use crate::domain::WorkspaceId;
use crate::domain::access::Rules;
use crate::metrics::Metrics;
use crate::store::Store;

/// Threads of this module that read from the store.
pub const READING_THREADS: u32 = 1;
/// Pause after the store could not be read or written.
const ERROR_RETRY: Duration = Duration::from_secs(1);

/// The followers of events.
pub struct Broadcaster {
    store: Arc<Store>,
    rules: Arc<Rules>,
    presence: Arc<Presence>,
    stream_limit: Arc<StreamLimit>,
    metrics: Arc<Metrics>,
    stream_memory: Arc<StreamMemory>,
    new_followers: Mutex<Vec<Follower>>,
    stopping: AtomicBool,
}

impl std::fmt::Debug for Broadcaster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Broadcaster").finish_non_exhaustive()
    }
}

impl Broadcaster {
    pub(crate) fn new(store: Arc<Store>, rules: Arc<Rules>, metrics: Arc<Metrics>) -> Arc<Self> {
        let notifier = Arc::clone(store.notifier());
        store.clock().clock().when_moved(move || notifier.wake());
        Arc::new(Self {
            rules,
            presence: Arc::default(),
            stream_limit: Arc::default(),
            metrics,
            stream_memory: Arc::default(),
            store,
            new_followers: Mutex::default(),
            stopping: AtomicBool::new(false),
        })
    }

    /// Starts the thread. `run_due` writes what is due, and returns the time until the next step.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        self: &Arc<Self>,
        encoder: EventEncoder,
        run_due: impl FnMut() -> Duration + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let broadcaster = Arc::clone(self);
        Builder::new().name("events".to_owned()).spawn(move || broadcaster.run(encoder, run_due))
    }

    /// Reserves one more stream for the caller `of`, if they have fewer than `most`.
    #[must_use]
    pub fn slot(&self, of: String, most: u32) -> Option<StreamSlot> {
        self.stream_limit.take(of, most)
    }

    /// Adds a follower. It stays until its connection ends or its permission does. `user` is shown as present on the
    /// workspaces of the subscription.
    pub fn follow(
        &self,
        subscription: Subscription,
        user: Option<&PresentUser>,
        slot: Option<StreamSlot>,
        sink: Box<dyn EventSink>,
    ) {
        let presence = user.map(|user| self.presence.enter(user, subscription.workspaces.clone()));
        let notifier = Arc::clone(self.store.notifier());
        sink.when_gone(Box::new(move || {
            drop((presence, slot));
            notifier.wake();
        }));
        let now = self.store.clock().clock().monotonic();
        let follower =
            Follower { revision: 0, caught_up: false, subscription, sink, sent_at: now, checked_at: now };
        self.new_followers.lock().unwrap_or_else(PoisonError::into_inner).push(follower);
        self.store.notifier().wake();
    }

    /// Users whose subscription names this workspace: each once, at most `limit`.
    #[must_use]
    pub fn presence(&self, workspace_id: &WorkspaceId, limit: usize) -> Vec<PresentUser> {
        self.presence.of(workspace_id, limit)
    }

    /// Counts the bytes that are queued for followers.
    #[must_use]
    pub const fn stream_memory(&self) -> &Arc<StreamMemory> {
        &self.stream_memory
    }

    fn chunk(&self, bytes: &[u8]) -> StreamChunk {
        StreamChunk::new(bytes, &self.stream_memory)
    }

    /// Ends the thread and all streams.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.store.notifier().wake();
    }

    fn run(&self, encoder: EventEncoder, mut run_due: impl FnMut() -> Duration) {
        let mut all = Followers { end: self.store.notifier().revision(), ..Followers::default() };
        while !self.stopping.load(Ordering::SeqCst) {
            let timeout = match self.round(&mut all, encoder) {
                Ok(timeout) => timeout,
                Err(error) => {
                    log::warn!("cannot read events for their followers: {error}; next try in 1 s");
                    ERROR_RETRY
                }
            };
            // Events of these writes are sent in the next round; the commit wakes this thread.
            let due = run_due();
            self.store.notifier().wait(timeout.min(due));
        }
    }
}
