//! The responder: answers one request, exactly once.
//!
//! A [`Responder`] works on any thread, at once or minutes later. It sends one response, or a stream of
//! pieces. It posts messages to the event loop ([`super::outbox`]), which keeps the connection of the client.
//! So a request that waits costs a socket and no thread.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::dialect::Dialect;
use super::exchange::{Request, Response};
use super::outbox::{ClientStatus, ResponseMessage, ReturnPath};
use super::problem::{Code, Problem};
use super::request_log::{RequestLine, RequestLog};
use crate::events::chunk::StreamChunk;

/// Answers one request. Must be used exactly once; answers 500 if it is dropped unused.
pub struct Responder {
    path: ReturnPath,
    /// Whether the response was posted, or its stream was begun.
    is_used: bool,
    log: Arc<RequestLog>,
    entry: RequestLine,
    /// How the client reads refusals.
    dialect: Dialect,
    /// The CORS headers of the response, for pages of other origins.
    cors: Vec<(&'static str, String)>,
}

impl fmt::Debug for Responder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Responder")
            .field("request_id", &self.entry.request_id)
            .finish_non_exhaustive()
    }
}

impl Responder {
    /// The responder of `request`, with the return path to its client.
    #[must_use]
    pub fn new(
        path: ReturnPath,
        request: &Request,
        cors: Vec<(&'static str, String)>,
        log: &Arc<RequestLog>,
    ) -> Self {
        let dialect = Dialect::of(&request.path);
        Self { path, is_used: false, log: Arc::clone(log), entry: log.entry(request), dialect, cors }
    }

    /// The request's id.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.entry.request_id
    }

    /// Sets the operation for the log, and the level of its line if it succeeds.
    pub const fn set_operation(&mut self, name: &'static str, level: log::Level) {
        (self.entry.route, self.entry.level) = (Some(name), level);
    }

    /// Sets the caller for the log.
    pub fn set_user(&mut self, user_id: &str) {
        self.entry.user_id = Some(user_id.to_owned());
    }

    /// Sends the response.
    pub fn send(mut self, response: Response) {
        self.finish(response);
    }

    /// Sends a refusal.
    pub fn refuse(self, problem: &Problem) {
        let response = self.dialect.refusal(problem, self.request_id());
        self.send(response);
    }

    /// Sends what `make` returns, or 500 if it panics.
    pub fn send_with(self, make: impl FnOnce() -> Result<Response, Problem>) {
        // On a panic `self` is dropped, which answers 500.
        match catch_unwind(AssertUnwindSafe(make)) {
            Ok(Ok(response)) => self.send(response),
            Ok(Err(problem)) => self.refuse(&problem),
            Err(_) => {}
        }
    }

    /// Marks the request as parked: its response waits for an event.
    ///
    /// From now on the client may go away at any time, and a stop of the server does not wait for the
    /// response.
    #[must_use]
    pub fn park(self) -> Self {
        self.path.post(ResponseMessage::Parked);
        self
    }

    /// Starts a streamed response. Its body, if it has one, becomes the first piece.
    #[must_use]
    pub fn stream(mut self, mut response: Response) -> Stream {
        let first = std::mem::take(&mut response.body);
        let head = self.complete(response);
        self.path.post(ResponseMessage::Head(head));
        let stream = Stream { path: self.path.clone() };
        stream.push(&first);
        stream
    }

    /// The client of the request.
    #[must_use]
    pub fn client(&self) -> &ClientStatus {
        self.path.client()
    }

    fn finish(&mut self, response: Response) {
        let response = self.complete(response);
        self.path.post(ResponseMessage::Complete(response));
    }

    /// Adds the headers that depend on the request, logs the response, and marks the responder as used.
    fn complete(&mut self, mut response: Response) -> Response {
        self.is_used = true;
        self.log.note(&self.entry, &response);
        response.headers.append(&mut self.cors);
        response.headers.push(("X-Request-Id", std::mem::take(&mut self.entry.request_id)));
        response
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        if self.client().is_gone() {
            // The response is not needed, but the event loop must know that none will come.
            return self.path.post(ResponseMessage::End);
        }
        log::error!("request {} was dropped unanswered: a handler panicked, or forgot it", self.request_id());
        self.finish(self.dialect.refusal(&Problem::new(Code::Internal), self.request_id()));
    }
}

/// A response in pieces. It ends when the stream is dropped.
pub struct Stream {
    path: ReturnPath,
}

