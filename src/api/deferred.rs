//! Whoever waits, waits at the door.
//!
//! A handler never blocks a thread to wait. It answers at once with a hold ([`super::exchange::Reply::hold`]) and gets
//! a [`Ticket`]; the door keeps the client's connection, and whoever has the ticket completes it later, with one
//! response or with a stream of pieces. What they say travels as a [`ResponseMessage`]; the door reports back when the client
//! is gone. A wait costs a socket, and no thread.

use std::fmt;
use std::sync::Arc;

use super::exchange::{Outlet, PutOff, Response, Seen};
use super::outbox::{Holds, ResponseMessage, Waiting};
use super::problem::{Code, Problem};
use crate::events::piece::StreamChunk;

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

impl Holds {
    /// A ticket for the request that the door knows as `id`.
    pub(super) fn ticket(
        self: &Arc<Self>,
        id: u64,
        request_id: String,
        seen: Seen,
        render: Render,
    ) -> Ticket {
        Ticket { waiting: Some(self.enter(id)), render: Some(render), request_id, seen }
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
    /// is answered before. It runs on the door's thread, or at once on this one: it must not block.
    pub fn when_gone(&self, callback: impl FnOnce() + Send + 'static) {
        if let Some(waiting) = &self.waiting {
            waiting.when_gone(Box::new(callback));
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
            waiting.post(ResponseMessage::Begin(render(response, Extent::Stream, &self.seen)));
        }
        let stream = Stream { waiting };
        if !response.body.is_empty() {
            stream.push(&response.body);
        }
        stream
    }

    fn finish(&mut self, response: &Response) {
        if let (Some(waiting), Some(render)) = (self.waiting.take(), self.render.take()) {
            waiting.post_last(ResponseMessage::Whole(render(response, Extent::Whole, &self.seen)));
        }
    }
}

/// A request that was put off so that it holds up no other can be answered like any.
impl Outlet for Ticket {
    fn respond(mut self: Box<Self>, response: &Response, seen: &Seen) {
        self.seen = seen.clone();
        self.finish(response);
    }

    fn hold(mut self: Box<Self>, seen: Seen, put_off: PutOff) -> Ticket {
        self.seen = seen;
        if let (PutOff::UntilItComes, Some(waiting)) = (put_off, &self.waiting) {
            waiting.post(ResponseMessage::Waits);
        }
        *self
    }

    fn is_gone(&self) -> bool {
        Self::is_gone(self)
    }

    fn is_doubtful(&self) -> bool {
        self.waiting.as_ref().is_some_and(Waiting::is_doubtful)
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
    /// Sends a piece, if the client is still there. One that is [`BEHIND_BYTES`](super::outbox::BEHIND_BYTES) behind is cut off.
    #[expect(clippy::must_use_candidate, reason = "who is told later that the client is gone need not look")]
    pub fn push(&self, piece: &[u8]) -> bool {
        let Some(waiting) = &self.waiting else { return false };
        self.share(&waiting.piece(piece))
    }

    /// Sends a piece that others are sent, too, and that is kept once for all of them.
    #[expect(clippy::must_use_candidate, reason = "who is told later that the client is gone need not look")]
    pub fn share(&self, piece: &StreamChunk) -> bool {
        let Some(waiting) = self.waiting.as_ref().filter(|waiting| !waiting.is_gone()) else { return false };
        // An empty chunk would be the end.
        piece.bytes().is_empty() || waiting.post_piece(piece.clone())
    }

    /// Whether the client has gone away. It stays gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.waiting.as_ref().is_none_or(Waiting::is_gone)
    }

    /// Bytes of pieces that the client has not taken.
    #[must_use]
    pub fn behind(&self) -> usize {
        self.waiting.as_ref().map_or(0, Waiting::behind)
    }

    /// As [`Ticket::when_gone`].
    pub fn when_gone(&self, callback: impl FnOnce() + Send + 'static) {
        if let Some(waiting) = &self.waiting {
            waiting.when_gone(Box::new(callback));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take().filter(|waiting| !waiting.is_gone()) {
            waiting.post_last(ResponseMessage::End);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::api::outbox::BEHIND_BYTES;

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
        assert_eq!(holds.collect(), [(7, ResponseMessage::Whole(b"204 Whole 0".to_vec()))]);
        assert!(holds.is_empty() && holds.collect().is_empty());
    }

    #[test]
    fn a_ticket_that_is_forgotten_answers_500() {
        let (holds, ticket) = held();
        drop(ticket);
        assert!(
            matches!(&holds.collect()[..], [(7, ResponseMessage::Whole(bytes))] if bytes.starts_with(b"500"))
        );
    }

    #[test]
    fn pieces_come_in_order_and_end_with_the_stream() {
        let (holds, ticket) = held();
        let stream = ticket.stream(&Response::of(200, "text/plain", b"a".to_vec()));
        assert!(stream.push(b"b"));
        drop(stream);
        let letters: Vec<_> = holds.collect().into_iter().map(|(_, letter)| letter).collect();
        assert_eq!(
            letters,
            [
                ResponseMessage::Begin(b"200 Stream 1".to_vec()),
                ResponseMessage::StreamChunk(StreamChunk::new(b"a", holds.meter())),
                ResponseMessage::StreamChunk(StreamChunk::new(b"b", holds.meter())),
                ResponseMessage::End
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
    fn a_client_that_is_too_far_behind_is_cut_off() {
        let (holds, ticket) = held();
        let stream = ticket.stream(&Response::empty(200));
        let half = vec![0; BEHIND_BYTES / 2];
        assert!(stream.push(&half) && stream.push(&half));
        holds.delivered(7, half.len());
        assert!(stream.push(&half), "what was read no longer counts");
        assert!(!stream.push(&[0]));
        assert!(stream.is_gone());
        drop(stream);
        assert!(matches!(holds.collect().last(), Some((7, ResponseMessage::Cut))));
    }
}
