//! What is said about held requests, on its way to the door: see [`super::deferred`].

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::events::piece::{StreamChunk, StreamMemory};

/// Most bytes of pieces that wait for a client to read them; one that is further behind is cut off.
pub const BEHIND_BYTES: usize = 256 * 1024;

/// Whoever makes large answers waits while so many bytes of letters are unread.
const UNREAD_BYTES: usize = 16 * 1024 * 1024;

/// Most requests of which it is remembered that they were lost: more than can be on their way.
const LOST: usize = 1024;

/// What is said about a held request.
#[derive(Debug, PartialEq, Eq)]
pub enum ResponseMessage {
    /// The whole response.
    Whole(Vec<u8>),
    /// The head of a response that comes in pieces.
    Begin(Vec<u8>),
    /// A piece of it.
    StreamChunk(StreamChunk),
    /// It was the last one.
    End,
    /// The client reads too slowly: no more of it.
    Cut,
    /// The answer was being made, and now waits until what the client waits for has come.
    Waits,
}

impl ResponseMessage {
    const fn size(&self) -> usize {
        match self {
            Self::Whole(bytes) | Self::Begin(bytes) => bytes.len(),
            // The bytes of a piece may be others', too: the meter has them.
            Self::StreamChunk(_) | Self::End | Self::Cut | Self::Waits => 0,
        }
    }
}

/// The letters that the door has not read yet.
#[derive(Default)]
struct Unread {
    letters: Vec<(u64, ResponseMessage)>,
    bytes: usize,
}

pub(super) type Callback = Box<dyn FnOnce() + Send>;

/// What is held, and the letters about it that the door has not read yet.
#[derive(Default)]
pub struct Holds {
    unread: Mutex<Unread>,
    read: Condvar,
    /// The door reads no more.
    closed: AtomicBool,
    /// The requests that were lost last, before or after they were put off.
    lost: Mutex<VecDeque<u64>>,
    lines: Mutex<HashMap<u64, Arc<Line>>>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    meter: Arc<StreamMemory>,
}

/// What the two ends of a hold share.
#[derive(Default)]
struct Line {
    gone: AtomicBool,
    /// The client has finished sending: it may be gone, or wait.
    doubtful: AtomicBool,
    /// Bytes of pieces that the client has not taken.
    behind: AtomicUsize,
    when_gone: Mutex<Vec<Callback>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of them is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Holds {
    /// Pieces are counted by `meter`.
    #[must_use]
    pub fn new(meter: &Arc<StreamMemory>) -> Self {
        Self { meter: Arc::clone(meter), ..Self::default() }
    }

    /// What counts the pieces.
    #[must_use]
    pub const fn meter(&self) -> &Arc<StreamMemory> {
        &self.meter
    }

    /// What takes memory and belongs to no client alone: letters that are not read, and pieces, read or not (bytes).
    #[must_use]
    pub fn bytes(&self) -> usize {
        lock(&self.unread).bytes.saturating_add(self.meter.bytes())
    }

    /// The door's end: `wake` makes it come and collect.
    pub fn wake_with(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake));
    }

    /// The letters since the last time, in the order in which they were written, with the id of their request.
    #[must_use]
    pub fn collect(&self) -> Vec<(u64, ResponseMessage)> {
        let unread = std::mem::take(&mut *lock(&self.unread));
        if unread.bytes > UNREAD_BYTES {
            self.read.notify_all();
        }
        unread.letters
    }

    /// The door is closed: all clients are gone, and nobody waits for it to read.
    pub fn close(&self) {
        {
            // Whoever is about to wait has either seen this, or is woken.
            let _unread = lock(&self.unread);
            self.closed.store(true, Ordering::SeqCst);
        }
        self.read.notify_all();
        let ids: Vec<_> = lock(&self.lines).keys().copied().collect();
        for id in ids {
            self.gone(id);
        }
    }

    /// Waits until the door has read what was written, if that is much.
    pub(super) fn wait_for_room(&self) {
        let mut unread = lock(&self.unread);
        while unread.bytes > UNREAD_BYTES && !self.closed.load(Ordering::SeqCst) {
            unread = self.read.wait(unread).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The client of this request is gone: whoever has the ticket is told.
    pub fn gone(&self, id: u64) {
        let line = lock(&self.lines).remove(&id);
        if let Some(line) = line {
            line.hang_up();
        }
    }

    /// The client of this request may be gone: what takes long to make for it can wait.
    pub fn doubt(&self, id: u64) {
        if let Some(line) = lock(&self.lines).get(&id) {
            line.doubtful.store(true, Ordering::SeqCst);
        }
    }

    /// The client has taken `bytes` of the pieces.
    pub fn delivered(&self, id: u64, bytes: usize) {
        if let Some(line) = lock(&self.lines).get(&id) {
            let _ = line.behind.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |behind| {
                Some(behind.saturating_sub(bytes))
            });
        }
    }

    /// How many requests are held.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.lines).len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The door can take no answer to this request any more, whether it was put off already or will be.
    pub fn lost(&self, id: u64) {
        let mut lost = lock(&self.lost);
        if lost.len() == LOST {
            lost.pop_front();
        }
        lost.push_back(id);
        drop(lost);
        self.gone(id);
    }

    /// A place for the request that the door knows as `id`.
    pub(super) fn enter(self: &Arc<Self>, id: u64) -> Waiting {
        let line = Arc::new(Line::default());
        lock(&self.lines).insert(id, Arc::clone(&line));
        if self.closed.load(Ordering::SeqCst) || lock(&self.lost).contains(&id) {
            self.gone(id);
        }
        Waiting { holds: Arc::clone(self), id, line }
    }

    fn post(&self, id: u64, letter: ResponseMessage) {
        let mut unread = lock(&self.unread);
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        unread.bytes += letter.size();
        unread.letters.push((id, letter));
        let first = unread.letters.len() == 1;
        drop(unread);
        if first && let Some(wake) = self.wake.get() {
            wake();
        }
    }
}

