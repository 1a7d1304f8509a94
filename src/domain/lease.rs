//! The lease on a workspace, and the state that decisions begin with.

use super::LockKind;
use super::event::Ending;
use super::id::{SessionId, UserId, WorkspaceId};
use super::knocks::Knocks;
use super::name::DisplayName;
use crate::time::{Timestamp, Ttl};

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
    /// The greatest fence that is given. Up to 2^53, where JavaScript numbers end, 7 * 10^12 are left.
    pub const GREATEST: Self = Self(9_000_000_000_000_000);

    /// The least fence by a clock that shows these microseconds since 1970. 0 if that is not trusted.
    #[must_use]
    pub const fn by_clock(wall_micros: i64) -> i64 {
        if wall_micros <= Self::GREATEST_BY_CLOCK { wall_micros } else { 0 }
    }
}

/// Lease on a workspace. A workspace has at most one. It ends at `expires_at` unless it is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The locked workspace.
    pub workspace_id: WorkspaceId,
    /// Kind of the lock.
    pub kind: LockKind,
    /// Id of the holder.
    pub user_id: UserId,
    /// Display name of the holder, if known. The holder of an agent's lock is the agent.
    pub user_name: Option<DisplayName>,
    /// For an agent: display name of the user for whom it acts, if known.
    pub for_name: Option<DisplayName>,
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
    pub knocks: Knocks,
    /// When the timer checks this row next, as stored. Not after [`Lock::due_at`]. A renewal does not change
    /// it.
    pub check_at: Timestamp,
    /// Until when the process of an earlier lease may still be running: see [`Lock::drain_after`].
    pub drain_until: Option<Timestamp>,
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
    /// The database has failed over and may have lost what came after this lease. Its holder must acquire it again.
    InDoubt,
}

impl Lock {
    /// Whether this is the lock of a Terraform state with this lock id.
    #[must_use]
    pub fn is_state_lock(&self, id: &str) -> bool {
        self.kind == LockKind::Terraform
            && self.session_id.as_ref().is_some_and(|session| session.as_str() == id)
    }

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

    /// Until when a process that held this lease, or an earlier one, may still be running after this ending. A
    /// holder that gives the lease up, or lets it expire, has stopped by then. Otherwise it may learn of the end as
    /// late as when the lease would have expired.
    #[must_use]
    pub fn drain_after(&self, ending: Ending) -> Option<Timestamp> {
        match ending {
            Ending::Released | Ending::Expired => self.drain_until,
            Ending::TakenOver
            | Ending::HandedOver
            | Ending::Revoked
            | Ending::MemberRemoved
            | Ending::WorkspaceDeleted => self.drain_until.max(Some(self.expires_at)),
        }
    }
}

/// State of a workspace when a use case begins, after due expiries and grants are applied ([`super::rules::due`]).
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
    /// Its kind.
    pub kind: LockKind,
    /// Id of its holder.
    pub user_id: UserId,
    /// Session of its holder.
    pub session_id: Option<SessionId>,
    /// Its fencing token.
    pub fence: Fence,
    /// How it ended.
    pub ending: Ending,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Until when its process, or an earlier one, may still be running.
    pub drain_until: Option<Timestamp>,
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
