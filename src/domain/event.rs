//! What is remembered: every lease begins with one event and ends with one; what is asked of its holder comes between.

use super::{DisplayName, Fence, LastLease, Lock, SessionId, UserId, WorkspaceId};
use crate::time::{Timestamp, WallTime};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A lease began. `detail.outcome` is `reclaimed` when the holder came back to an expired one.
    Acquired,
    /// Somebody asked the holder for the lock. With `to_user_id` it is no new knock, but the end of theirs was postponed.
    Knocked,
    /// The holder keeps it.
    KnockDeclined,
    /// A lease ended, and this is how.
    Ended(Ending),
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The holder gave it back.
    Released,
    /// Nobody renewed it in time.
    Expired,
    /// Somebody took it over; `next_fence` is the lease that followed at once.
    TakenOver,
    /// The holder gave it to somebody else, or did not answer one who had knocked; `next_fence` is the lease that
    /// followed at once.
    HandedOver,
    /// An administrator ended it.
    Revoked,
    /// Its holder is no member of the workspace any more.
    MemberRemoved,
    /// There is no such workspace any more.
    WorkspaceDeleted,
}

impl EventType {
    /// Every type there is.
    pub const ALL: [Self; 10] = [
        Self::Acquired,
        Self::Knocked,
        Self::KnockDeclined,
        Self::Ended(Ending::Released),
        Self::Ended(Ending::Expired),
        Self::Ended(Ending::TakenOver),
        Self::Ended(Ending::HandedOver),
        Self::Ended(Ending::Revoked),
        Self::Ended(Ending::MemberRemoved),
        Self::Ended(Ending::WorkspaceDeleted),
    ];

    /// The name in the API and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acquired => "lock.acquired",
            Self::Knocked => "lock.knocked",
            Self::KnockDeclined => "lock.knock_declined",
            Self::Ended(Ending::Released) => "lock.released",
            Self::Ended(Ending::Expired) => "lock.expired",
            Self::Ended(Ending::TakenOver) => "lock.taken_over",
            Self::Ended(Ending::HandedOver) => "lock.handed_over",
            Self::Ended(Ending::Revoked) => "lock.revoked",
            Self::Ended(Ending::MemberRemoved) => "member.removed",
            Self::Ended(Ending::WorkspaceDeleted) => "workspace.deleted",
        }
    }

    /// The names of all types.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "the bounds are checked when it is compiled")]
    pub const fn names() -> [&'static str; Self::ALL.len()] {
        let mut names = [""; Self::ALL.len()];
        let mut place = 0;
        while place < names.len() {
            names[place] = Self::ALL[place].as_str();
            place += 1;
        }
        names
    }

    /// The type of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }
}

impl Ending {
    /// The `reason` in the API's `lost`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
            Self::TakenOver => "taken_over",
            Self::HandedOver => "handed_over",
            Self::Revoked => "revoked",
            Self::MemberRemoved => "member_removed",
            Self::WorkspaceDeleted => "workspace_deleted",
        }
    }
}

/// Who did something, for the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Their id.
    pub user_id: UserId,
    /// How they are shown.
    pub name: Option<DisplayName>,
    /// Why, if they say.
    pub reason: Option<String>,
}

impl Author {
    /// They, without a reason.
    #[must_use]
    pub const fn person(user_id: UserId, name: Option<DisplayName>) -> Self {
        Self { user_id, name, reason: None }
    }
}

/// An event that is to be written down. The store gives it its revision.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a> {
    /// What.
    pub event_type: EventType,
    /// When, in lease time.
    pub at: Timestamp,
    /// Where.
    pub workspace_id: &'a WorkspaceId,
    /// As [`Event::user_id`].
    pub user_id: Option<&'a UserId>,
    /// As [`Event::session_id`].
    pub session_id: Option<&'a SessionId>,
    /// As [`Event::fence`].
    pub fence: Option<Fence>,
    /// As [`Event::next_fence`].
    pub next_fence: Option<Fence>,
    /// Who did it; nobody, when time did.
    pub by: Option<&'a Author>,
    /// As [`Event::to_user_id`].
    pub to: Option<&'a UserId>,
    /// What was said with it.
    pub message: Option<&'a str>,
    /// As [`Event::reclaimed`].
    pub reclaimed: bool,
}

