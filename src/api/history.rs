//! The history of one workspace, and that of all workspaces.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{Count, Integer, List, PageLimit, page_length};
use super::operation::{Answer, Call, Operation, page};
use super::problem::Problem;
use crate::app::Service;
use crate::app::history::Filter;
use crate::domain::event::{Event, EventType};
use crate::domain::rights::Need;
use crate::domain::{DisplayName, Fence, LockKind, SessionId, UserId, WorkspaceId};
use crate::time::WallTime;

/// An event of the history.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Event")]
pub struct EventOut<'a> {
    #[schemars(with = "Integer<1, { i64::MAX }>")]
    revision: i64,
    r#type: EventType,
    at: WallTime,
    /// The kind of the lock; null if the event is not about a lease.
    kind: Option<LockKind>,
    user_id: Option<&'a UserId>,
    session_id: Option<&'a SessionId>,
    by_user_id: Option<&'a UserId>,
    by_name: Option<&'a DisplayName>,
    fence: Option<Fence>,
    /// Data of some event types.
    pub detail: Detail<'a>,
}

/// Data of some event types.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub struct Detail<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Fence")]
    new_fence: Option<Fence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UserId")]
    to_user_id: Option<&'a UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "EventOutcome")]
    outcome: Option<EventOutcome>,
    /// True for `lock.taken_over` if it was an agent's lease, and yielded to a person.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    yielded: bool,
    /// Only in the event stream, for `lock.knock_declined`: time until the declined user may knock again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Count")]
    pub again_in_ms: Option<Count>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum EventOutcome {
    Acquired,
    Reclaimed,
    Postponed,
}

/// An event with its workspace, where that does not follow from the request.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WorkspaceEvent")]
pub struct WorkspaceEventOut<'a> {
    /// The event.
    #[serde(flatten)]
    pub event: EventOut<'a>,
    workspace_id: &'a WorkspaceId,
}

impl<'a> WorkspaceEventOut<'a> {
    /// Converts an event for the response.
    #[must_use]
    pub fn of(event: &'a Event) -> Self {
        Self { event: EventOut::of(event), workspace_id: &event.workspace_id }
    }
}

impl<'a> EventOut<'a> {
    /// Converts an event for the response.
    #[must_use]
    pub fn of(event: &'a Event) -> Self {
        let is_knock = event.event_type == EventType::Knocked;
        let outcome = match event.event_type {
            EventType::Acquired if event.reclaimed => Some(EventOutcome::Reclaimed),
            EventType::Acquired => Some(EventOutcome::Acquired),
            EventType::Knocked if event.to_user_id.is_some() => Some(EventOutcome::Postponed),
            EventType::Knocked | EventType::KnockDeclined | EventType::Ended(_) => None,
        };
        Self {
            revision: event.revision,
            r#type: event.event_type,
            at: event.at,
            kind: event.fence.map(|_| event.kind),
            user_id: event.user_id.as_ref(),
            session_id: event.session_id.as_ref(),
            by_user_id: event.by_user_id.as_ref(),
            by_name: event.by_name.as_ref(),
            fence: event.fence,
            detail: Detail {
                new_fence: event.next_fence,
                to_user_id: event.to_user_id.as_ref(),
                message: event.message.as_deref().filter(|_| is_knock),
                reason: event.message.as_deref().filter(|_| !is_knock),
                outcome,
                yielded: event.yielded,
                again_in_ms: None,
            },
        }
    }
}

/// The position of a page of events: a revision.
type Cursor = Integer<1, { i64::MAX }>;

/// Read the history of a workspace
///
/// Newest first. Each lease has one event for its start and one for its end. `user_id`, `session_id` and `fence`
/// are those of the lease. For `lock.taken_over` and `lock.handed_over` they are those of the lease that ended, and
/// `detail.new_fence` is the fence of the next lease. The author of a handover because of an inactive holder is the
/// user who knocked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadHistory {
    workspace_id: WorkspaceId,
    /// Maximum number of entries in a page. Default: 100.
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page.
    cursor: Option<Cursor>,
}

/// A page of events.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "{E}Page")]
pub struct EventPage<E> {
    events: Vec<E>,
    next_cursor: Option<String>,
}

impl Operation for ReadHistory {
    type Output = EventPage<EventOut<'static>>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        // A caller who sees all workspaces may read the history of an id that no workspace has now.
        if service.visible_only_to(&call.caller.actor()).is_some() {
            call.may(service, &self.workspace_id, Need::See)?;
        }
        let before = self.cursor.map_or(i64::MAX, |cursor| cursor.0);
        let limit = page_length(self.limit);
        // One event more than the page shows whether there are more.
        let most = u32::try_from(limit.saturating_add(1)).unwrap_or(u32::MAX);
        let found = service.history(&call.caller.actor(), &self.workspace_id, before, most)?;
        let (shown, next_cursor) = page(&found, limit, |event| event.revision.to_string());
        Answer::now(&EventPage { events: shown.iter().map(EventOut::of).collect(), next_cursor })
    }
}

/// Read the history of all workspaces
///
/// Newest first. This is the audit log. It has the events of workspaces that the caller may see now; administrators
/// also see those of deleted workspaces. A page reads at most 10,000 events. So it may have fewer events than
/// `limit`, or none, and still have a `next_cursor`. Continue until it is null.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadWholeHistory {
    /// Only events of this user's leases.
    user_id: Option<UserId>,
    /// Only events whose author is this user.
    by_user_id: Option<UserId>,
    /// Only events of this type. Repeatable.
    r#type: Option<List<EventType, { EventType::ALL.len() }>>,
    /// Only events at or after this time, by the wall clock.
    from: Option<WallTime>,
    /// Only events before this time, by the wall clock.
    until: Option<WallTime>,
    /// Maximum number of entries in a page. Default: 100.
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page.
    cursor: Option<Cursor>,
}

impl Operation for ReadWholeHistory {
    type Output = EventPage<WorkspaceEventOut<'static>>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let filter = Filter {
            user_id: self.user_id,
            by_user_id: self.by_user_id,
            types: self.r#type.map(|types| types.0).unwrap_or_default(),
            from: self.from,
            until: self.until,
        };
        let before = self.cursor.map_or(i64::MAX, |cursor| cursor.0);
        let page = service.whole_history(&call.caller.actor(), &filter, before, page_length(self.limit))?;
        let next_cursor = page.next.map(|revision| revision.to_string());
        Answer::now(&EventPage {
            events: page.events.iter().map(WorkspaceEventOut::of).collect(),
            next_cursor,
        })
    }
}
