//! Whoever waits, waits at the door.
//!
//! A handler never blocks a thread to wait. It answers at once with a hold ([`super::exchange::Reply::hold`]) and gets
//! a [`Ticket`]; the door keeps the client's connection, and whoever has the ticket completes it later, with one
//! response or with a stream of pieces. What they say travels as a [`Letter`]; the door reports back when the client
//! is gone. A wait costs a socket, and no thread.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::exchange::{Outlet, PutOff, Response, Seen};
use super::problem::{Code, Problem};

/// Most bytes of pieces that wait for a client to read them; one that is further behind is cut off.
pub const BEHIND_BYTES: usize = 256 * 1024;

/// Whoever makes large answers waits while so many bytes of letters are unread.
const UNREAD_BYTES: usize = 16 * 1024 * 1024;

/// What is said about a held request.
#[derive(Debug, PartialEq, Eq)]
pub enum Letter {
    /// The whole response.
    Whole(Vec<u8>),
    /// The head of a response that comes in pieces.
    Begin(Vec<u8>),
    /// A piece of it.
    Piece(Vec<u8>),
    /// It was the last one.
    End,
    /// The client reads too slowly: no more of it.
    Cut,
}

impl Letter {
    const fn size(&self) -> usize {
        match self {
            Self::Whole(bytes) | Self::Begin(bytes) | Self::Piece(bytes) => bytes.len(),
            Self::End | Self::Cut => 0,
        }
    }
}

/// The letters that the door has not read yet.
#[derive(Default)]
struct Unread {
    letters: Vec<(u64, Letter)>,
    bytes: usize,
}

/// How a response is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// As a whole.
    Whole,
    /// In pieces whose number nobody knows yet.
    Stream,
}

/// Makes the bytes of a response. Called once.
pub type Render = Box<dyn FnOnce(&Response, Extent, &Seen) -> Vec<u8> + Send>;

type Callback = Box<dyn FnOnce() + Send>;

/// What is held, and the letters about it that the door has not read yet.
#[derive(Default)]
pub struct Holds {
    unread: Mutex<Unread>,
    read: Condvar,
    /// The door reads no more.
    closed: AtomicBool,
    lines: Mutex<HashMap<u64, Arc<Line>>>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// What the two ends of a hold share.
#[derive(Default)]
struct Line {
    gone: AtomicBool,
    /// Bytes of pieces that the client has not taken.
    behind: AtomicUsize,
    when_gone: Mutex<Option<Callback>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of them is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Holds {
    /// The door's end: `wake` makes it come and collect.
    pub fn wake_with(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake));
    }

    /// The letters since the last time, in the order in which they were written, with the id of their request.
    #[must_use]
    pub fn collect(&self) -> Vec<(u64, Letter)> {
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

    /// A ticket for the request that the door knows as `id`.
    pub(super) fn ticket(
        self: &Arc<Self>,
        id: u64,
        request_id: String,
        seen: Seen,
        render: Render,
    ) -> Ticket {
        let line = Arc::new(Line::default());
        lock(&self.lines).insert(id, Arc::clone(&line));
        let waiting = Waiting { holds: Arc::clone(self), id, line };
        Ticket { waiting: Some(waiting), render: Some(render), request_id, seen }
    }

    fn post(&self, id: u64, letter: Letter) {
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
        let callback = {
            let mut when_gone = lock(&self.when_gone);
            self.gone.store(true, Ordering::SeqCst);
            when_gone.take()
        };
        if let Some(callback) = callback {
            callback();
        }
    }

    fn when_gone(&self, callback: Callback) {
        let mut when_gone = lock(&self.when_gone);
        if self.gone.load(Ordering::SeqCst) {
            drop(when_gone);
            callback();
        } else {
            *when_gone = Some(callback);
        }
    }
}

/// The place of a held request: leaves the register when it is dropped.
struct Waiting {
    holds: Arc<Holds>,
    id: u64,
    line: Arc<Line>,
}

impl Waiting {
    fn post(&self, letter: Letter) {
        self.holds.post(self.id, letter);
    }