impl Stream {
    /// Sends a piece. Returns whether the client is still connected.
    ///
    /// A client that is [`MAX_BEHIND_BYTES`](super::outbox::MAX_BEHIND_BYTES) behind is disconnected.
    #[expect(clippy::must_use_candidate, reason = "a caller that has set when_gone need not look")]
    pub fn push(&self, piece: &[u8]) -> bool {
        self.share(&self.path.piece(piece))
    }

    /// Sends a piece that several clients share. It is in memory once.
    #[expect(clippy::must_use_candidate, reason = "a caller that has set when_gone need not look")]
    pub fn share(&self, piece: &StreamChunk) -> bool {
        // An empty chunk would end the response.
        !self.client().is_gone() && (piece.bytes().is_empty() || self.path.post_piece(piece.clone()))
    }

    /// The client of the stream.
    #[must_use]
    pub fn client(&self) -> &ClientStatus {
        self.path.client()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.client().is_gone() {
            self.path.post(ResponseMessage::End);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::outbox::{MAX_BEHIND_BYTES, Outbox};
    use super::*;
    use crate::events::chunk::StreamMemory;
    use crate::metrics::Metrics;
    use crate::time::Clock;

    fn received() -> (Arc<Outbox>, Arc<ClientStatus>, Responder) {
        let outbox = Arc::new(Outbox::default());
        let client = outbox.register(7, None);
        let log = Arc::new(RequestLog::new(Arc::new(Metrics::default()), Clock::system()));
        let path = outbox.claim(7).unwrap();
        (outbox, client, Responder::new(path, &Request::default(), Vec::new(), &log))
    }

    fn posted(outbox: &Outbox) -> Vec<ResponseMessage> {
        outbox
            .collect()
            .into_iter()
            .map(|(id, message)| if id == 7 { message } else { panic!("{id}") })
            .collect()
    }

    #[test]
    fn a_responder_posts_exactly_one_response() {
        let (outbox, _client, responder) = received();
        responder.send(Response::empty(204));
        let expected = Response::empty(204).with("X-Request-Id", "");
        assert_eq!(posted(&outbox), [ResponseMessage::Complete(expected)]);
    }

    #[test]
    fn a_dropped_responder_answers_500_unless_the_client_is_gone() {
        let (outbox, _client, responder) = received();
        drop(responder);
        assert!(matches!(&posted(&outbox)[..], [ResponseMessage::Complete(answer)] if answer.status == 500));
        let (outbox, client, responder) = received();
        client.hang_up();
        drop(responder);
        assert_eq!(posted(&outbox), [ResponseMessage::End]);
    }

    #[test]
    fn stream_chunks_are_in_order_and_end_with_the_stream() {
        let (outbox, _client, responder) = received();
        let stream = responder.stream(Response::of(200, "text/plain", b"a".to_vec()));
        assert!(stream.push(b"b"));
        drop(stream);
        let piece = |bytes| ResponseMessage::Chunk(StreamChunk::new(bytes, &Arc::<StreamMemory>::default()));
        let head = Response::of(200, "text/plain", Vec::new()).with("X-Request-Id", "");
        let expected = [ResponseMessage::Head(head), piece(b"a"), piece(b"b"), ResponseMessage::End];
        assert_eq!(posted(&outbox), expected);
    }

    #[test]
    fn disconnect_callbacks_run_once_and_at_once_if_the_client_is_gone() {
        let (_outbox, client, responder) = received();
        let called = Arc::new(AtomicUsize::new(0));
        let count = || {
            let called = Arc::clone(&called);
            move || {
                called.fetch_add(1, Ordering::SeqCst);
            }
        };
        responder.client().when_gone(Box::new(count()));
        assert!(!responder.client().is_gone());
        client.hang_up();
        client.hang_up();
        assert!(responder.client().is_gone() && called.load(Ordering::SeqCst) == 1);
        responder.client().when_gone(Box::new(count()));
        assert_eq!(called.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_client_too_far_behind_is_disconnected() {
        let (outbox, client, responder) = received();
        let stream = responder.stream(Response::empty(200));
        let half = vec![0; MAX_BEHIND_BYTES / 2];
        assert!(stream.push(&half) && stream.push(&half));
        client.delivered(half.len());
        assert!(stream.push(&half), "bytes that were taken no longer count");
        assert!(!stream.push(&[0]) && stream.client().is_gone());
        drop(stream);
        assert_eq!(posted(&outbox).last(), Some(&ResponseMessage::Disconnect));
    }
}
