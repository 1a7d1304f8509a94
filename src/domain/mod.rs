//! Domain types: locks, requests and outcomes. No SQL, no HTTP, no clock.
//!
//! [`rules`] contains the decisions. [`handoff`] contains knocks and handovers. [`access`] contains the
//! settings that change the rules. [`event`] contains the history.

pub mod access;
pub mod event;
pub mod grace;
pub mod handoff;
pub mod member;
mod name;
pub mod rules;
pub mod token;
pub mod waitlist;

use crate::error::Error;
use crate::time::{Timestamp, Ttl};
pub use name::DisplayName;

/// Maximum size of a workspace or user id, in bytes.
pub const ID_BYTES: usize = 255;
/// Maximum size of a workspace id that begins with `lfs/`, in bytes.
pub const LFS_BYTES: usize = 1_100;
/// Maximum size of a session id, in bytes.
pub const SESSION_BYTES: usize = 128;
/// Maximum size of a display name, in bytes.
pub const NAME_BYTES: usize = 200;
/// Maximum size of a note, in bytes.
pub const NOTE_BYTES: usize = 500;
/// Maximum size of a knock's message, and of the reason of a takeover or a revocation, in bytes.
pub const MESSAGE_BYTES: usize = 500;
/// Maximum size of the metadata, in bytes of JSON without white space.
pub const METADATA_BYTES: usize = 4096;

/// Prefix of workspace ids that are file paths.
const LFS_PREFIX: &str = "lfs/";

/// Checks for 1 to `most` bytes of UTF-8 without control characters.
///
/// # Errors
/// [`Error::Invalid`] with `field` and the allowed values.
fn identifier(field: &str, raw: &str, most: usize) -> Result<String, Error> {
    if raw.is_empty() || raw.len() > most {
        return Err(Error::invalid(field, format!("must have 1 to {most} bytes; this has {}", raw.len())));
    }
    if raw.chars().any(char::is_control) {
        return Err(Error::invalid(field, "must not contain control characters"));
    }
    Ok(raw.to_owned())
}

/// Like [`identifier`], for an id that is used in URL paths. `.` and `..` are refused: proxies and browsers
/// remove these segments from paths (RFC 3986 §5.2.4), percent-encoded or not.
fn path_segment(field: &str, raw: &str, most: usize) -> Result<String, Error> {
    if matches!(raw, "." | "..") {
        return Err(Error::invalid(field, "must not be . or .."));
    }
    identifier(field, raw, most)
}

