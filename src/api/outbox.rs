//! The outbox: messages to the event loop that answer requests, each with the id of its request.
//!
//! The event loop registers an id before it forwards the request. The thread that receives requests claims
//! each id once. So a request that was withdrawn or never forwarded is not run.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::exchange::Response;
use crate::events::chunk::{StreamChunk, StreamMemory};

/// The limit of unread bytes of a streaming client. A client beyond it is disconnected.
pub const MAX_BEHIND_BYTES: usize = 256 * 1024;

/// The limit of uncollected bytes. Threads that make large responses wait while there are more.
const UNREAD_BYTES: usize = 16 * 1024 * 1024;

/// A message to the event loop about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum ResponseMessage {
    /// The complete response. The last message.
    Complete(Response),
    /// The head of a response that is streamed.
    Head(Response),
    /// A piece of the streamed response.
    Chunk(StreamChunk),
    /// There are no more pieces. The last message.
    End,
    /// The client reads too slowly. The last message.
    Disconnect,
    /// The request waits for an event, maybe for minutes.
    Parked,
}

impl ResponseMessage {
    const fn size(&self) -> usize {
        match self {
            Self::Complete(response) | Self::Head(response) => response.body.len(),
            // The meter counts pieces, because several clients may share one.
            Self::Chunk(_) | Self::End | Self::Disconnect | Self::Parked => 0,
        }
    }
}

/// What the event loop and the responder share about the client of one request.
#[derive(Default)]
pub struct ClientStatus {
    address: Option<IpAddr>,
    gone: AtomicBool,
    half_closed: AtomicBool,
    /// Bytes of pieces that the client has not received.
    behind: AtomicUsize,
    when_gone: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl ClientStatus {
    /// Marks the client as gone, and calls the callbacks.
    pub fn hang_up(&self) {
        let callbacks = {
            let mut when_gone = lock(&self.when_gone);
            self.gone.store(true, Ordering::SeqCst);
            std::mem::take(&mut *when_gone)
        };
        for callback in callbacks {
            callback();
        }
    }

    /// Marks that the client has finished sending. It may be gone, or wait for the response.
    pub fn half_close(&self) {
        self.half_closed.store(true, Ordering::SeqCst);
    }

    /// Counts `bytes` of pieces as received by the client.
    pub fn delivered(&self, bytes: usize) {
        let subtract = |behind: usize| Some(behind.saturating_sub(bytes));
        let _ = self.behind.fetch_update(Ordering::SeqCst, Ordering::SeqCst, subtract);
    }

    /// The IP address of the client. `None` for a Unix socket.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Whether the client is gone. Then no response is needed.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Whether the client has finished sending. It may be gone.
    #[must_use]
    pub fn is_half_closed(&self) -> bool {
        self.half_closed.load(Ordering::SeqCst)
    }

    /// Bytes of pieces that the client has not received.
    #[must_use]
    pub fn behind(&self) -> usize {
        self.behind.load(Ordering::SeqCst)
    }

    /// Registers `callback` to be called once when the client goes away.
    ///
    /// It is called at once if the client is gone already, and never if the response was sent before. It runs
    /// on the thread of the event loop, or at once on this thread. It must not block.
    pub fn when_gone(&self, callback: Box<dyn FnOnce() + Send>) {
        let mut when_gone = lock(&self.when_gone);
        if self.is_gone() {
            drop(when_gone);
            callback();
        } else {
            when_gone.push(callback);
        }
    }
}

/// Messages that the event loop has not collected.
#[derive(Default)]
struct Unread {
    messages: Vec<(u64, ResponseMessage)>,
    bytes: usize,
    /// Whether the event loop waits, so that the next message must wake it.
    asleep: bool,
}

/// The registered ids, and the messages to the event loop.
#[derive(Default)]
pub struct Outbox {
    /// Requests that were forwarded and not yet received.
    registered: Mutex<HashMap<u64, Arc<ClientStatus>>>,
    unread: Mutex<Unread>,
    collected: Condvar,
    /// Whether the event loop has ended.
    closed: AtomicBool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    stream_memory: Arc<StreamMemory>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks, so their contents are sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    /// An outbox whose pieces `stream_memory` counts.
    #[must_use]
    pub fn new(stream_memory: &Arc<StreamMemory>) -> Self {
        Self { stream_memory: Arc::clone(stream_memory), ..Self::default() }
    }

    /// Bytes that no single client accounts for: uncollected messages, and pieces.
    #[must_use]
    pub fn bytes(&self) -> usize {
        lock(&self.unread).bytes.saturating_add(self.stream_memory.bytes())
    }

