//! The API as one table. It feeds the router, the check of what comes in, the authorisation and the OpenAPI document.

use std::sync::Arc;

use super::dispatch::Call;
use super::exchange::{Reply, Response};
use super::fields::{Field, Kind};
use super::handlers::{asking, bulk, events, locks, service as about};
use super::parameters::{
    ACQUIRE, BEACON, CURSOR, DECLINE, FENCE, FORCE, HANDOVER, HEARTBEAT, HEARTBEATS, KNOCK, LIMIT, RELEASE,
    REVOKE, SESSION, optional,
};
use super::problem::{Code, Problem};
use crate::lock::ID_BYTES;
use crate::service::Service;

/// One operation.
#[derive(Debug)]
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
    /// By whoever gets the duty to.
    Later(Box<dyn FnOnce(Reply)>),
}

impl Answer {
    /// `promise` gets the duty to answer.
    pub fn later(promise: impl FnOnce(Reply) + 'static) -> Self {
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
}

impl Route {
    /// Every code that it can be refused with.
    #[must_use]
    pub fn refusals(&self) -> Vec<Code> {
        let mut codes = vec![Code::InvalidRequest];
        match self.right {
            Right::Open => {}
            Right::Read => codes.push(Code::Forbidden),
            Right::Lock => codes.extend([Code::Unauthenticated, Code::Forbidden]),
        }
        if !matches!(self.body, BodyKind::None) {
            codes.extend([Code::BodyTooLarge, Code::UnsupportedMediaType]);
        }
        match self.store {
            Touches::Nothing => {}
            Touches::Reads => codes.push(Code::Internal),
            Touches::Writes => codes.extend([Code::Internal, Code::Busy, Code::StorageFull]),
        }
        codes.extend(self.problems);
        codes.sort_unstable();
        codes
    }
}

/// The media type of most answers.
pub const JSON: &str = "application/json";
/// The media type of a stream of events.
pub const EVENT_STREAM: &str = "text/event-stream";

/// All operations.
pub const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/api/v1/workspaces/{workspace_id}/lock",
        name: "acquireLock",
        summary: "Acquire the lock of a workspace",
        about: "A free workspace is locked, one's own live lock starts over, one's own expired lock comes back with its fence if nobody came between and the server has not restarted since it ended. Idempotent: a client that lost the response sends the same request again and gets the same lease. With `wait_ms` the request waits, in the order of arrival, until the lock is free, and then gets it; the same user and session waits once, and what it asked before is answered with 409. A lease that was granted after a wait ends after locks.claim_within unless a heartbeat claims it.",
        right: Right::Lock,
        handler: locks::acquire,
        query: &[FORCE],
        body: BodyKind::Json(ACQUIRE),
        answer: (200, JSON, "Acquired"),
        problems: &[Code::TakeoverForbidden, Code::LockHeld, Code::FenceMismatch, Code::RateLimited],
        store: Touches::Writes,
    },
    Route {
        method: "GET",
        path: "/api/v1/workspaces/{workspace_id}/lock",
        name: "readLock",
        summary: "Who has the lock of a workspace",
        about: "Never shows an expired lock.",
        right: Right::Read,
        handler: locks::read,
        query: &[],
        body: BodyKind::None,
        answer: (200, JSON, "LockState"),
        problems: &[],
        store: Touches::Reads,
    },
    Route {
        method: "DELETE",
        path: "/api/v1/workspaces/{workspace_id}/lock",
        name: "releaseLock",
        summary: "Release the lock of a workspace",
        about: "A repeat is harmless. With `force` an administrator ends anyone's.",
        right: Right::Lock,
        handler: locks::release,
        query: &[FENCE, SESSION, REVOKE],
        body: BodyKind::Json(RELEASE),
        answer: (200, JSON, "Released"),
        problems: &[Code::NotHolder],
        store: Touches::Writes,
    },
    Route {
        method: "POST",
        path: "/api/v1/workspaces/{workspace_id}/lock/release",
        name: "releaseLockByBeacon",
        summary: "Release the lock of a workspace, from a closing page",
        about: "The same as DELETE, as a request that `navigator.sendBeacon` can send: it takes `text/plain` too, and needs no CORS preflight.",
        right: Right::Lock,
        handler: locks::release,
        query: &[FENCE, SESSION, REVOKE],
        body: BodyKind::Beacon(BEACON),
        answer: (200, JSON, "Released"),
        problems: &[Code::NotHolder],
        store: Touches::Writes,
    },
    Route {
        method: "POST",
        path: "/api/v1/workspaces/{workspace_id}/lock/heartbeat",
        name: "renewLock",
        summary: "Renew one's lease",
        about: "A late heartbeat never revives a lease and never lengthens somebody else's.",
        right: Right::Lock,
        handler: locks::heartbeat,
        query: &[],
        body: BodyKind::Json(HEARTBEAT),
        answer: (200, JSON, "Renewed"),
        problems: &[Code::NotHolder, Code::LockNotFound],
        store: Touches::Writes,
    },
    Route {
        method: "POST",
        path: "/api/v1/workspaces/{workspace_id}/lock/knock",
        name: "knock",
        summary: "Ask the holder for the lock",
        about: "The holder sees it in the answer to its next heartbeat, in the lock and in the events, and hands the lock over or declines. If it does neither until `auto_grant_at` (locks.knock_grant_after), the lock passes to whoever knocked, for locks.claim_within unless a heartbeat claims it. The holder answers one at a time: `auto_grant_at` is null as long as others knocked before. A repeat changes the words and nothing else. A knock ends with the lease that it is about. 429 when the holder has just declined (locks.knock_again_after), or 20 have knocked.",
        right: Right::Lock,
        handler: asking::knock,
        query: &[],
        body: BodyKind::Json(KNOCK),
        answer: (202, JSON, "Heard"),
        problems: &[Code::LockNotFound, Code::KnockOnOwnLock, Code::RateLimited],
        store: Touches::Writes,
    },
    Route {
        method: "POST",
        path: "/api/v1/workspaces/{workspace_id}/lock/knock/decline",
        name: "declineKnock",
        summary: "Keep the lock, though somebody asks for it",
        about: "For the holder. The next who knocked is shown then. `declined` is false when nobody had knocked, so a repeat is harmless.",
        right: Right::Lock,
        handler: asking::decline,
        query: &[],
        body: BodyKind::Json(DECLINE),
        answer: (200, JSON, "Declined"),
        problems: &[Code::NotHolder, Code::LockNotFound],
        store: Touches::Writes,
    },
    Route {
        method: "POST",
        path: "/api/v1/workspaces/{workspace_id}/lock/handover",
        name: "handOverLock",
        summary: "Give the lock to somebody",
        about: "For the holder. To whoever knocked first, or anybody else. One transaction, with a new fence; the lease ends after locks.claim_within unless a heartbeat of the new holder claims it.",
        right: Right::Lock,
        handler: asking::hand_over,
        query: &[],
        body: BodyKind::Json(HANDOVER),
        answer: (200, JSON, "HandedOver"),
        problems: &[Code::NotHolder, Code::LockNotFound],
        store: Touches::Writes,
    },
    Route {
        method: "GET",
        path: "/api/v1/workspaces/{workspace_id}/presence",
        name: "readPresence",
        summary: "Who is there on a workspace",
        about: "Who has the lock, who knocked, who waits for it (in the order in which they will get it), and who follows the events of this workspace by its name (each person once, at most 500, not those who do not say who they are).",
        right: Right::Read,
        handler: asking::presence,
        query: &[],
        body: BodyKind::None,
        answer: (200, JSON, "Presence"),
        problems: &[],
        store: Touches::Reads,
    },
    Route {
        method: "GET",
        path: "/api/v1/workspaces/{workspace_id}/history",
        name: "readHistory",
        summary: "What happened to the lock of a workspace",
        about: "Newest first. Every lease begins with one event and ends with one. An event's `user_id`, `session_id` and `fence` are those of the lease that it is about; for `lock.taken_over` and `lock.handed_over` that is the lease that ended, and `detail.new_fence` is the one that followed. A handover because the holder did not answer is by whoever knocked.",
        right: Right::Read,
        handler: bulk::history,
        query: &[LIMIT, optional("cursor", Kind::Integer(1, i64::MAX), CURSOR)],
        body: BodyKind::None,
        answer: (200, JSON, "History"),
        problems: &[],
        store: Touches::Reads,
    },
    Route {
        method: "GET",
        path: "/api/v1/events",
        name: "followEvents",
        summary: "What happens to the locks, as it happens",
        about: "Server-Sent Events. `id:` is the revision, `event:` the type, `data:` the event as in the history, with `lock`: the lock that the event began or is about, if it is still there. Heartbeats are no events. A connection that begins again with the header `Last-Event-ID` (or with `since`) misses nothing and hears nothing twice; if what came after that revision is no longer kept, `event: reset` comes first: read the state anew. A lease that ends is told at its end. A comment comes at least every 15 seconds.",
        right: Right::Read,
        handler: events::follow,
        query: &[
            optional(
                "workspace_id",
                Kind::Several(100, ID_BYTES),
                "Only what happens there; may be given up to 100 times. Without it: everywhere.",
            ),
            optional("since", Kind::Integer(0, i64::MAX), "Begin after this revision; without it, now."),
        ],
        body: BodyKind::None,
        answer: (200, EVENT_STREAM, "EventStream"),
        problems: &[],
        store: Touches::Nothing,
    },
    Route {
        method: "GET",
        path: "/api/v1/locks",
        name: "listLocks",
        summary: "The live locks",
        about: "By workspace id.",
        right: Right::Read,
        handler: bulk::list,
        query: &[
            optional("user_id", Kind::Identifier(ID_BYTES), "Only those of this user."),
            optional("prefix", Kind::Text(ID_BYTES), "Only workspaces whose id begins like this."),
            LIMIT,
            optional("cursor", Kind::Identifier(ID_BYTES), CURSOR),
        ],
        body: BodyKind::None,
        answer: (200, JSON, "LockPage"),
        problems: &[],
        store: Touches::Reads,
    },
    Route {
        method: "POST",
        path: "/api/v1/locks/heartbeat",
        name: "renewLocks",
        summary: "Renew many leases",
        about: "All in one transaction; each with its own status.",
        right: Right::Lock,
        handler: bulk::heartbeats,
        query: &[],
        body: BodyKind::Json(HEARTBEATS),
        answer: (200, JSON, "RenewedMany"),
        problems: &[],
        store: Touches::Writes,
    },
    Route {
        method: "DELETE",
        path: "/api/v1/users/{user_id}/locks",
        name: "releaseLocksOfUser",
        summary: "Release all locks of a user",
        about: "One's own, or anyone's as an administrator. For logout, and for \"she is on holiday\".",
        right: Right::Lock,
        handler: bulk::release_user,
        query: &[],
        body: BodyKind::None,
        answer: (200, JSON, "ReleasedMany"),
        problems: &[],
        store: Touches::Writes,
    },
    Route {
        method: "GET",
        path: "/api/v1/openapi.json",
        name: "readOpenApi",
        summary: "This document",
        about: "OpenAPI 3.1.",
        right: Right::Open,
        handler: about::openapi,
        query: &[],
        body: BodyKind::None,
        answer: (200, JSON, "OpenApi"),
        problems: &[],
        store: Touches::Nothing,
    },
    Route {
        method: "GET",
        path: "/healthz",
        name: "isUp",
        summary: "Whether the process is up",
        about: "Asks nothing of the store.",
        right: Right::Open,
        handler: about::health,
        query: &[],
        body: BodyKind::None,
        answer: (200, JSON, "Status"),
        problems: &[],
        store: Touches::Nothing,
    },
    Route {
        method: "GET",
        path: "/readyz",
        name: "isReady",
        summary: "Whether the store takes a write",
        about: "Writes, to the disk.",
        right: Right::Open,
        handler: about::ready,
        query: &[],
        body: BodyKind::None,
        answer: (200, JSON, "Status"),
        problems: &[],
        store: Touches::Writes,
    },
    Route {
        method: "GET",
        path: "/metrics",
        name: "readMetrics",
        summary: "What is counted, for Prometheus",
        about: "OpenMetrics text.",
        right: Right::Open,
        handler: about::metrics,
        query: &[],
        body: BodyKind::None,
        answer: (200, crate::metrics::Metrics::CONTENT_TYPE, "Metrics"),
        problems: &[],
        store: Touches::Reads,
    },
];
