//! The domain: what a lock is, who asks for it, and what the answers can be. No SQL, no HTTP, no clock.
//!
//! Read [`rules`] for the rules of the product, [`handoff`] for asking the holder, [`access`] for what the settings can
//! change about them, and [`event`] for what is remembered.

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

/// Most bytes of a workspace or user id.
pub const ID_BYTES: usize = 255;
/// Most bytes of a workspace id that begins with `lfs/`.
pub const LFS_BYTES: usize = 1_100;
/// Most bytes of a session id.
pub const SESSION_BYTES: usize = 128;
/// Most bytes of a display name.
pub const NAME_BYTES: usize = 200;
/// Most bytes of a note.
pub const NOTE_BYTES: usize = 500;
/// Most bytes of the message of a knock, and of the reason of a takeover or a revocation.
pub const MESSAGE_BYTES: usize = 500;
/// Most bytes of the metadata, encoded as JSON without white space.
pub const METADATA_BYTES: usize = 4096;

/// What the ids of `lfs/`, which are paths of files, begin with.
const LFS: &str = "lfs/";

/// A text of 1 to `most` bytes of UTF-8 without control characters.
///
/// # Errors
/// [`Error::Invalid`] names `field` and says what is allowed.
fn identifier(field: &str, raw: &str, most: usize) -> Result<String, Error> {
    if raw.is_empty() || raw.len() > most {
        return Err(Error::invalid(field, format!("must have 1 to {most} bytes; this has {}", raw.len())));
    }
    if raw.chars().any(char::is_control) {
        return Err(Error::invalid(field, "must not contain control characters"));
    }
    Ok(raw.to_owned())
}

/// As [`identifier`], of something that has a place in paths: proxies and browsers take `.` and `..` out of them
/// (RFC 3986 §5.2.4), encoded or not.
fn part_of_paths(field: &str, raw: &str, most: usize) -> Result<String, Error> {
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
            /// Checks `raw`.
            ///
            /// # Errors
            /// [`Error::Invalid`] when it cannot be one.
            pub fn parse(raw: &str) -> Result<Self, Error> {
                Self::parse_as($field, raw)
            }

            /// Checks `raw`, which the caller knows by another name.
            ///
            /// # Errors
            /// As [`Self::parse`], with `field` in place of its name.
            pub fn parse_as(field: &str, raw: &str) -> Result<Self, Error> {
                let check: fn(&str, &str) -> Result<String, Error> = $check;
                check(field, raw).map(Self)
            }

            /// What [`Self::parse`] once checked: for reading it back from the store.
            pub(crate) const fn trusted(stored: String) -> Self {
                Self(stored)
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

identifier!(
    /// Names the thing that people edit: 1 to 255 bytes (1,100 where it begins with `lfs/`) of UTF-8 without control
    /// characters, not `.` or `..`.
    WorkspaceId,
    "workspace_id",
    |field, raw| part_of_paths(field, raw, if raw.starts_with(LFS) { LFS_BYTES } else { ID_BYTES })
);
identifier!(
    /// Names a person: 1 to 255 bytes of UTF-8 without control characters, not `.` or `..`.
    UserId,
    "user_id",
    |field, raw| part_of_paths(field, raw, ID_BYTES)
);
identifier!(
    /// Tells the tabs, devices or processes of one person apart: 1 to 128 bytes without control characters.
    SessionId,
    "session_id",
    |field, raw| identifier(field, raw, SESSION_BYTES)
);

/// The fencing token of a lease. Greater than every fence that was given out before, of any workspace, over release,
/// expiry and restart. A storage system that keeps the highest fence it has seen can refuse a late write.
///
/// Not below the microseconds since 1970 when it was given out, and above a floor that is kept outside the database, so
/// that it also grows when an older backup is restored or the database is lost; below 2^53 until the year 2255, so that it fits a JavaScript number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub i64);

impl Fence {
    /// The microseconds since 1970 at the start of the year 2250: no clock is believed beyond.
    pub const GREATEST_BY_CLOCK: i64 = 8_835_955_200_000_000;
}

/// The one live claim on a workspace: a lease, which ends by itself at `expires_at` unless it is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// What is locked.
    pub workspace_id: WorkspaceId,
    /// Who has it: the holder.
    pub user_id: UserId,
    /// How the holder is shown, if known.
    pub user_name: Option<DisplayName>,
    /// From which tab, device or process.
    pub session_id: Option<SessionId>,
    /// The token of this lease.
    pub fence: Fence,
    /// When the lease was granted.
    pub acquired_at: Timestamp,
    /// When the lease was last renewed.
    pub renewed_at: Timestamp,
    /// When the holder last did something, as far as is known.
    pub last_active_at: Timestamp,
    /// The end of the lease. Exactly then the lock is already gone.
    pub expires_at: Timestamp,
    /// How long a renewal lasts.
    pub ttl: Ttl,
    /// What the holder says about it, to 500 bytes.
    pub note: Option<String>,
    /// A JSON object, encoded without white space, to 4 KiB.
    pub metadata: String,
    /// Whether the holder has said a word since it was granted.
    pub hold: Hold,
    /// Who asks the holder for it.
    pub knocks: handoff::Knocks,
    /// When the timer looks at it next, as it is stored: not after [`Lock::due_at`]. A renewal leaves it as it is.
    pub check_at: Timestamp,
}

/// Whether the holder of a lease has said a word since it was granted: one to whom it was given may have gone away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// They asked for it themselves, or have renewed it since.
    Claimed,
    /// It was given to them, in the session in which they waited or knocked.
    Given,
    /// It was given to a person, who may be there in any session: the first that claims it has it.
    GivenToPerson,
}