impl Line {
    fn hang_up(&self) {
        let callbacks = {
            let mut when_gone = lock(&self.when_gone);
            self.gone.store(true, Ordering::SeqCst);
            std::mem::take(&mut *when_gone)
        };
        for callback in callbacks {
            callback();
        }
    }

    fn when_gone(&self, callback: Callback) {
        let mut when_gone = lock(&self.when_gone);
        if self.gone.load(Ordering::SeqCst) {
            drop(when_gone);
            callback();
        } else {
            when_gone.push(callback);
        }
    }
}

/// The place of a held request: leaves the register when it is dropped.
pub(super) struct Waiting {
    holds: Arc<Holds>,
    id: u64,
    line: Arc<Line>,
}

impl Waiting {
    pub(super) fn post(&self, letter: ResponseMessage) {
        self.holds.post(self.id, letter);
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.line.doubtful.load(Ordering::SeqCst)
    }

    /// Posts the last letter. From now on the client's going away concerns nobody.
    pub(super) fn post_last(self, letter: ResponseMessage) {
        lock(&self.holds.lines).remove(&self.id);
        self.post(letter);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.line.gone.load(Ordering::SeqCst)
    }

    pub(super) fn piece(&self, bytes: &[u8]) -> StreamChunk {
        StreamChunk::new(bytes, &self.holds.meter)
    }

    /// Posts a piece, if the client is not too far behind; else it is cut off.
    pub(super) fn post_piece(&self, piece: StreamChunk) -> bool {
        let length = piece.bytes().len();
        let behind = self.line.behind.fetch_add(length, Ordering::SeqCst);
        // Whoever has read all there was may get more at once.
        if behind > 0 && behind.saturating_add(length) > BEHIND_BYTES {
            // The door tells the others, on its own thread.
            self.line.gone.store(true, Ordering::SeqCst);
            self.post(ResponseMessage::Cut);
            return false;
        }
        self.post(ResponseMessage::StreamChunk(piece));
        true
    }

    pub(super) fn behind(&self) -> usize {
        self.line.behind.load(Ordering::SeqCst)
    }

    pub(super) fn when_gone(&self, callback: Callback) {
        self.line.when_gone(callback);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.holds.lines).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_lost_before_it_was_put_off_is_gone_at_once_and_so_is_one_that_comes_after_the_end() {
        let holds = Arc::new(Holds::default());
        holds.lost(7);
        assert!(holds.enter(7).is_gone() && !holds.enter(8).is_gone());
        for id in 100..100 + u64::try_from(LOST).unwrap() {
            holds.lost(id);
        }
        assert!(!holds.enter(7).is_gone(), "it is not remembered for ever");
        holds.close();
        assert!(holds.enter(9).is_gone());
    }

    #[test]
    fn whoever_waits_for_the_door_to_read_is_let_go_when_it_reads_and_when_it_is_closed() {
        let holds = Arc::new(Holds::default());
        let waiting = holds.enter(7);
        holds.post(7, ResponseMessage::Whole(vec![0; UNREAD_BYTES + 1]));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| holds.wait_for_room());
            assert_eq!(holds.collect().len(), 1);
            waits.join().unwrap();
            holds.post(7, ResponseMessage::Whole(vec![0; UNREAD_BYTES + 1]));
            let waits = scope.spawn(|| holds.wait_for_room());
            holds.close();
            waits.join().unwrap();
        });
        assert!(waiting.is_gone(), "a door that is closed has no clients");
    }
}
