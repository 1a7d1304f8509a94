//! Refusals: the only place where an error becomes a status.
//!
//! Every refusal is a problem document (RFC 9457) with a stable `code` for programs and a `detail` fit to show a
//! person.

use serde::Serialize;

use super::exchange::Response;
use super::wire::{Members, raw};
use crate::config::AuthMode;
use crate::error::{Denied, Error, Limit};

/// The media type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// The challenge of a 401 (RFC 9110 §11.6.1): which scheme is asked for.
const BEARER: &str = "Bearer realm=\"lockhouse\"";

/// Seconds after which a store that is busy is worth another try.
const BUSY_RETRY_SECONDS: &str = "1";

macro_rules! codes {
    ($($(#[$about:meta])* $variant:ident = ($status:literal, $name:literal, $title:literal),)+) => {
        /// The stable codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$about])* $variant,)+
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The status code.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// The name in the document.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The title in the document.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }
        }
    };
}

codes! {
    /// Malformed JSON, a field out of range, an unknown field.
    InvalidRequest = (400, "invalid_request", "The request cannot be understood"),
    /// No or bad credentials.
    Unauthenticated = (401, "unauthenticated", "Who are you?"),
    /// The caller does not hold the live lock.
    NotHolder = (403, "not_holder", "You do not hold this lock"),
    /// The caller is no member of the workspace, or their role is not enough.
    NotAMember = (403, "not_a_member", "You may not do this here"),
    /// The takeover policy does not allow it.
    TakeoverForbidden = (403, "takeover_forbidden", "Taking over is not allowed"),
    /// The caller may not call this.
    Forbidden = (403, "forbidden", "You may not do this"),
    /// There is no live lock.
    LockNotFound = (404, "lock_not_found", "There is no lock"),
    /// There is no such workspace, or none that the caller may see.
    WorkspaceNotFound = (404, "workspace_not_found", "There is no such workspace"),
    /// There is nothing at this path.
    NotFound = (404, "not_found", "There is nothing here"),
    /// The path has no such method.
    MethodNotAllowed = (405, "method_not_allowed", "This cannot be done here"),
    /// The request did not arrive in time.
    RequestTimeout = (408, "request_timeout", "The request did not arrive in time"),
    /// Another holder has the lock.
    LockHeld = (409, "lock_held", "Somebody else is editing"),
    /// The lock has moved on.
    FenceMismatch = (409, "fence_mismatch", "The lock has moved on"),
    /// The caller asks the holder for a lock, and is the holder.
    KnockOnOwnLock = (409, "knock_on_own_lock", "You have this lock"),
    /// A body whose length is not said beforehand.
    LengthRequired = (411, "length_required", "The body must have a Content-Length"),
    /// The body is larger than allowed.
    BodyTooLarge = (413, "body_too_large", "The body is too large"),
    /// The target is longer than allowed.
    UriTooLong = (414, "uri_too_long", "The path is too long"),
    /// The body is not of a type that is understood.
    UnsupportedMediaType = (415, "unsupported_media_type", "The body is of the wrong type"),
    /// `Expect` asks for something that is not there.
    ExpectationFailed = (417, "expectation_failed", "This cannot be expected here"),
    /// More than is allowed, in all or to this caller.
    RateLimited = (429, "rate_limited", "Too much at once"),
    /// The holder has just declined a knock of the caller.
    KnockTooSoon = (429, "knock_too_soon", "You were declined just now"),
    /// The headers are larger than allowed.
    HeadersTooLarge = (431, "headers_too_large", "The headers are too large"),
    /// A defect; the cause is in the log.
    Internal = (500, "internal", "Something is broken here"),
    /// The store could not take the write in time.
    Busy = (503, "busy", "Too busy just now"),
    /// Neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported = (505, "version_not_supported", "This version of HTTP is not spoken here"),
    /// The disk is full.
    StorageFull = (507, "storage_full", "The disk is full"),
}

/// The codes of the refusals by the server, before any operation is found.
pub const DOOR: &[Code] = &[
    Code::InvalidRequest,
    Code::RequestTimeout,
    Code::LengthRequired,
    Code::BodyTooLarge,
    Code::UriTooLong,
    Code::ExpectationFailed,
    Code::HeadersTooLarge,
    Code::Busy,
    Code::VersionNotSupported,
];

/// A refusal.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    members: Members,
    headers: Vec<(&'static str, String)>,
}

impl Problem {
    /// A refusal with its general sentence.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self { code, detail: format!("{}.", code.title()), members: Members::new(), headers: Vec::new() }
    }

    /// The sentence to show.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// One more member of the document.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Serialize) -> Self {
        self.members.insert(name, raw(&value));
        self
    }

    /// One more header of the response.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Nobody is named, or what names them is good for nothing.
    #[must_use]
    pub fn unauthenticated(mode: AuthMode) -> Self {
        let (how_to, challenge) = match mode {
            AuthMode::None => ("Say who you are in the header X-User-Id.", "X-User-Id realm=\"lockhouse\""),
            AuthMode::Token => ("Send a valid token in the header Authorization: Bearer lh_….", BEARER),
            AuthMode::Jwt => ("Send a valid JWT, or a token, in the header Authorization: Bearer ….", BEARER),
            AuthMode::Proxy => (
                "Sign in at the proxy in front, or send a valid token in the header Authorization: Bearer lh_….",
                BEARER,
            ),
        };
        Self::new(Code::Unauthenticated).detail(how_to).header("WWW-Authenticate", challenge)
    }

    /// There are too many already; it may go well after so many seconds.
    #[must_use]
    pub fn limited(limit: Limit, retry_after: u64) -> Self {
        Self::new(Code::RateLimited).detail(limit.sentence()).header("Retry-After", retry_after.to_string())
    }

    /// The store cannot do it just now; `detail` is the sentence to show.
    #[must_use]
    pub fn busy(detail: &str) -> Self {
        Self::new(Code::Busy).detail(detail).header("Retry-After", BUSY_RETRY_SECONDS)
    }

    /// `field` is not as it must be; `reason` is the rest of the sentence.
    #[must_use]
    pub fn invalid(field: &str, reason: &str) -> Self {
        Self::new(Code::InvalidRequest).detail(format!("{field} {reason}.")).member("field", field)
    }

    /// The status code.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.code.status()
    }

    /// The sentence to show.
    #[must_use]
    pub fn sentence(&self) -> &str {
        &self.detail
    }

    /// The document without its `status` and `request_id`: what stands in for it inside a batch.
    #[must_use]
    pub fn inner(&self) -> Members {
        let mut document = self.members.clone();
        document.insert("code", raw(self.code.name()));
        document.insert("detail", raw(&self.detail));
        document
    }

    /// The whole response.
    #[must_use]
    pub fn to_response(&self, request_id: &str) -> Response {
        let mut document = self.inner();
        document.insert("type", raw(&format!("urn:lockhouse:problem:{}", self.code.name())));
        document.insert("title", raw(self.code.title()));
        document.insert("status", raw(&self.code.status()));
        document.insert("request_id", raw(request_id));
        let mut response =
            Response::of(self.status(), CONTENT_TYPE, format!("{}\n", raw(&document).get()).into_bytes());
        response.headers.clone_from(&self.headers);
        response.code = Some(self.code.name());
        response
    }

    /// What the caller is told of an error, and the log of its cause.
    #[must_use]
    pub fn of(error: &Error, request_id: &str) -> Self {
        match error {
            Error::Invalid { field, reason } => Self::invalid(field, reason),
            Error::Busy => Self::busy("The server could not take this in time. Try again in a moment."),
            Error::Denied(Denied::NoSuchWorkspace) => Self::new(Code::WorkspaceNotFound),
            Error::Denied(Denied::NotAMember) => {
                Self::new(Code::NotAMember).detail("Only editors and admins of this workspace may lock it.")
            }
            Error::Denied(Denied::NotAnAdmin) => {
                Self::new(Code::Forbidden).detail("Only an admin of this workspace may do this.")
            }
            Error::CredentialsEnded => Self::new(Code::Unauthenticated),
            Error::TooMany(limit) => Self::limited(*limit, 1),
            Error::Stopping => Self::busy("The server is stopping. Try again in a moment."),
            Error::StorageFull => {
                log::warn!(
                    "request {request_id} could not be written: the disk, or database.max_size, is full"
                );
                Self::new(Code::StorageFull)
                    .detail("The server has no room left to write this down; its operator must make room.")
            }
            Error::Unknown(cause) => {
                log::error!("request {request_id} may or may not have been carried out: {cause}");
                Self::busy(
                    "The server could not make sure that this is kept: it is unknown whether it was carried out. Ask again.",
                )
            }
            Error::Internal(cause) | Error::Disk(cause) => {
                log::error!("request {request_id} failed: {cause}");
                Self::new(Code::Internal)
                    .detail("Something went wrong on the server. Its log tells what, under this request_id.")
            }
        }
    }
}