impl Claim {
    /// Whether this lease is meant, as far as a fence names one.
    #[must_use]
    pub fn names(&self, lock: &Lock) -> bool {
        self.fence.is_none_or(|fence| fence == lock.fence)
    }
}

impl Lock {
    /// Whether the lease has not ended yet.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// The first instant at which time changes something about the lock.
    #[must_use]
    pub fn due_at(&self) -> Timestamp {
        self.knocks.grant_at.map_or(self.expires_at, |grant| grant.min(self.expires_at))
    }
}

/// What a workspace is when a use case begins, after what is due was applied ([`rules::due`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack of a use case")]
pub enum Now {
    /// It has a lock.
    Locked(Lock),
    /// It has none.
    Free {
        /// The lease that ended last, if that is still remembered.
        last: Option<LastLease>,
    },
}

/// The lease that ended last on a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastLease {
    /// Whose it was.
    pub user_id: UserId,
    /// From which session.
    pub session_id: Option<SessionId>,
    /// Its token.
    pub fence: Fence,
    /// How it ended.
    pub ending: event::Ending,
    /// When it ended.
    pub ended_at: Timestamp,
}

/// What the store knows about the time at which something is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Lease time.
    pub now: Timestamp,
    /// When a server last opened the store. A lease that ended before is not reclaimed: what was granted in between is not
    /// known if an older database was put in its place, and a fence must never go back. Nor is anybody idle since before:
    /// there was nobody to tell.
    pub opened_at: Timestamp,
    /// A fence above every other, should a lease begin.
    pub fresh: Fence,
}

/// Whether an acquire may end somebody else's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It waits its turn.
    No,
    /// Whoever has it.
    Anyone,
    /// Only the lease that the caller saw.
    Seen(Fence),
}

/// Somebody wants the lock of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquire {
    /// What is to be locked.
    pub workspace_id: WorkspaceId,
    /// For whom.
    pub user_id: UserId,
    /// How they are shown.
    pub user_name: Option<DisplayName>,
    /// From which session.
    pub session_id: Option<SessionId>,
    /// What they may do besides.
    pub standing: access::Privilege,
    /// How long they want it; the default if they do not say.
    pub ttl: Option<Ttl>,
    /// Whether they take it over.
    pub force: Force,
    /// What they say about it.
    pub note: Option<String>,
    /// A JSON object, encoded.
    pub metadata: Option<String>,
    /// Why they take it over, for the history.
    pub reason: Option<String>,
}

/// What became of an [`Acquire`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// The workspace was free: a new lease.
    Acquired(Lock),
    /// It was the caller's own: the lease starts over, with the same fence.
    Renewed(Lock),
    /// The caller's own lease had expired and nobody came between: the same fence.
    Reclaimed(Lock),
    /// Somebody else's lease was ended for it.
    TakenOver {
        /// The new lease.
        lock: Lock,
        /// The lease that ended.
        previous: Box<Lock>,
    },
    /// Somebody else has it.
    Held {
        /// Theirs.
        lock: Lock,
        /// Whether it is the same person, from another session.
        same_user: bool,
        /// Whether the caller might take it over.
        takeover_allowed: bool,
        /// For how long the holder has done nothing, as far as is known.
        idle: Ttl,
    },
    /// A takeover named a fence that is no longer the live one.
    FenceMismatch(Lock),
    /// A takeover by somebody whom the policy does not allow.
    TakeoverForbidden(Lock),
    /// The caller has as many locks as one user can have.
    TooMany,
}

/// Who says that a live lease is theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Of which workspace.
    pub workspace_id: WorkspaceId,
    /// Who says so.
    pub user_id: UserId,
    /// From which session, if they say.
    pub session_id: Option<SessionId>,
    /// Which lease, if they say.
    pub fence: Option<Fence>,
}

/// The holder renews the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which lease.
    pub claim: Claim,
    /// How long from now; as before if they do not say.
    pub ttl: Option<Ttl>,
    /// What the holder did since the last one.
    pub activity: Activity,
}

/// What the holder did since the last heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Something.
    Active,
    /// Nothing, or they do not say.
    Idle,
}

/// What became of a [`Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beat {
    /// The lease runs on.
    Renewed(Lock),
    /// There is a live lock and it is not the one that was claimed.
    NotHolder {
        /// The live one.
        lock: Lock,
        /// Whether the same person has it, by another lease or session.
        same_user: bool,
    },
    /// There is no live lock.
    NoLock,
}

/// A lease is given back, or ended for somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Which lease.
    pub claim: Claim,
    /// How the caller is shown in the history.
    pub user_name: Option<DisplayName>,
    /// By which right.
    pub authority: Authority,
    /// What the caller may do besides.
    pub standing: access::Privilege,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// By which right a lease is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// One's own.
    Holder,
    /// Anyone's.
    Administrator,
}

/// What became of a [`Release`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// The lease ended.
    Released(Lock),
    /// There was nothing to release.
    Nothing,
    /// The lease that was named is live, and the caller may not end it for somebody else.
    Forbidden(Lock),
    /// There is a live lock and it is not the one that was claimed.
    NotHolder {
        /// The live one.
        lock: Lock,
        /// Whether the same person has it, by another lease or session.
        same_user: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bounded_and_have_no_control_characters() {
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
    fn an_id_is_not_what_is_taken_out_of_paths() {
        for bad in [".", ".."] {
            assert!(WorkspaceId::parse(bad).is_err() && UserId::parse(bad).is_err(), "{bad}");
            assert!(SessionId::parse(bad).is_ok(), "sessions stand in no path");
        }
        for fine in ["...", "a/..", "./a", ".a"] {
            assert!(WorkspaceId::parse(fine).is_ok() && UserId::parse(fine).is_ok(), "{fine}");
        }
    }
}