    fn is_gone(&self) -> bool {
        self.line.gone.load(Ordering::SeqCst)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.holds.lines).remove(&self.id);
    }
}

/// The duty to answer one held request, once. Whoever drops it answers 500.
pub struct Ticket {
    waiting: Option<Waiting>,
    render: Option<Render>,
    request_id: String,
    seen: Seen,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ticket").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl Ticket {
    /// One whose client is gone.
    pub(super) const fn of_nobody() -> Self {
        Self {
            waiting: None,
            render: None,
            request_id: String::new(),
            seen: Seen { route: None, user_id: None },
        }
    }

    /// The request's id.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Whether the client has gone away. It stays gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.waiting.as_ref().is_none_or(Waiting::is_gone)
    }

    /// `callback` is called once when the client has gone away, at once if it is gone already, never if the request
    /// is answered before. It runs on the door's thread: it must not block.
    pub fn when_gone(&self, callback: impl FnOnce() + Send + 'static) {
        if let Some(waiting) = &self.waiting {
            waiting.line.when_gone(Box::new(callback));
        }
    }

    /// Answers with one response.
    pub fn respond(mut self, response: &Response) {
        self.finish(response);
    }

    /// Answers with a problem.
    pub fn refuse(self, problem: &Problem) {
        let response = problem.to_response(&self.request_id);
        self.respond(&response);
    }

    /// Begins a response that comes in pieces; its body, if it has one, is the first of them.
    #[must_use]
    pub fn stream(mut self, response: &Response) -> Stream {
        let waiting = self.waiting.take();
        if let (Some(waiting), Some(render)) = (&waiting, self.render.take()) {
            waiting.post(Letter::Begin(render(response, Extent::Stream, &self.seen)));
        }
        let stream = Stream { waiting };
        if !response.body.is_empty() {
            stream.push(response.body.clone());
        }
        stream
    }

    fn finish(&mut self, response: &Response) {
        if let (Some(waiting), Some(render)) = (self.waiting.take(), self.render.take()) {
            waiting.post(Letter::Whole(render(response, Extent::Whole, &self.seen)));
        }
    }
}

/// A request that was put off so that it holds up no other can be answered like any.
impl Outlet for Ticket {
    fn respond(mut self: Box<Self>, response: &Response, seen: &Seen) {
        self.seen = seen.clone();
        self.finish(response);
    }

    fn hold(mut self: Box<Self>, seen: Seen, _: PutOff) -> Ticket {
        self.seen = seen;
        *self
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.waiting.as_ref().is_some_and(|waiting| !waiting.is_gone()) {
            log::error!("request {} was held and forgotten", self.request_id);
            let response = Problem::new(Code::Internal).to_response(&self.request_id);
            self.finish(&response);
        }
    }
}

/// A response that comes in pieces. It ends when this is dropped.
pub struct Stream {
    waiting: Option<Waiting>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stream").field("is_gone", &self.is_gone()).finish_non_exhaustive()
    }
}

impl Stream {
    /// Sends a piece, if the client is still there. One that is [`BEHIND_BYTES`] behind is cut off.
    #[expect(clippy::must_use_candidate, reason = "who is told later that the client is gone need not look")]
    pub fn push(&self, piece: Vec<u8>) -> bool {
        let Some(waiting) = self.waiting.as_ref().filter(|waiting| !waiting.is_gone()) else { return false };
        if piece.is_empty() {
            return true;
        }
        let behind = waiting.line.behind.fetch_add(piece.len(), Ordering::SeqCst);
        if behind.saturating_add(piece.len()) > BEHIND_BYTES {
            waiting.post(Letter::Cut);
            waiting.holds.gone(waiting.id);
            return false;
        }
        waiting.post(Letter::Piece(piece));
        true
    }

