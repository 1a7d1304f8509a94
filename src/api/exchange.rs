//! A request and its reply, without sockets.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::deferred::Ticket;
use super::problem::{Code, Problem};

/// A complete request.
#[derive(Clone, Default)]
pub struct Request {
    /// The caller's if it sent a plausible one, else one of ours.
    pub id: String,
    /// `GET`, `POST`, …
    pub method: String,
    /// The path, still percent-encoded.
    pub path: String,
    /// What follows the question mark, if there is one.
    pub query: String,
    /// The headers that anybody here reads.
    pub headers: Headers,
    /// The body; empty when there is none.
    pub body: Vec<u8>,
    /// Where it comes from, as far as the door can tell.
    pub client: Option<IpAddr>,
}

/// The names of the headers that anybody here reads: those that the door lets through. See [`Headers`].
pub const WANTED: &[&str] = &[
    "Accept",
    "Authorization",
    "Content-Type",
    "Host",
    "Last-Event-ID",
    "Origin",
    "X-Lock-Fence",
    "X-Lock-Workspace",
    "X-Request-Id",
    "X-User-Id",
    "X-User-Name",
];

/// What the door calls the header in which a proxy that is believed says who the user is. No client can set it.
pub const ASSERTED_USER: &str = "X-Lockhouse-User";
/// The same of how they are shown.
pub const ASSERTED_NAME: &str = "X-Lockhouse-Name";

/// The headers that anybody here reads.
/// Not to be shown: some of them are secrets.
#[derive(Clone, Default)]
pub struct Headers {
    /// [`ASSERTED_USER`]
    pub asserted_user: Option<String>,
    /// [`ASSERTED_NAME`]
    pub asserted_name: Option<String>,
    /// `Accept`
    pub accept: Option<String>,
    /// `Authorization`
    pub authorization: Option<String>,
    /// `X-Lock-Fence`
    pub lock_fence: Option<String>,
    /// `X-Lock-Workspace`
    pub lock_workspace: Option<String>,
    /// `Content-Type`
    pub content_type: Option<String>,
    /// `Host`
    pub host: Option<String>,
    /// `Last-Event-ID`
    pub last_event_id: Option<String>,
    /// `Origin`
    pub origin: Option<String>,
    /// `X-User-Id`
    pub user_id: Option<String>,
    /// `X-User-Name`
    pub user_name: Option<String>,
    /// One of those that stands twice: which is meant cannot be told.
    pub twice: Option<&'static str>,
}

/// A complete response. The headers that every response has are added when it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The media type of the body, if there is one.
    pub content_type: Option<&'static str>,
    /// Further headers. What comes from a request must not get here unchecked.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Of a refusal, its code, for the log.
    pub code: Option<&'static str>,
}

impl Response {
    /// A body of type `content_type`.
    #[must_use]
    pub const fn of(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type: Some(content_type), headers: Vec::new(), body, code: None }
    }

    /// No body.
    #[must_use]
    pub const fn empty(status: u16) -> Self {
        Self { status, content_type: None, headers: Vec::new(), body: Vec::new(), code: None }
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What is known of a request when it is answered, for the log and the metrics.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The operation's name in the OpenAPI document; `none` if it is no operation.
    pub route: Option<&'static str>,
    /// Who called, if that was found out.
    pub user_id: Option<String>,
}

/// Where an answer goes.
pub trait Outlet: Send {
    /// Sends it.
    fn respond(self: Box<Self>, response: &Response, seen: &Seen);

    /// Puts it off: the door keeps the client until the ticket is used.
    fn hold(self: Box<Self>, seen: Seen, put_off: PutOff) -> Ticket;

    /// Whether it is known that nobody is there to get the answer.
    fn is_gone(&self) -> bool {
        false
    }

    /// Whether it may be that nobody is there.
    fn is_doubtful(&self) -> bool {
        false
    }
}

/// The duty to answer one request, once. Whoever drops it answers 500.
pub struct Reply {
    request_id: String,
    seen: Seen,
    outlet: Option<Box<dyn Outlet>>,
}

impl Reply {
    /// `outlet` gets the response, once.
    #[must_use]
    pub fn new(request_id: String, outlet: Box<dyn Outlet>) -> Self {
        Self { request_id, seen: Seen::default(), outlet: Some(outlet) }
    }

    /// The request's id.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Notes which operation it is.
    pub const fn is_for(&mut self, route: &'static str) {
        self.seen.route = Some(route);
    }

    /// Notes who called.
    pub fn is_by(&mut self, user_id: &str) {
        self.seen.user_id = Some(user_id.to_owned());
    }

    /// Answers.
    pub fn send(mut self, response: &Response) {
        if let Some(outlet) = self.outlet.take() {
            outlet.respond(response, &self.seen);
        }
    }

    /// Answers with a problem.
    pub fn refuse(self, problem: &Problem) {
        let response = problem.to_response(&self.request_id);
        self.send(&response);
    }

    /// Answers with what `make` makes; with 500 should it panic.
    pub fn send_with(self, make: impl FnOnce() -> Response) {
        // On a panic `self` is dropped, and answers 500.
        if let Ok(response) = catch_unwind(AssertUnwindSafe(make)) {
            self.send(&response);
        }
    }

    /// Answers later, when what the client waits for has come, without keeping a thread waiting.
    #[must_use]
    pub fn hold(mut self) -> Ticket {
        self.put_off(PutOff::UntilItComes)
    }

    /// The same duty, for an answer that takes its time to make: it is put off, so that it does not hold up those
    /// behind it.
    #[must_use]
    pub fn aside(mut self) -> Self {
        let seen = self.seen.clone();
        let ticket = self.put_off(PutOff::UntilItIsMade);
        Self { request_id: std::mem::take(&mut self.request_id), seen, outlet: Some(Box::new(ticket)) }
    }

    /// Whether it is known that nobody is there to get the answer. Then it need not be made.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.outlet.as_ref().is_none_or(|outlet| outlet.is_gone())
    }

    /// Whether it may be that nobody is there to get the answer. Others come first.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.outlet.as_ref().is_some_and(|outlet| outlet.is_doubtful())
    }

    /// Lets go of the duty, because nobody is there any more.
    pub fn give_up(mut self) {
        self.outlet = None;
    }

    fn put_off(&mut self, put_off: PutOff) -> Ticket {
        let seen = std::mem::take(&mut self.seen);
        self.outlet.take().map_or_else(Ticket::of_nobody, |outlet| outlet.hold(seen, put_off))
    }
}

/// How long an answer is put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOff {
    /// Until what the client waits for has come.
    UntilItComes,
    /// Until it is made, which is under way.
    UntilItIsMade,
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(outlet) = self.outlet.take() {
            log::error!(
                "request {} was dropped unanswered: a handler panicked, or forgot it",
                self.request_id
            );
            let problem = Problem::new(Code::Internal);
            outlet.respond(&problem.to_response(&self.request_id), &self.seen);
        }
    }
}
