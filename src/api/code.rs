//! The problem codes: their statuses, titles, members and schemas.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use super::fields::Count;
use super::lock::{LockOut, LostOut};

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
    InvalidRequest = (400, "invalid_request", "Invalid request", InvalidField<'static>),
    /// No or bad credentials.
    Unauthenticated = (401, "unauthenticated", "Authentication required"),
    /// The caller does not hold the live lock.
    NotHolder = (403, "not_holder", "Not the holder of the lock", NotHolder<'static>),
    /// The caller is no member of the workspace, or their role is not enough.
    NotAMember = (403, "not_a_member", "Not permitted on this workspace"),
    /// The takeover policy does not allow it.
    TakeoverForbidden = (403, "takeover_forbidden", "Takeover is not allowed", Held<'static>),
    /// The caller may not call this.
    Forbidden = (403, "forbidden", "Not permitted"),
    /// There is no live lock.
    LockNotFound = (404, "lock_not_found", "No lock", NoLock<'static>),
    /// There is no such workspace, or none that the caller may see.
    WorkspaceNotFound = (404, "workspace_not_found", "Workspace not found"),
    /// There is nothing at this path.
    NotFound = (404, "not_found", "Not found"),
    /// The path has no such method.
    MethodNotAllowed = (405, "method_not_allowed", "Method not allowed"),
    /// The request did not arrive in time.
    RequestTimeout = (408, "request_timeout", "Request timeout"),
    /// Another holder has the lock.
    LockHeld = (409, "lock_held", "The lock is held by another session or user", LockHeld<'static>),
    /// The live lock has another fence.
    FenceMismatch = (409, "fence_mismatch", "The lock has another fence now", Held<'static>),
    /// The caller knocks on their own lock.
    KnockOnOwnLock = (409, "knock_on_own_lock", "You hold this lock", Held<'static>),
    /// The caller unlocks another lock of Terraform than the live one.
    OtherStateLock = (409, "other_state_lock", "The state has another lock"),
    /// A body without a `Content-Length`.
    LengthRequired = (411, "length_required", "The body must have a Content-Length"),
    /// The body is larger than allowed.
    BodyTooLarge = (413, "body_too_large", "The body is too large"),
    /// The target is longer than allowed.
    UriTooLong = (414, "uri_too_long", "The path is too long"),
    /// The media type of the body is not supported.
    UnsupportedMediaType = (415, "unsupported_media_type", "Unsupported media type"),
    /// A path or a repository that cannot be locked.
    Unprocessable = (422, "unprocessable", "Invalid path"),
    /// The state of Terraform has a lock.
    StateLocked = (423, "state_locked", "The state is locked"),
    /// `Expect` is not `100-continue`.
    ExpectationFailed = (417, "expectation_failed", "Expectation failed"),
    /// A limit is reached.
    RateLimited = (429, "rate_limited", "A limit is reached"),
    /// The holder has just declined a knock of the caller.
    KnockTooSoon = (429, "knock_too_soon", "The holder has just declined", KnockTooSoon<'static>),
    /// The headers are larger than allowed.
    HeadersTooLarge = (431, "headers_too_large", "The headers are too large"),
    /// A defect; the cause is in the log.
    Internal = (500, "internal", "Internal error"),
    /// The store could not take the write in time.
    Busy = (503, "busy", "The server is busy"),
    /// Neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported = (505, "version_not_supported", "HTTP version not supported"),
    /// The disk is full.
    StorageFull = (507, "storage_full", "The disk is full"),
}

/// The codes of refusals by the server, before the operation is known.
pub const HTTP_REFUSALS: &[Code] = &[
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
pub struct InvalidField<'a> {
    /// The path to the field, such as `locks[3].fence`.
    pub field: &'a str,
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

impl Code {
    /// Whether the refusal is a lock info of Terraform in place of a problem document.
    #[must_use]
    pub const fn is_lock_info(self) -> bool {
        matches!(self, Self::OtherStateLock | Self::StateLocked)
    }

    /// The `type` in the document.
    #[must_use]
    pub fn urn(self) -> String {
        format!("urn:lockhouse:problem:{}", self.name())
    }

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
    pub fn schema(self, in_batch: bool, generator: &mut SchemaGenerator) -> Schema {
        let mut properties = json_schema!({
            "status": { "const": self.status() },
            "code": { "const": self.name() },
            "detail": { "type": "string", "description": "A sentence fit to show a person." },
        });
        let more = if in_batch {
            json_schema!({ "workspace_id": { "type": "string" } })
        } else {
            json_schema!({
                "type": { "const": self.urn() }, "title": { "const": self.title() }, "request_id": { "type": "string" },
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