    /// Whether the client has gone away. It stays gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.waiting.as_ref().is_none_or(Waiting::is_gone)
    }

    /// As [`Ticket::when_gone`].
    pub fn when_gone(&self, callback: impl FnOnce() + Send + 'static) {
        if let Some(waiting) = &self.waiting {
            waiting.line.when_gone(Box::new(callback));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.as_ref().filter(|waiting| !waiting.is_gone()) {
            waiting.post(Letter::End);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> (Arc<Holds>, Ticket) {
        let holds = Arc::new(Holds::default());
        let render: Render = Box::new(|response, extent, _| {
            format!("{} {extent:?} {}", response.status, response.body.len()).into_bytes()
        });
        let ticket = holds.ticket(7, "r".to_owned(), Seen::default(), render);
        (holds, ticket)
    }

    #[test]
    fn a_ticket_is_answered_once_and_then_nothing_is_kept() {
        let (holds, ticket) = held();
        ticket.respond(&Response::empty(204));
        assert_eq!(holds.collect(), [(7, Letter::Whole(b"204 Whole 0".to_vec()))]);
        assert!(holds.is_empty() && holds.collect().is_empty());
    }

    #[test]
    fn a_ticket_that_is_forgotten_answers_500() {
        let (holds, ticket) = held();
        drop(ticket);
        assert!(matches!(&holds.collect()[..], [(7, Letter::Whole(bytes))] if bytes.starts_with(b"500")));
    }

    #[test]
    fn pieces_come_in_order_and_end_with_the_stream() {
        let (holds, ticket) = held();
        let stream = ticket.stream(&Response::of(200, "text/plain", b"a".to_vec()));
        assert!(stream.push(b"b".to_vec()));
        drop(stream);
        let letters: Vec<_> = holds.collect().into_iter().map(|(_, letter)| letter).collect();
        assert_eq!(
            letters,
            [
                Letter::Begin(b"200 Stream 1".to_vec()),
                Letter::Piece(b"a".to_vec()),
                Letter::Piece(b"b".to_vec()),
                Letter::End
            ]
        );
    }

    #[test]
    fn whoever_has_the_ticket_is_told_once_that_the_client_is_gone() {
        let (holds, ticket) = held();
        let told = Arc::new(AtomicUsize::new(0));
        let count = |told: &Arc<AtomicUsize>| {
            let told = Arc::clone(told);
            move || {
                told.fetch_add(1, Ordering::SeqCst);
            }
        };
        ticket.when_gone(count(&told));
        assert!(!ticket.is_gone());
        holds.gone(7);
        holds.gone(7);
        assert!(ticket.is_gone() && told.load(Ordering::SeqCst) == 1);
        ticket.when_gone(count(&told));
        assert_eq!(told.load(Ordering::SeqCst), 2, "whoever asks too late is told at once");
        drop(ticket);
        assert!(holds.collect().is_empty(), "nothing is said to nobody");
    }

    #[test]
    fn whoever_waits_for_the_door_to_read_is_let_go_when_it_reads_and_when_it_is_closed() {
        let (holds, ticket) = held();
        holds.post(7, Letter::Whole(vec![0; UNREAD_BYTES + 1]));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| holds.wait_for_room());
            assert_eq!(holds.collect().len(), 1);
            waits.join().unwrap();
            holds.post(7, Letter::Whole(vec![0; UNREAD_BYTES + 1]));
            let waits = scope.spawn(|| holds.wait_for_room());
            holds.close();
            waits.join().unwrap();
        });
        assert!(ticket.is_gone(), "a door that is closed has no clients");
    }

    #[test]
    fn a_client_that_is_too_far_behind_is_cut_off() {
        let (holds, ticket) = held();
        let stream = ticket.stream(&Response::empty(200));
        let half = vec![0; BEHIND_BYTES / 2];
        assert!(stream.push(half.clone()) && stream.push(half.clone()));
        holds.delivered(7, half.len());
        assert!(stream.push(half), "what was read no longer counts");
        assert!(!stream.push(vec![0]));
        assert!(stream.is_gone());
        drop(stream);
        assert!(matches!(holds.collect().last(), Some((7, Letter::Cut))));
    }
}
