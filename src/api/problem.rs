//! Refusals: the only place where an error becomes a status.
//!
//! Every refusal is a problem document (RFC 9457) with a stable `code` for programs and a `detail` fit to show a
//! person.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::value::RawValue;

use super::exchange::Response;
use super::fields::Count;
use super::lock::{LockOut, LostOut};
use crate::config::AuthMode;
use crate::error::{Denied, Error, Limit};

/// The media type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// The challenge of a 401 (RFC 9110 §11.6.1): the authentication scheme.
const BEARER: &str = "Bearer realm=\"lockhouse\"";

/// The `Retry-After` of a busy store (seconds).
const BUSY_RETRY_SECONDS: &str = "1";

macro_rules! codes {
    ($($(#[$about:meta])* $variant:ident = ($status:literal, $name:literal, $title:literal $(, $members:ty)?),)+) => {
        /// The stable problem codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$about])* $variant,)+
        }

        impl Code {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The status code.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// The `code` in the document.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The `title` in the document.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// The schema of the members that only this code has.
            fn members(self, generator: &mut SchemaGenerator) -> Schema {
                match self {
                    $(Self::$variant => {
                        let none: fn(&mut SchemaGenerator) -> Schema = |_| json_schema!({});
                        let all = [none $(, <$members>::json_schema)?];
                        all.last().map_or_else(Schema::default, |members| members(generator))
                    })+
                }
            }
        }
    };
}

codes! {
    /// Malformed JSON, a field out of range, an unknown field.
    InvalidRequest = (400, "invalid_request", "The request cannot be understood", Field<'static>),
    /// No or bad credentials.
    Unauthenticated = (401, "unauthenticated", "Who are you?"),
    /// The caller does not hold the live lock.
    NotHolder = (403, "not_holder", "You do not hold this lock", NotHolder<'static>),
    /// The caller is no member of the workspace, or their role is not enough.
    NotAMember = (403, "not_a_member", "You may not do this here"),
    /// The takeover policy does not allow it.
    TakeoverForbidden = (403, "takeover_forbidden", "Taking over is not allowed", Held<'static>),
    /// The caller may not call this.
    Forbidden = (403, "forbidden", "You may not do this"),
    /// There is no live lock.
    LockNotFound = (404, "lock_not_found", "There is no lock", NoLock<'static>),
    /// There is no such workspace, or none that the caller may see.
    WorkspaceNotFound = (404, "workspace_not_found", "There is no such workspace"),
    /// There is nothing at this path.
    NotFound = (404, "not_found", "There is nothing here"),
    /// The path has no such method.
    MethodNotAllowed = (405, "method_not_allowed", "This cannot be done here"),
    /// The request did not arrive in time.
    RequestTimeout = (408, "request_timeout", "The request did not arrive in time"),
    /// Another holder has the lock.
    LockHeld = (409, "lock_held", "Somebody else is editing", LockHeld<'static>),
    /// The lock has moved on.
    FenceMismatch = (409, "fence_mismatch", "The lock has moved on", Held<'static>),
    /// The caller asks the holder for a lock, and is the holder.
    KnockOnOwnLock = (409, "knock_on_own_lock", "You have this lock", Held<'static>),
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
    KnockTooSoon = (429, "knock_too_soon", "You were declined just now", KnockTooSoon<'static>),
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

/// The codes of refusals by the server, before the operation is known.
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

/// The members of `invalid_request`.
#[derive(Debug, Serialize, JsonSchema)]
struct Field<'a> {
    field: &'a str,
}

/// The members of `not_holder`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct NotHolder<'a> {
    /// The live lock.
    pub lock: Option<LockOut<'a>>,
    /// Whether the caller has it, by another lease or session.
    pub same_user: bool,
    /// How the last lease of the caller ended.
    pub lost: Option<LostOut<'a>>,
}

/// The member of codes that are about a live lock.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Held<'a> {
    /// The lock.
    pub lock: LockOut<'a>,
}

/// The member of `lock_not_found`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NoLock<'a> {
    /// How the last lease of the caller ended.
    pub lost: Option<LostOut<'a>>,
}

/// The members of `lock_held`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LockHeld<'a> {
    /// The lock.
    pub lock: LockOut<'a>,
    /// Whether the caller has it, from another session.
    pub same_user: bool,
    /// Whether `force` would take it over.
    pub takeover_allowed: bool,
    /// How long the holder has not been active.
    pub idle_for_ms: Count,
}

/// The members of `knock_too_soon`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KnockTooSoon<'a> {
    /// The lock.
    pub lock: LockOut<'a>,
    /// Until the caller may knock again.
    pub again_in_ms: Count,
}

/// Members of a JSON object, each as written. So numbers in the metadata are not parsed and rounded.
type Members = BTreeMap<String, Box<RawValue>>;

/// A refusal.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    members: Members,
    headers: Vec<(&'static str, String)>,
    /// The log entry, written when the problem is sent: the end of a sentence that begins with the request.
    cause: Option<(log::Level, String)>,
}

/// The part of a problem that is in the whole document and in the results of a batch.
#[derive(Debug, Serialize)]
pub struct Inner<'a> {
    code: &'static str,
    detail: &'a str,
    #[serde(flatten)]
    members: &'a Members,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    inner: Inner<'a>,
    r#type: String,
    title: &'static str,
    status: u16,
    request_id: &'a str,
}

impl Problem {
    /// A problem whose detail is the title of its code.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            code,
            detail: format!("{}.", code.title()),
            members: Members::new(),
            headers: Vec::new(),
            cause: None,
        }
    }

    /// Sets the detail: a sentence for a person.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds the members of the code.
    #[must_use]
    pub fn with(mut self, members: &impl Serialize) -> Self {
        // Parsing cannot fail: the text was written here.
        let text = serde_json::to_string(members).unwrap_or_default();
        self.members = serde_json::from_str(&text).unwrap_or_default();
        self
    }

    /// Adds a response header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A 401: there are no credentials, or they are not valid.
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

    /// A 429: a limit is reached. `retry_after` is the number of seconds to wait before retrying.
    #[must_use]
    pub fn limited(limit: Limit, retry_after: u64) -> Self {
        Self::new(Code::RateLimited).detail(limit.sentence()).header("Retry-After", retry_after.to_string())
    }

    /// A 503: the store is busy. `detail` is a sentence for a person.
    #[must_use]
    pub fn busy(detail: &str) -> Self {
        Self::new(Code::Busy).detail(detail).header("Retry-After", BUSY_RETRY_SECONDS)
    }

    /// A 400: `field` is invalid. `reason` continues the sentence that begins with the field.
    #[must_use]
    pub fn invalid(field: &str, reason: &str) -> Self {
        Self::new(Code::InvalidRequest).detail(format!("{field} {reason}.")).with(&Field { field })
    }

    /// The status code.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.code.status()
    }

    /// The detail: a sentence for a person.
    #[must_use]
    pub fn sentence(&self) -> &str {
        &self.detail
    }

    /// The problem as part of the results of a batch.
    #[must_use]
    pub fn inner(&self) -> Inner<'_> {
        Inner { code: self.code.name(), detail: &self.detail, members: &self.members }
    }

    /// The whole response. Logs the cause.
    #[must_use]
    pub fn to_response(&self, request_id: &str) -> Response {
        if let Some((level, cause)) = &self.cause {
            log::log!(*level, "request {request_id} {cause}");
        }
        let document = Document {
            inner: self.inner(),
            r#type: urn(self.code),
            title: self.code.title(),
            status: self.status(),
            request_id,
        };
        let mut body = serde_json::to_vec(&document).unwrap_or_default();
        body.push(b'\n');
        let mut response = Response::of(self.status(), CONTENT_TYPE, body);
        response.headers.clone_from(&self.headers);
        response.code = Some(self.code.name());
        response
    }

    fn caused_by(mut self, level: log::Level, cause: String) -> Self {
        self.cause = Some((level, cause));
        self
    }
}