macro_rules! identifier {
    ($(#[$about:meta])* $name:ident, $field:literal, $check:expr) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Parses `raw`.
            ///
            /// # Errors
            /// [`Error::Invalid`] when `raw` is not valid.
            pub fn parse(raw: &str) -> Result<Self, Error> {
                Self::parse_as($field, raw)
            }

            /// Parses `raw`. The error names `field`, for callers that use another field name.
            ///
            /// # Errors
            /// Same as [`Self::parse`], with `field` as the field name.
            pub fn parse_as(field: &str, raw: &str) -> Result<Self, Error> {
                let check: fn(&str, &str) -> Result<String, Error> = $check;
                check(field, raw).map(Self)
            }

            /// Wraps a stored value without a check. The store holds only values that [`Self::parse`]
            /// accepted.
            pub(crate) const fn trusted(stored: String) -> Self {
                Self(stored)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

identifier!(
    /// Id of a workspace, the thing that people edit. 1 to 255 bytes of UTF-8 (1 to 1,100 if it begins with
    /// `lfs/`), no control characters, not `.` or `..`.
    WorkspaceId,
    "workspace_id",
    |field, raw| path_segment(field, raw, if raw.starts_with(LFS_PREFIX) { LFS_BYTES } else { ID_BYTES })
);
identifier!(
    /// Id of a user. 1 to 255 bytes of UTF-8, no control characters, not `.` or `..`.
    UserId,
    "user_id",
    |field, raw| path_segment(field, raw, ID_BYTES)
);
identifier!(
    /// Id of a session: one tab, device or process of a user. 1 to 128 bytes of UTF-8, no control characters.
    SessionId,
    "session_id",
    |field, raw| identifier(field, raw, SESSION_BYTES)
);

/// Fencing token of a lease. A new fence is greater than every earlier fence of every workspace, across
/// release, expiry and restart. A storage system that keeps the highest fence it has seen can refuse a late
/// write.
///
/// A fence is at least the wall clock at the time of the grant, in microseconds since 1970. It is also above
/// a floor that is kept outside the database. So fences grow even when an older backup is restored or the
/// database is lost. Fences stay below 2^53 until the year 2255, so a JavaScript number can hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub i64);

impl Fence {
    /// Greatest fence that is derived from a clock: the start of the year 2250, in microseconds since 1970. A
    /// later clock value is not trusted.
    pub const GREATEST_BY_CLOCK: i64 = 8_835_955_200_000_000;
}

/// Lease on a workspace. A workspace has at most one. It ends at `expires_at` unless it is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The locked workspace.
    pub workspace_id: WorkspaceId,
    /// Id of the holder.
    pub user_id: UserId,
    /// Display name of the holder, if known.
    pub user_name: Option<DisplayName>,
    /// Session of the holder, if known.
    pub session_id: Option<SessionId>,
    /// Fencing token of this lease.
    pub fence: Fence,
    /// Time of the grant.
    pub acquired_at: Timestamp,
    /// Time of the last renewal.
    pub renewed_at: Timestamp,
    /// Time of the holder's last known activity.
    pub last_active_at: Timestamp,
    /// End of the lease, exclusive: at this instant the lock is no longer live.
    pub expires_at: Timestamp,
    /// Duration of a renewal.
    pub ttl: Ttl,
    /// Note of the holder, up to 500 bytes.
    pub note: Option<String>,
    /// JSON object, encoded without white space, up to 4 KiB.
    pub metadata: String,
    /// Whether the holder has acquired or renewed this lease since the grant.
    pub grant_state: GrantState,
    /// Knocks on this lease.
    pub knocks: handoff::Knocks,
    /// When the timer checks this row next, as stored. Not after [`Lock::due_at`]. A renewal does not change
    /// it.
    pub check_at: Timestamp,
}

/// Whether the holder has acquired or renewed the lease since the grant. The recipient of a handover may be
/// offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantState {
    /// The holder acquired the lease, or has renewed it since.
    Claimed,
    /// The lease was granted to the session that waited or knocked. It is not renewed yet.
    ToSession,
    /// The lease was granted to a user in any session. The first session that renews it becomes the holder's
    /// session.
    ToUser,
}

impl Claim {
    /// Whether `lock` has the claimed fence. True if no fence is given.
    #[must_use]
    pub fn names(&self, lock: &Lock) -> bool {
        self.fence.is_none_or(|fence| fence == lock.fence)
    }
}

impl Lock {
    /// Whether the lease has not ended at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// First instant at which the lock changes without a request: a due grant or the expiry.
    #[must_use]
    pub fn due_at(&self) -> Timestamp {
        self.knocks.grant_at.map_or(self.expires_at, |grant| grant.min(self.expires_at))
    }
}

/// State of a workspace when a use case begins, after due expiries and grants are applied ([`rules::due`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack of a use case")]
pub enum WorkspaceState {
    /// The workspace has a lock.
    Locked(Lock),
    /// The workspace has no lock.
    Free {
        /// The last ended lease, if it is still in the history.
        last: Option<LastLease>,
    },
}

/// The last ended lease of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastLease {
    /// Id of its holder.
    pub user_id: UserId,
    /// Session of its holder.
    pub session_id: Option<SessionId>,
    /// Its fencing token.
    pub fence: Fence,
    /// How it ended.
    pub ending: event::Ending,
    /// When it ended.
    pub ended_at: Timestamp,
}

/// Time and fence for one decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Lease time.
    pub now: Timestamp,
    /// When a server last opened the store. A lease that ended earlier is not reclaimed: if an older database
    /// was restored, later grants are unknown, and a fence must never go back. Idle time also starts here,
    /// because earlier the server could not receive activity.
    pub opened_at: Timestamp,
    /// Fence for a new lease, greater than every earlier fence.
    pub next_fence: Fence,
}

/// Whether an acquire takes over a lease of another holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// No takeover.
    No,
    /// Take over from any holder.
    AnyHolder,
    /// Take over only the lease with this fence.
    OnlyFence(Fence),
}

/// Request to acquire the lock of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquire {
    /// The workspace to lock.
    pub workspace_id: WorkspaceId,
    /// Id of the caller.
    pub user_id: UserId,
    /// Display name of the caller.
    pub user_name: Option<DisplayName>,
    /// Session of the caller.
    pub session_id: Option<SessionId>,
    /// Privilege of the caller.
    pub privilege: access::Privilege,
    /// Requested lease duration; the default if `None`.
    pub ttl: Option<Ttl>,
    /// Whether to take over.
    pub force: Force,
    /// Note on the lease.
    pub note: Option<String>,
    /// JSON object, encoded.
    pub metadata: Option<String>,
    /// Reason of the takeover, for the history.
    pub reason: Option<String>,
}

