//! What can go wrong inside. Knows no HTTP.
//!
//! That somebody else has the lock is never an error: contention is an outcome of the use case (see [`crate::domain`]).

use std::fmt;

/// Why somebody may not do something on a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There is no such workspace, or they may not know of it.
    NoSuchWorkspace,
    /// They are no member, or may only look on.
    NotAMember,
    /// They do not administer it.
    NotAnAdmin,
}

/// What there can be only so many of. Whoever wants one more is answered with 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `limits.requests_per_second`
    Requests,
    /// Credentials from one address that were good for nothing.
    Credentials,
    /// `limits.locks_per_user`
    Locks,
    /// `limits.streams_per_user`
    Streams,
    /// `limits.waiters_per_workspace`
    Line,
    /// `limits.waiters_per_user`
    Places,
    /// `limits.waiters`
    Waiters,
    /// `locks.knock_again_after`
    KnockAgain,
    /// As many knock for one lock as can.
    Knocks,
}

impl Limit {
    /// The label in the metrics: the setting's name, if there is one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_second",
            Self::Credentials => "bad_credentials",
            Self::Locks => "locks_per_user",
            Self::Streams => "streams_per_user",
            Self::Line => "waiters_per_workspace",
            Self::Places => "waiters_per_user",
            Self::Waiters => "waiters",
            Self::KnockAgain => "knock_again_after",
            Self::Knocks => "knocks",
        }
    }

    /// What the caller is told.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Requests => "You have made too many requests. Give it a moment.",
            Self::Credentials => "Too many wrong credentials have come from this address. Give it a moment.",
            Self::Locks => "You have as many locks as one user can have. Release one first.",
            Self::Streams => {
                "You follow the events as often as one user can. Close another page or stream first."
            }
            Self::Line => "Too many are waiting for this lock. Try again in a moment.",
            Self::Places => "You are waiting for this lock as often as one user can.",
            Self::Waiters => "Too many are waiting for locks. Try again in a moment.",
            Self::KnockAgain => "The holder has just declined. Give them a moment.",
            Self::Knocks => "Too many are asking for this lock already.",
        }
    }
}

/// Why a use case could not be carried out. Nothing was changed when one of these is returned, unless it is
/// [`Error::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// What was asked for cannot be meant. `field` names the part of the request that is wrong.
    Invalid {
        /// The field, header or parameter, as the caller wrote it.
        field: String,
        /// What is wrong with it and what is allowed: the end of a sentence that begins with the field.
        reason: String,
    },
    /// The store could not take the write in time: the queue is full, or somebody else holds the database. The same
    /// request may succeed in a moment.
    Busy,
    /// The disk, or the size that the settings allow, is full. Reads go on.
    StorageFull,
    /// The commit failed, and it may be on disk all the same: a restart would tell. The same request may be sent again. The
    /// text is for the log.
    Unknown(String),
    /// The disk or the file on it failed, before the commit. The text is for the log.
    Disk(String),
    /// A limit is reached, by this caller or by all together.
    TooMany(Limit),
    /// The caller may not do this on this workspace.
    Denied(Denied),
    /// The credentials of the caller ended while they waited.
    CredentialsEnded,
    /// The server is stopping.
    Stopping,
    /// A defect or a broken database. The text is for the log, never for the caller.
    Internal(String),
}

impl Error {
    /// `field` is not as it must be; `reason` says what is allowed.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { field, reason } => write!(formatter, "{field} {reason}"),
            Self::Busy => formatter.write_str("the store could not take the write in time"),
            Self::StorageFull => formatter.write_str("the disk is full"),
            Self::Denied(Denied::NoSuchWorkspace) => formatter.write_str("there is no such workspace"),
            Self::Denied(Denied::NotAMember | Denied::NotAnAdmin) => {
                formatter.write_str("the caller's role is not enough")
            }
            Self::TooMany(limit) => formatter.write_str(limit.sentence()),
            Self::CredentialsEnded => formatter.write_str("the credentials of the caller have ended"),
            Self::Stopping => formatter.write_str("the server is stopping"),
            Self::Unknown(cause) => write!(formatter, "the commit failed, and may be on disk: {cause}"),
            Self::Internal(cause) | Self::Disk(cause) => formatter.write_str(cause),
        }
    }
}

impl std::error::Error for Error {}
