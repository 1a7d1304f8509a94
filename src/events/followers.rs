//! Followers of events, and which events each of them may see.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::chunk::StreamChunk;
use super::subscription::{EventSink, Subscription};
use crate::domain::event::{Ending, EventType};
use crate::domain::{UserId, WorkspaceId};
use crate::error::Error;
use crate::store::Store;

/// A follower with this many unsent bytes gets no more for now.
pub(super) const SINK_FULL: usize = 64 * 1024;

const DELETED: EventType = EventType::Ended(Ending::WorkspaceDeleted);

/// One stream of events.
pub(super) struct Follower {
    /// The last revision that was sent to it or skipped for it.
    pub(super) revision: i64,
    /// It has reached the end of the history before.
    pub(super) caught_up: bool,
    pub(super) subscription: Subscription,
    pub(super) sink: Box<dyn EventSink>,
    /// When something was last sent (monotonic).
    pub(super) sent_at: Duration,
    /// When its permission was last checked (monotonic).
    pub(super) checked_at: Duration,
}

/// All followers.
#[derive(Default)]
pub(super) struct Followers {
    pub(super) streams: Vec<Follower>,
    /// The revision that followers at the end of the history have reached.
    pub(super) end: i64,
    /// Index of the follower whose turn is next among those behind the end.
    pub(super) next_turn: usize,
}

/// An event as it is sent.
pub(super) struct EncodedEvent {
    pub(super) revision: i64,
    pub(super) event_type: EventType,
    pub(super) workspace_id: WorkspaceId,
    /// The workspace whose roles hold: for a file, its repository.
    pub(super) with_roles: WorkspaceId,
    pub(super) user_id: Option<UserId>,
    /// The workspace was deleted with this event or later.
    pub(super) is_deleted: bool,
    /// Members of the workspace that this event deleted.
    pub(super) members: Option<Arc<HashSet<UserId>>>,
    pub(super) chunk: StreamChunk,
}

/// Events of one read.
///
/// A member's role in a workspace is looked up once for each page, after the events were read. So a lost membership is
/// known for every event that came after it.
pub(super) struct EncodedPage {
    pub(super) events: Vec<EncodedEvent>,
    /// The oldest revision in the history after the events were read.
    pub(super) kept_from: i64,
    visible: HashMap<UserId, HashMap<WorkspaceId, bool>>,
    /// Roles that were looked up.
    pub(super) looked_up: usize,
}

impl EncodedPage {
    pub(super) fn of(events: Vec<EncodedEvent>, kept_from: i64) -> Self {
        Self { events, kept_from, visible: HashMap::new(), looked_up: 0 }
    }

    /// Sends a follower the events that it has not seen and may see, until its sink is full.
    pub(super) fn send(&mut self, follower: &mut Follower, store: &Store) -> Result<(), Error> {
        let Self { events, visible, looked_up, kept_from: _ } = self;
        let subscription = &follower.subscription;
        let mut known =
            subscription.member.as_ref().map(|member| (member, visible.entry(member.clone()).or_default()));
        for event in events {
            if event.revision <= follower.revision {
                continue;
            }
            let follows = |workspace_id| subscription.workspaces.contains(workspace_id);
            let wanted = subscription.workspaces.is_empty()
                || follows(&event.workspace_id)
                || follows(&event.with_roles);
            let is_visible = match &mut known {
                _ if !wanted => false,
                // A deletion ends a lease that the follower may know of.
                None => subscription.sees_deleted || !event.is_deleted || event.event_type == DELETED,
                Some((member, _)) if event.ends_membership_of(member) => true,
                Some(_) if event.is_deleted => false,
                Some((member, visible)) => {
                    if let Some(visible) = visible.get(&event.with_roles) {
                        *visible
                    } else {
                        *looked_up += 1;
                        let role = store.read(|rows| rows.role(&event.with_roles, member))?;
                        visible.insert(event.with_roles.clone(), role.value.is_some());
                        role.value.is_some()
                    }
                }
            };
            if is_visible {
                if follower.sink.behind() >= SINK_FULL {
                    return Ok(());
                }
                follower.sink.push(&event.chunk);
                follower.sent_at = store.clock().clock().monotonic();
            }
            follower.revision = event.revision;
        }
        Ok(())
    }
}

impl EncodedEvent {
    /// Whether it tells this member that they may not see the workspace any more. It shows nothing about others.
    fn ends_membership_of(&self, member: &UserId) -> bool {
        let about_them = || self.user_id.as_ref() == Some(member);
        match self.event_type {
            EventType::Ended(Ending::MemberRemoved) => about_them(),
            DELETED => about_them() || self.members.as_ref().is_some_and(|members| members.contains(member)),
            EventType::Acquired | EventType::Knocked | EventType::KnockDeclined | EventType::Ended(_) => {
                false
            }
        }
    }
}

impl Follower {
    /// Ends the stream.
    pub(super) fn end(&mut self) {
        self.sink = Box::new(ClosedSink);
    }
}

/// The sink of a stream that has ended.
struct ClosedSink;

impl EventSink for ClosedSink {
    fn push(&self, _: &StreamChunk) -> bool {
        false
    }

    fn behind(&self) -> usize {
        0
    }

    fn is_gone(&self) -> bool {
        true
    }

    fn when_gone(&self, _: Box<dyn FnOnce() + Send>) {}
}
