//! Errors of the use cases, independent of HTTP.
//!
//! A lock held by another user is an outcome, not an error (see [`crate::domain`]).

use std::fmt;

/// Why a caller is not permitted to use a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There is no such workspace, or the caller may not see it.
    NoSuchWorkspace,
    /// The caller is not a member, or only a viewer.
    NotAMember,
    /// The caller is not an administrator of the workspace.
    NotAnAdmin,
}

/// A limit. The API answers with 429 when it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `limits.requests_per_second`
    Requests,
    /// Wrong credentials from one address.
    Credentials,
    /// `limits.locks_per_user`
    Locks,
    /// `limits.streams_per_user`
    Streams,
    /// `limits.waiters_per_workspace`
    WaitersPerWorkspace,
    /// `limits.waiters_per_user`
    WaitersPerUser,
    /// `limits.waiters`
    Waiters,
    /// `locks.knock_again_after`
    KnockAgain,
    /// Pending knocks of one lock.
    Knocks,
}

impl Limit {
    /// The label in the metrics: the name of the setting, if there is one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_second",
            Self::Credentials => "bad_credentials",
            Self::Locks => "locks_per_user",
            Self::Streams => "streams_per_user",
            Self::WaitersPerWorkspace => "waiters_per_workspace",
            Self::WaitersPerUser => "waiters_per_user",
            Self::Waiters => "waiters",
            Self::KnockAgain => "knock_again_after",
            Self::Knocks => "knocks",
        }
    }

    /// The sentence for the caller.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Requests => "You have made too many requests. Try again in a moment.",
            Self::Credentials => {
                "Too many wrong credentials have come from this address. Try again in a moment."
            }
            Self::Locks => "You hold the maximum number of locks of one user. Release one first.",
            Self::Streams => {
                "You have the maximum number of event streams of one user. Close another page or stream first."
            }
            Self::WaitersPerWorkspace => {
                "Too many requests are waiting for this lock. Try again in a moment."
            }
            Self::WaitersPerUser => "You have the maximum number of requests waiting for this lock.",
            Self::Waiters => "Too many requests are waiting for locks. Try again in a moment.",
            Self::KnockAgain => "The holder has just declined. Try again in a moment.",
            Self::Knocks => "Too many users are asking for this lock already.",
        }
    }
}

/// Why a use case failed. Nothing was changed, except possibly with [`Error::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A part of the request is not valid.
    Invalid {
        /// The field, header or parameter, as the caller wrote it.
        field: String,
        /// What is allowed, as the rest of a sentence that begins with the field.
        reason: String,
    },
    /// The store could not take the write in time: the queue is full, or another process holds the database. The same
    /// request may succeed later.
    Busy,
    /// The disk is full, or `database.max_size` is reached. Reads still work.
    StorageFull,
    /// The commit failed, but it may be on disk. The same request may be sent again. The text is for the log.
    Unknown(String),
    /// The disk or the database file failed before the commit. The text is for the log.
    Disk(String),
    /// A limit is reached.
    TooMany(Limit),
    /// The caller is not permitted to do this in this workspace.
    Denied(Denied),
    /// The credentials of the caller became invalid while the request waited.
    CredentialsEnded,
    /// The server is stopping.
    Stopping,
    /// A defect, or a corrupt database. The text is for the log and must not be sent to the caller.
    Internal(String),
}

impl Error {
    /// An error about `field`. `reason` says what is allowed.
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