/// Outcome of an [`Acquire`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// The workspace was free. A new lease begins.
    Acquired(Lock),
    /// The caller held the lease. It is renewed, with the same fence.
    Renewed(Lock),
    /// The caller's own lease had expired, and no other lease began in between. It resumes with the same
    /// fence.
    Reclaimed(Lock),
    /// The lease of another holder was ended by takeover.
    TakenOver {
        /// The new lease.
        lock: Lock,
        /// The ended lease.
        previous: Box<Lock>,
    },
    /// Another holder has the lock.
    Held {
        /// The live lock.
        lock: Lock,
        /// Whether the holder is the same user in another session.
        same_user: bool,
        /// Whether the caller may take over.
        takeover_allowed: bool,
        /// How long the holder has been idle, as far as known.
        idle: Ttl,
    },
    /// The fence of the takeover is not the fence of the live lock.
    FenceMismatch(Lock),
    /// The policy does not allow the caller to take over.
    TakeoverForbidden(Lock),
    /// The caller has reached the limit of locks per user.
    TooMany,
}

/// Claim of a caller to hold a live lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Id of the caller.
    pub user_id: UserId,
    /// Session of the caller, if given.
    pub session_id: Option<SessionId>,
    /// Fence of the claimed lease, if given.
    pub fence: Option<Fence>,
}

/// Request to renew a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The claimed lease.
    pub claim: Claim,
    /// Requested duration from now; unchanged if `None`.
    pub ttl: Option<Ttl>,
    /// Activity of the holder since the last heartbeat.
    pub activity: Activity,
}

/// Activity of the holder since the last heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// The holder was active.
    Active,
    /// The holder was idle, or the activity is not given.
    Idle,
}

/// Outcome of a [`Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeartbeatOutcome {
    /// The lease is renewed.
    Renewed(Lock),
    /// The live lock is not the claimed one.
    NotHolder {
        /// The live lock.
        lock: Lock,
        /// Whether the holder is the same user, with another lease or session.
        same_user: bool,
    },
    /// No live lock.
    NoLock,
}

/// Request to release a lease, or to revoke it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The claimed lease.
    pub claim: Claim,
    /// Display name of the caller, for the history.
    pub user_name: Option<DisplayName>,
    /// Whether this is a release or a revocation.
    pub authority: Authority,
    /// Privilege of the caller.
    pub privilege: access::Privilege,
    /// Reason, for the history.
    pub reason: Option<String>,
}

/// Authority to end a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Release: the holder ends its own lease.
    Holder,
    /// Revocation: an administrator ends a lease of any holder.
    Administrator,
}

/// Outcome of a [`Release`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// The lease ended.
    Released(Lock),
    /// There was no live lock.
    Nothing,
    /// The claimed lease is live, but the caller may not revoke it.
    Forbidden(Lock),
    /// The live lock is not the claimed one.
    NotHolder {
        /// The live lock.
        lock: Lock,
        /// Whether the holder is the same user, with another lease or session.
        same_user: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_maximum_length_and_no_control_characters() {
        assert!(WorkspaceId::parse("team/design 42 🎨").is_ok());
        assert!(WorkspaceId::parse(&"w".repeat(255)).is_ok());
        assert!(WorkspaceId::parse(&"w".repeat(256)).is_err());
        assert!(SessionId::parse(&"s".repeat(129)).is_err());
        for bad in ["", "a\nb", "a\u{7f}", "a\u{85}", "\0"] {
            assert!(UserId::parse(bad).is_err(), "{bad:?}");
        }
        let lfs = |bytes: usize| WorkspaceId::parse(&format!("lfs/{}", "x".repeat(bytes - 4)));
        assert!(lfs(1_100).is_ok() && lfs(1_101).is_err());
    }

    #[test]
    fn dot_segments_are_not_ids() {
        for bad in [".", ".."] {
            assert!(WorkspaceId::parse(bad).is_err() && UserId::parse(bad).is_err(), "{bad}");
            assert!(SessionId::parse(bad).is_ok(), "sessions stand in no path");
        }
        for fine in ["...", "a/..", "./a", ".a"] {
            assert!(WorkspaceId::parse(fine).is_ok() && UserId::parse(fine).is_ok(), "{fine}");
        }
    }
}
