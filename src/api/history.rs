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
use crate::domain::{DisplayName, Fence, SessionId, UserId, WorkspaceId};
use crate::time::WallTime;

/// An event of the history.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Event")]
pub struct EventOut<'a> {
    #[schemars(with = "Integer<1, { i64::MAX }>")]
    revision: i64,
    r#type: EventType,
    at: WallTime,
    user_id: Option<&'a UserId>,
    session_id: Option<&'a SessionId>,
    by_user_id: Option<&'a UserId>,
    by_name: Option<&'a DisplayName>,
    fence: Option<Fence>,
    /// What only some events have.
    pub detail: Detail<'a>,
}

/// What only some events have.
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
    /// In the event stream only, of `lock.knock_declined`: until the one who was declined may knock again.
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
                again_in_ms: None,
            },
        }
    }
}

/// The position of a page of events: a revision.
type Cursor = Integer<1, { i64::MAX }>;

/// What happened to the lock of a workspace
///
/// Newest first. Every lease begins with one event and ends with one. An event's `user_id`, `session_id` and `fence` are
/// those of the lease that it is about; for `lock.taken_over` and `lock.handed_over` that is the lease that ended, and
/// `detail.new_fence` is the one that followed. A handover because the holder did not answer is by the user who knocked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadHistory {
    workspace_id: WorkspaceId,
    /// Most entries of a page; 100 if not given.
    limit: Option<PageLimit>,
    /// The `next_cursor` of the page before.
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

/// What happened to the locks of all workspaces
///
/// Newest first: the audit log. Only events of workspaces that the caller may see now. Events of a workspace that was
/// deleted are for administrators. A page looks at no more than 10,000 events: it can hold fewer than `limit`, or none,
/// and still have a `next_cursor`. Go on until that is null.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadWholeHistory {
    /// Only what happened to leases of this user.
    user_id: Option<UserId>,
    /// Only what this user did.
    by_user_id: Option<UserId>,
    /// Only events of this type; may be given several times.
    r#type: Option<List<EventType, { EventType::ALL.len() }>>,
    /// Only what happened then or later, by the wall clock.
    from: Option<WallTime>,
    /// Only what happened before then, by the wall clock.
    until: Option<WallTime>,
    /// Most entries of a page; 100 if not given.
    limit: Option<PageLimit>,
    /// The `next_cursor` of the page before.
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
