//! Those who follow, and what each of them may hear.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::broadcaster::{Outlet, Wish};
use super::piece::Piece;
use crate::domain::event::{Ending, EventType};
use crate::domain::{UserId, WorkspaceId};
use crate::error::Error;
use crate::store::{Store, workspaces};

/// A follower with so many bytes that it has not taken gets no more until it has (bytes).
pub(super) const FULL: usize = 64 * 1024;

/// Somebody who follows.
pub(super) struct Follower {
    /// The revision of the last event that it was told of, or that does not concern it.
    pub(super) place: i64,
    /// It has been at the end of the history.
    pub(super) caught_up: bool,
    pub(super) wish: Wish,
    pub(super) outlet: Box<dyn Outlet>,
    /// When something was last said.
    pub(super) said_at: Duration,
    /// When it was last asked whether it may follow.
    pub(super) asked_at: Duration,
}

/// Those who follow.
#[derive(Default)]
pub(super) struct Audience {
    pub(super) followers: Vec<Follower>,
    /// How far those have heard who are not behind.
    pub(super) end: i64,
    /// Whose turn it is first, of those who are behind.
    pub(super) turn: usize,
}

/// An event, as it is said.
pub(super) struct Said {
    pub(super) revision: i64,
    pub(super) event_type: EventType,
    pub(super) workspace_id: WorkspaceId,
    pub(super) user_id: Option<UserId>,
    /// Who were members of a workspace that was deleted.
    pub(super) members: Option<Arc<HashSet<UserId>>>,
    pub(super) piece: Piece,
}

/// Events that were read together.
///
/// Whether somebody may hear of a workspace is looked up once. It is as it was after the events were read: what happened
/// after they may not any more is on a later page.
pub(super) struct Page {
    pub(super) events: Vec<Said>,
    /// The first revision that was kept when they had been read.
    pub(super) kept_from: i64,
    visible: HashMap<UserId, HashMap<WorkspaceId, bool>>,
    /// How often it had to be looked up.
    pub(super) looked_up: usize,
}

impl Page {
    pub(super) fn of(events: Vec<Said>, kept_from: i64) -> Self {
        Self { events, kept_from, visible: HashMap::new(), looked_up: 0 }
    }

    /// Tells a follower of those events that it has not heard of and that concern it, as far as it takes them.
    pub(super) fn tell(&mut self, follower: &mut Follower, store: &Store) -> Result<(), Error> {
        let Self { events, visible, looked_up, kept_from: _ } = self;
        let wish = &follower.wish;
        let mut known =
            wish.member.as_ref().map(|member| (member, visible.entry(member.clone()).or_default()));
        for said in events {
            if said.revision <= follower.place {
                continue;
            }
            let wanted = wish.workspaces.is_empty() || wish.workspaces.contains(&said.workspace_id);
            let may_hear = match &mut known {
                _ if !wanted => false,
                None => true,
                Some((member, _)) if said.is_farewell_to(member) => true,
                Some((member, visible)) => {
                    if let Some(visible) = visible.get(&said.workspace_id) {
                        *visible
                    } else {
                        *looked_up += 1;
                        let role = store
                            .read(|connection, _| workspaces::role(connection, &said.workspace_id, member))?;
                        visible.insert(said.workspace_id.clone(), role.value.is_some());
                        role.value.is_some()
                    }
                }
            };
            if may_hear {
                if follower.outlet.behind() >= FULL {
                    return Ok(());
                }
                follower.outlet.push(&said.piece);
                follower.said_at = store.clock().clock().monotonic();
            }
            follower.place = said.revision;
        }
        Ok(())
    }
}

impl Said {
    /// Whether it tells somebody who may see nothing of the workspace any more that this is so, and nothing of others.
    fn is_farewell_to(&self, member: &UserId) -> bool {
        let about_them = || self.user_id.as_ref() == Some(member);
        match self.event_type {
            EventType::Ended(Ending::MemberRemoved) => about_them(),
            EventType::Ended(Ending::WorkspaceDeleted) => {
                about_them() || self.members.as_ref().is_some_and(|members| members.contains(member))
            }
            EventType::Acquired | EventType::Knocked | EventType::KnockDeclined | EventType::Ended(_) => {
                false
            }
        }
    }
}

impl Follower {
    /// Hangs up.
    pub(super) fn end(&mut self) {
        self.outlet = Box::new(Nobody);
    }
}

/// The way to one whose stream has ended.
struct Nobody;

impl Outlet for Nobody {
    fn push(&self, _: &Piece) -> bool {
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
