//! Events of the history. Every lease begins with one event and ends with one. Knocks and declines come in
//! between.

use super::{DisplayName, Fence, LastLease, Lock, LockKind, SessionId, UserId, WorkspaceId};
use crate::time::{Timestamp, WallTime};

/// Type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A lease began. `detail.outcome` is `reclaimed` when the holder resumed an expired lease.
    Acquired,
    /// A caller knocked. With `to_user_id`, it is not a new knock: the grant to that user was postponed.
    Knocked,
    /// The holder declined a knock.
    KnockDeclined,
    /// A lease ended, in this way.
    Ended(Ending),
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The holder released it.
    Released,
    /// It was not renewed in time.
    Expired,
    /// Another caller took it over. `next_fence` is the fence of the lease that followed at once.
    TakenOver,
    /// The holder handed it over, or left a knock unanswered. `next_fence` is the fence of the lease that
    /// followed at once.
    HandedOver,
    /// An administrator revoked it, or its holder lost the role that is needed to hold it.
    Revoked,
    /// Its holder is no longer a member of the workspace.
    MemberRemoved,
    /// The workspace was deleted.
    WorkspaceDeleted,
}

impl EventType {
    /// All event types.
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

    /// Name in the API and in the store.
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

    /// Names of all event types.
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

    /// Event type with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }
}

impl Ending {
    /// Value of `reason` in the API's `lost` object.
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

/// Author of a change, for the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Id of the author.
    pub user_id: UserId,
    /// Display name of the author.
    pub name: Option<DisplayName>,
    /// Reason, if given.
    pub reason: Option<String>,
}

impl Author {
    /// Author without a reason.
    #[must_use]
    pub const fn new(user_id: UserId, name: Option<DisplayName>) -> Self {
        Self { user_id, name, reason: None }
    }
}

/// New event to store. The store assigns its revision.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a> {
    /// Type of the event.
    pub event_type: EventType,
    /// Time of the event, in lease time.
    pub at: Timestamp,
    /// Workspace of the event.
    pub workspace_id: &'a WorkspaceId,
    /// See [`Event::kind`].
    pub kind: LockKind,
    /// See [`Event::user_id`].
    pub user_id: Option<&'a UserId>,
    /// See [`Event::session_id`].
    pub session_id: Option<&'a SessionId>,
    /// See [`Event::fence`].
    pub fence: Option<Fence>,
    /// See [`Event::next_fence`].
    pub next_fence: Option<Fence>,
    /// Author; `None` for changes by time.
    pub by: Option<&'a Author>,
    /// See [`Event::to_user_id`].
    pub to: Option<&'a UserId>,
    /// Message or reason.
    pub message: Option<&'a str>,
    /// See [`Event::reclaimed`].
    pub reclaimed: bool,
    /// See [`Event::yielded`].
    pub yielded: bool,
    /// See [`LastLease::drain_until`].
    pub drain_until: Option<Timestamp>,
}

impl<'a> NewEvent<'a> {
    /// Event on this lease.
    #[must_use]
    pub const fn on_lease(lock: &'a Lock, event_type: EventType, at: Timestamp) -> Self {
        Self {
            kind: lock.kind,
            session_id: lock.session_id.as_ref(),
            fence: Some(lock.fence),
            ..Self::without_lease(&lock.workspace_id, Some(&lock.user_id), event_type, at)
        }
    }

    /// End of this lease.
    #[must_use]
    pub fn of_end(lock: &'a Lock, ending: Ending, at: Timestamp) -> Self {
        Self {
            drain_until: lock.drain_after(ending).filter(|until| *until > at),
            ..Self::on_lease(lock, EventType::Ended(ending), at)
        }
    }

    /// Event without a lease.
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
            kind: LockKind::Edit,
            user_id,
            session_id: None,
            fence: None,
            next_fence: None,
            by: None,
            to: None,
            message: None,
            reclaimed: false,
            yielded: false,
            drain_until: None,
        }
    }
}

/// Stored event of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Position among all events of this database, from 1.
    pub revision: i64,
    /// Workspace of the event.
    pub workspace_id: WorkspaceId,
    /// Kind of the lock, if the event is about a lease.
    pub kind: LockKind,
    /// Type of the event.
    pub event_type: EventType,
    /// Time of the event by the wall clock. An expiry has the end time of the lease, even if it was noticed
    /// later.
    pub at: WallTime,
    /// Id of the holder, or of the removed member.
    pub user_id: Option<UserId>,
    /// Session of the holder.
    pub session_id: Option<SessionId>,
    /// Fence of the lease. `None` if a member without a lease was removed, or a free workspace was deleted.
    pub fence: Option<Fence>,
    /// Fence of the lease that followed at once, after a takeover or a handover.
    pub next_fence: Option<Fence>,
    /// Id of the author; `None` for changes by time.
    pub by_user_id: Option<UserId>,
    /// Display name of the author.
    pub by_name: Option<DisplayName>,
    /// For a handover, the next holder. For a declined or postponed knock, the user who knocked.
    pub to_user_id: Option<UserId>,
    /// Message or reason.
    pub message: Option<String>,
    /// Whether the lease was reclaimed.
    pub reclaimed: bool,
    /// Whether an agent's lease was taken over because agents yield to people.
    pub yielded: bool,
}

/// How the last lease of a user on a workspace ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Kind of the lock.
    pub kind: LockKind,
    /// Type of the end.
    pub ending: Ending,
    /// Fence of the lease.
    pub fence: Fence,
    /// Session of the holder.
    pub session_id: Option<SessionId>,
    /// Fence of the lease that followed at once, after a takeover or a handover.
    pub next_fence: Option<Fence>,
    /// Time of the end, by the wall clock.
    pub at: WallTime,
    /// Id of the author, if a person ended it.
    pub by_user_id: Option<UserId>,
    /// Display name of the author.
    pub by_name: Option<DisplayName>,
    /// Whether the lease was an agent's and yielded to a person.
    pub yielded: bool,
}

impl Lost {
    /// Converts the event that ended a lease. `None` if the event did not end a lease.
    #[must_use]
    pub fn of(event: Event) -> Option<Self> {
        let (EventType::Ended(ending), Some(fence)) = (event.event_type, event.fence) else { return None };
        Some(Self {
            kind: event.kind,
            ending,
            fence,
            session_id: event.session_id,
            next_fence: event.next_fence,
            at: event.at,
            by_user_id: event.by_user_id,
            by_name: event.by_name,
            yielded: event.yielded,
        })
    }

    /// Whether the lease ended because its holder was removed from the workspace or the workspace was
    /// deleted.
    #[must_use]
    pub const fn is_exclusion(&self) -> bool {
        matches!(self.ending, Ending::MemberRemoved | Ending::WorkspaceDeleted)
    }
}

impl LastLease {
    /// Converts the newest event of the workspace, which happened at `ended_at`. `None` if the event did not
    /// end a lease.
    #[must_use]
    pub fn of(event: Event, ended_at: Timestamp, drain_until: Option<Timestamp>) -> Option<Self> {
        let (EventType::Ended(ending), Some(user_id), Some(fence)) =
            (event.event_type, event.user_id, event.fence)
        else {
            return None;
        };
        let Event { kind, session_id, .. } = event;
        Some(Self { kind, user_id, session_id, fence, ending, ended_at, drain_until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_type_parses_back() {
        for event_type in EventType::ALL {
            assert_eq!(EventType::parse(event_type.as_str()), Some(event_type));
        }
        assert_eq!(EventType::parse("lock.eaten"), None);
    }
}
