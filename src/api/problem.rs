//! Refusals: the only place where an error becomes a status.
//!
//! Every refusal is a problem document (RFC 9457) with a stable `code` for programs and a `detail` fit to show a
//! person.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

pub use super::code::Code;
use super::code::InvalidField;
use super::exchange::Response;
use crate::config::AuthMode;
use crate::error::{Denied, Error, Limit};

/// The media type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// The challenge of a 401 (RFC 9110 §11.6.1): the authentication scheme.
const BEARER: &str = "Bearer realm=\"lockhouse\"";

/// The `Retry-After` of a busy store (seconds).
const BUSY_RETRY_SECONDS: &str = "1";

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
            AuthMode::None => ("Send the user id in the header X-User-Id.", "X-User-Id realm=\"lockhouse\""),
            AuthMode::Token => ("Send a valid token in the header Authorization: Bearer lh_….", BEARER),
            AuthMode::Jwt => ("Send a valid JWT, or a token, in the header Authorization: Bearer ….", BEARER),
            AuthMode::Proxy => (
                "Sign in at the proxy, or send a valid token in the header Authorization: Bearer lh_….",
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
        Self::new(Code::InvalidRequest).detail(format!("{field} {reason}.")).with(&InvalidField { field })
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
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

    /// A member of the document.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&RawValue> {
        self.members.get(name).map(|raw| &**raw)
    }

    /// The members of the code, as a JSON object.
    #[must_use]
    pub fn members(&self) -> Vec<u8> {
        serde_json::to_vec(&self.members).unwrap_or_default()
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
            r#type: self.code.urn(),
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
            Error::Busy => Self::busy("The server could not store this in time. Try again in a moment."),
            Error::Denied(denied) => denied.into(),
            Error::CredentialsEnded => Self::new(Code::Unauthenticated),
            Error::TooMany(limit) => Self::limited(limit, 1),
            Error::Stopping => Self::busy("The server is stopping. Try again in a moment."),
            Error::StorageFull => Self::new(Code::StorageFull)
                .detail("The disk of the server is full. Its operator must free space.")
                .caused_by(log::Level::Warn, "could not be written: the disk, or database.max_size, is full".to_owned()),
            Error::Unknown(cause) => Self::busy(
                "The server could not confirm the write. It may or may not have been stored. Send the request again.",
            )
            .caused_by(log::Level::Error, format!("may or may not have been carried out: {cause}")),
            Error::Internal(cause) | Error::Disk(cause) => Self::new(Code::Internal)
                .detail("The server failed. Its log has the cause under this request_id.")
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