    /// Sets the callback that wakes the event loop.
    pub fn wake_with(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake));
    }

    /// Registers a request that is about to be forwarded.
    pub fn register(&self, id: u64, address: Option<IpAddr>) -> Arc<ClientStatus> {
        let client = Arc::new(ClientStatus { address, ..ClientStatus::default() });
        lock(&self.registered).insert(id, Arc::clone(&client));
        client
    }

    /// Withdraws a request. Returns true if it was not yet received; then it is never run.
    pub fn withdraw(&self, id: u64) -> bool {
        lock(&self.registered).remove(&id).is_some()
    }

    /// Claims a received request. `None` if no such request was forwarded, or it was withdrawn.
    #[must_use]
    pub fn claim(self: &Arc<Self>, id: u64) -> Option<ReturnPath> {
        let client = lock(&self.registered).remove(&id)?;
        Some(ReturnPath { outbox: Arc::clone(self), id, client })
    }

    /// Takes the uncollected messages, in order, each with the id of its request.
    #[must_use]
    pub fn collect(&self) -> Vec<(u64, ResponseMessage)> {
        let unread = std::mem::take(&mut *lock(&self.unread));
        if unread.bytes > UNREAD_BYTES {
            self.collected.notify_all();
        }
        unread.messages
    }

    /// Prepares the event loop to wait for events. Returns false if there are messages to collect first.
    #[must_use]
    pub fn sleep(&self) -> bool {
        let mut unread = lock(&self.unread);
        unread.asleep = unread.messages.is_empty();
        unread.asleep
    }

    /// Closes the outbox when the event loop ends: wakes waiting threads, and drops all later messages.
    ///
    /// Requests that were forwarded and not yet received are withdrawn.
    pub fn close(&self) {
        {
            // Under this lock, so that a thread in `wait_for_room` either sees the flag or is woken.
            let _unread = lock(&self.unread);
            self.closed.store(true, Ordering::SeqCst);
        }
        self.collected.notify_all();
        lock(&self.registered).clear();
    }

    /// Waits while there are too many uncollected bytes.
    pub(super) fn wait_for_room(&self) {
        let mut unread = lock(&self.unread);
        while unread.bytes > UNREAD_BYTES && !self.closed.load(Ordering::SeqCst) {
            unread = self.collected.wait(unread).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn post(&self, id: u64, message: ResponseMessage) {
        let mut unread = lock(&self.unread);
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        unread.bytes += message.size();
        unread.messages.push((id, message));
        let asleep = std::mem::take(&mut unread.asleep);
        drop(unread);
        if asleep && let Some(wake) = self.wake.get() {
            wake();
        }
    }
}

/// The return path to the client of one request.
#[derive(Clone)]
pub struct ReturnPath {
    outbox: Arc<Outbox>,
    id: u64,
    client: Arc<ClientStatus>,
}

impl ReturnPath {
    /// The id of the request in the event loop.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &ClientStatus {
        &self.client
    }

    /// Posts a message.
    pub fn post(&self, message: ResponseMessage) {
        self.outbox.post(self.id, message);
    }

    pub(super) fn piece(&self, bytes: &[u8]) -> StreamChunk {
        StreamChunk::new(bytes, &self.outbox.stream_memory)
    }

    /// Posts a piece, or disconnects a client that is too far behind.
    ///
    /// Returns whether the client is still connected.
    pub(super) fn post_piece(&self, piece: StreamChunk) -> bool {
        let length = piece.bytes().len();
        let behind = self.client.behind.fetch_add(length, Ordering::SeqCst);
        // A client that has received everything may get a piece of any size.
        if behind > 0 && behind.saturating_add(length) > MAX_BEHIND_BYTES {
            // The event loop calls the callbacks.
            self.client.gone.store(true, Ordering::SeqCst);
            self.post(ResponseMessage::Disconnect);
            return false;
        }
        self.post(ResponseMessage::Chunk(piece));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_claimed_at_most_once_and_never_after_withdrawal_or_close() {
        let outbox = Arc::new(Outbox::default());
        for id in 1..=3 {
            outbox.register(id, None);
        }
        assert!(outbox.claim(1).is_some() && outbox.claim(1).is_none() && outbox.claim(9).is_none());
        assert!(!outbox.withdraw(1), "it was received");
        assert!(outbox.withdraw(2) && outbox.claim(2).is_none());
        outbox.close();
        assert!(outbox.claim(3).is_none());
    }

    #[test]
    fn a_blocked_sender_resumes_when_the_outbox_is_drained_or_closed() {
        let outbox = Arc::new(Outbox::default());
        let large = || ResponseMessage::Complete(Response::of(200, "text/plain", vec![0; UNREAD_BYTES + 1]));
        outbox.post(7, large());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| outbox.wait_for_room());
            assert_eq!(outbox.collect().len(), 1);
            waits.join().unwrap();
            outbox.post(7, large());
            let waits = scope.spawn(|| outbox.wait_for_room());
            outbox.close();
            waits.join().unwrap();
        });
    }
}