impl<'a> NewEvent<'a> {
    /// Something that happened to this lease.
    #[must_use]
    pub const fn to(lock: &'a Lock, event_type: EventType, at: Timestamp) -> Self {
        Self {
            session_id: lock.session_id.as_ref(),
            fence: Some(lock.fence),
            ..Self::without_lease(&lock.workspace_id, Some(&lock.user_id), event_type, at)
        }
    }

    /// Something that happened to no lease.
    #[must_use]
    pub const fn without_lease(
        workspace_id: &'a WorkspaceId,
        user_id: Option<&'a UserId>,
        event_type: EventType,
        at: Timestamp,
    ) -> Self {
        Self {
            event_type,
            at,
            workspace_id,
            user_id,
            session_id: None,
            fence: None,
            next_fence: None,
            by: None,
            to: None,
            message: None,
            reclaimed: false,
        }
    }
}

/// Something that happened to a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place among all events of this database, from 1.
    pub revision: i64,
    /// Where.
    pub workspace_id: WorkspaceId,
    /// What.
    pub event_type: EventType,
    /// When, as the wall clock showed it. An expiry happened at the end of the lease, whenever it was noticed.
    pub at: WallTime,
    /// Whose lease it was; or which member was removed.
    pub user_id: Option<UserId>,
    /// From which session it was held.
    pub session_id: Option<SessionId>,
    /// Which lease it was; none when a member was removed who had none, or a workspace deleted that was free.
    pub fence: Option<Fence>,
    /// The lease that followed at once, after a takeover or a handover.
    pub next_fence: Option<Fence>,
    /// Who did it; nobody, when time did.
    pub by_user_id: Option<UserId>,
    /// How they are shown.
    pub by_name: Option<DisplayName>,
    /// Of a handover, who has it next; of a knock that was declined or postponed, who had knocked.
    pub to_user_id: Option<UserId>,
    /// What was said with it.
    pub message: Option<String>,
    /// Whether the lease is one that its holder came back to.
    pub reclaimed: bool,
}

/// How the last lease that somebody had on a workspace ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// How.
    pub ending: Ending,
    /// Which lease.
    pub fence: Fence,
    /// From which session it was held.
    pub session_id: Option<SessionId>,
    /// The lease that followed at once, after a takeover or a handover.
    pub next_fence: Option<Fence>,
    /// When.
    pub at: WallTime,
    /// By whom, if it was a person.
    pub by_user_id: Option<UserId>,
    /// How they are shown.
    pub by_name: Option<DisplayName>,
}

impl Lost {
    /// How a lease ended, as the event tells that ended it.
    #[must_use]
    pub fn of(event: Event) -> Option<Self> {
        let (EventType::Ended(ending), Some(fence)) = (event.event_type, event.fence) else { return None };
        Some(Self {
            ending,
            fence,
            session_id: event.session_id,
            next_fence: event.next_fence,
            at: event.at,
            by_user_id: event.by_user_id,
            by_name: event.by_name,
        })
    }

    /// Whether it ended because its holder belongs to the workspace no more.
    #[must_use]
    pub const fn is_exclusion(&self) -> bool {
        matches!(self.ending, Ending::MemberRemoved | Ending::WorkspaceDeleted)
    }
}

impl LastLease {
    /// The lease that ended last, as the newest event of the workspace tells, which happened at `ended_at`.
    #[must_use]
    pub fn of(event: Event, ended_at: Timestamp) -> Option<Self> {
        let (EventType::Ended(ending), Some(user_id), Some(fence)) =
            (event.event_type, event.user_id, event.fence)
        else {
            return None;
        };
        Some(Self { user_id, session_id: event.session_id, fence, ending, ended_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_type_reads_back_as_itself() {
        for event_type in EventType::ALL {
            assert_eq!(EventType::parse(event_type.as_str()), Some(event_type));
        }
        assert_eq!(EventType::parse("lock.eaten"), None);
    }
}
