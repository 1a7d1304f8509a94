//! The API as one table. It feeds the router, the check of what comes in, the authorisation and the OpenAPI document.

mod table;

use std::sync::Arc;

use super::dispatch::Call;
use super::exchange::Response;
use super::fields::Field;
use super::problem::{Code, Problem};
use super::responder::Responder;
use crate::app::Service;
pub use table::ROUTES;

/// The name of the heartbeat in the table.
pub const RENEW: &str = "renewLock";
/// The name of the heartbeats of many locks in the table.
pub const RENEW_MANY: &str = "renewLocks";

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// `GET`, `POST`, …
    pub method: &'static str,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// Its name in the OpenAPI document, the log and the metrics.
    pub name: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// What else is good to know.
    pub about: &'static str,
    /// What the caller must be allowed.
    pub right: Right,
    /// What carries it out.
    pub handler: Handler,
    /// Its query parameters.
    pub query: &'static [Field],
    /// Its body.
    pub body: BodyKind,
    /// The status, media type and schema of the answer when it goes well.
    pub answer: (u16, &'static str, &'static str),
    /// The refusals that are its own. Others follow from the rest of the row: see [`Route::refusals`].
    pub problems: &'static [Code],
    /// What it does to the store.
    pub store: Touches,
}

/// Carries out a call that was checked.
pub type Handler = fn(&Arc<Service>, &Call) -> Result<Answer, Problem>;

/// How a call is answered.
pub enum Answer {
    /// At once.
    Now(Response),
    /// By the owner of the responder.
    Later(Box<dyn FnOnce(Responder)>),
}

impl Answer {
    /// `promise` gets the responder.
    pub fn later(promise: impl FnOnce(Responder) + 'static) -> Self {
        Self::Later(Box::new(promise))
    }
}

/// What the caller must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Nothing: it says nothing about locks.
    Open,
    /// To see locks.
    Read,
    /// To have locks: the caller must be somebody.
    Lock,
    /// To watch over the server.
    Monitor,
    /// To see to workspaces, members and users for an app.
    Serve,
    /// To administer the server.
    Administer,
}

impl Right {
    /// Whose credentials have it, for a sentence.
    #[must_use]
    pub const fn scopes(self) -> &'static str {
        match self {
            Self::Open | Self::Read => "read, user, service or admin",
            Self::Lock => "user, service or admin",
            Self::Monitor => "read, service or admin",
            Self::Serve => "service or admin",
            Self::Administer => "admin",
        }
    }
}

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub enum BodyKind {
    /// None.
    None,
    /// JSON with these fields; it may be missing when all of them may.
    Json(&'static [Field]),
    /// The same, also as `text/plain`, as `navigator.sendBeacon` sends it; may hold the credentials.
    Beacon(&'static [Field]),
}

impl BodyKind {
    /// Its fields.
    #[must_use]
    pub const fn fields(self) -> &'static [Field] {
        match self {
            Self::None => &[],
            Self::Json(fields) | Self::Beacon(fields) => fields,
        }
    }
}

/// What an operation does to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touches {
    /// Nothing.
    Nothing,
    /// It reads.
    Reads,
    /// It writes.
    Writes,
    /// It reads, and then writes what follows from it.
    ReadsAndWrites,
}

impl Route {
    /// Every code that it can be refused with.
    #[must_use]
    pub fn refusals(&self) -> Vec<Code> {
        // What is asked of the gate and cannot be understood closes it.
        let mut codes = if self.name == GATE { Vec::new() } else { vec![Code::InvalidRequest] };
        match self.right {
            Right::Open => {}
            Right::Read => codes.extend([Code::Unauthenticated, Code::Forbidden]),
            Right::Lock | Right::Monitor | Right::Serve | Right::Administer => {
                codes.extend([Code::Unauthenticated, Code::Forbidden]);
            }
        }
        if !matches!(self.body, BodyKind::None) {
            codes.extend([Code::BodyTooLarge, Code::UnsupportedMediaType]);
        }
        match self.store {
            Touches::Nothing => {}
            Touches::Reads => codes.push(Code::Internal),
            Touches::Writes | Touches::ReadsAndWrites => {
                codes.extend([Code::Internal, Code::Busy, Code::StorageFull]);
            }
        }
        if self.path.contains("{workspace_id}") && self.right != Right::Serve {
            codes.push(Code::WorkspaceNotFound);
        }
        codes.push(Code::RateLimited);
        codes.extend(self.problems);
        codes.sort_unstable();
        codes.dedup();
        codes
    }
}

/// The name of the operation that a proxy asks: it understands nothing but 204, 401 and 403.
pub const GATE: &str = "passGate";
/// The name of the operation whose answer has no end.
pub const FOLLOW: &str = "followEvents";
/// The name of the operation that describes the API.
pub const DOCUMENT: &str = "readOpenApi";
/// The media type of most answers.
pub const JSON: &str = "application/json";
/// The media type of a stream of events.
pub const EVENT_STREAM: &str = "text/event-stream";