/// Maps an error to its problem.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid { field, reason } => Self::invalid(&field, &reason),
            Error::Busy => Self::busy("The server could not take this in time. Try again in a moment."),
            Error::Denied(denied) => denied.into(),
            Error::CredentialsEnded => Self::new(Code::Unauthenticated),
            Error::TooMany(limit) => Self::limited(limit, 1),
            Error::Stopping => Self::busy("The server is stopping. Try again in a moment."),
            Error::StorageFull => Self::new(Code::StorageFull)
                .detail("The server has no room left to write this down; its operator must make room.")
                .caused_by(log::Level::Warn, "could not be written: the disk, or database.max_size, is full".to_owned()),
            Error::Unknown(cause) => Self::busy(
                "The server could not make sure that this is kept: it is unknown whether it was carried out. Ask again.",
            )
            .caused_by(log::Level::Error, format!("may or may not have been carried out: {cause}")),
            Error::Internal(cause) | Error::Disk(cause) => Self::new(Code::Internal)
                .detail("Something went wrong on the server. Its log tells what, under this request_id.")
                .caused_by(log::Level::Error, format!("failed: {cause}")),
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NoSuchWorkspace => Self::new(Code::WorkspaceNotFound),
            Denied::NotAMember => {
                Self::new(Code::NotAMember).detail("Only editors and admins of this workspace may lock it.")
            }
            Denied::NotAnAdmin => {
                Self::new(Code::Forbidden).detail("Only an admin of this workspace may do this.")
            }
        }
    }
}

fn urn(code: Code) -> String {
    format!("urn:lockhouse:problem:{}", code.name())
}

impl Code {
    /// The name of the code's schema: `lock_held` → `ProblemLockHeld`.
    #[must_use]
    pub fn schema_name(self) -> String {
        let word = |word: &str| {
            let (first, rest) = word.split_at_checked(1).unwrap_or_default();
            first.to_ascii_uppercase() + rest
        };
        format!("Problem{}", self.name().split('_').map(word).collect::<String>())
    }

    /// The schema of the whole document or, with `in_batch`, of the part in the results of a batch.
    pub(super) fn schema(self, in_batch: bool, generator: &mut SchemaGenerator) -> Schema {
        let mut properties = json_schema!({
            "status": { "const": self.status() },
            "code": { "const": self.name() },
            "detail": { "type": "string", "description": "A sentence fit to show a person." },
        });
        let more = if in_batch {
            json_schema!({ "workspace_id": { "type": "string" } })
        } else {
            json_schema!({
                "type": { "const": urn(self) }, "title": { "const": self.title() }, "request_id": { "type": "string" },
            })
        };
        let members = self.members(generator);
        let own = members.get("properties").and_then(|own| own.as_object()).cloned().unwrap_or_default();
        let all = properties.ensure_object();
        all.extend(more.as_object().cloned().unwrap_or_default());
        all.extend(own);
        let names: Vec<_> = all.keys().cloned().collect();
        json_schema!({ "type": "object", "properties": properties, "required": names })
    }
}
