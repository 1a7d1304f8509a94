//! Knocks and handovers: a caller asks the holder for the lock. The holder hands it over or declines. If the
//! holder does not answer, the lock is granted to the first knock.
//!
//! Knocks belong to a lease and end with it. The holder is shown one knock at a time, in order of arrival.
//! The time limit of a knock starts when it is shown.

use super::access::{Privilege, Rules, SameUser};
use super::event::{Ending, Lost};
use super::rules::{Begins, Change, Decision, disposes, given, owns};
use super::token::Lasts;
use super::{
    Acquire, Claim, DisplayName, Fence, Force, Hold, Lock, Moment, Now, SessionId, UserId, WorkspaceId,
};
use crate::time::{Timestamp, Ttl};

/// Maximum number of knocks on one lease, including recently declined ones.
pub const MOST_KNOCKS: usize = 20;

/// Knocks on one lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Knocks {
    /// Unanswered knocks, in order of arrival. The holder is shown the first one.
    pub pending: Vec<Knock>,
    /// Recently declined knocks.
    pub declined: Vec<Declined>,
    /// When the first pending knock was shown to the holder.
    pub shown_at: Option<Timestamp>,
    /// When the lock is granted to the first knock, unless the holder answers or is active before.
    pub grant_at: Option<Timestamp>,
    /// Upper bound of `grant_at` for an active holder; `None` means no bound.
    pub grant_at_latest: Option<Timestamp>,
}

/// Effect of the holder's activity on `grant_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Postponed {
    /// No change.
    No,
    /// `grant_at` moves, but too little for an event.
    Untold,
    /// `grant_at` moves, and an event is recorded.
    Told,
}

/// Knock: a user asks the holder for the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knock {
    /// Id of the user who knocked.
    pub user_id: UserId,
    /// Display name of that user.
    pub name: Option<DisplayName>,
    /// Session of that user.
    pub session_id: Option<SessionId>,
    /// Message, up to 500 bytes.
    pub message: Option<String>,
    /// Time of the knock.
    pub knocked_at: Timestamp,
    /// How long the credentials of the caller are valid. The lock is not granted if they have ended.
    pub lasts: Lasts,
}

/// Declined knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// Id of the user who knocked.
    pub user_id: UserId,
    /// When the holder declined.
    pub at: Timestamp,
}

impl Declined {
    /// Time until the user may knock again; `None` if they may now.
    fn again_in(&self, rules: &Rules, now: Timestamp) -> Option<Ttl> {
        let left = self.at.plus(rules.knock_again_after).since(now);
        (left > 0).then(|| Ttl::from_millis(left))
    }
}

impl Knock {
    /// Lease for this knock, in place of `lock`. `waits` is the user's waiting acquire, if there is one.
    pub(super) fn granted(
        &self,
        waits: Option<Acquire>,
        lock: &Lock,
        rules: &Rules,
        begins: Begins,
        fresh: Fence,
    ) -> Lock {
        if let Some(waits) = waits {
            return given(&waits, Hold::Given, rules, begins, fresh);
        }
        let wish = Acquire {
            user_name: self.name.clone(),
            session_id: self.session_id.clone(),
            ..Acquire::of_nobody_else(lock.workspace_id.clone(), self.user_id.clone())
        };
        let hold = if self.session_id.is_some() { Hold::Given } else { Hold::GivenToPerson };
        given(&wish, hold, rules, Begins { told: begins.at, ..begins }, fresh)
    }
}

impl Acquire {
    /// Acquire for `user_id` with defaults in all other fields.
    #[must_use]
    pub const fn of_nobody_else(workspace_id: WorkspaceId, user_id: UserId) -> Self {
        Self {
            workspace_id,
            user_id,
            user_name: None,
            session_id: None,
            standing: Privilege::Ordinary,
            ttl: None,
            force: Force::No,
            note: None,
            metadata: None,
            reason: None,
        }
    }
}

/// Request to knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Id of the caller.
    pub user_id: UserId,
    /// Display name of the caller.
    pub name: Option<DisplayName>,
    /// Session of the caller.
    pub session_id: Option<SessionId>,
    /// Message to the holder.
    pub message: Option<String>,
    /// How long the credentials of the caller are valid.
    pub lasts: Lasts,
}

/// Outcome of an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The knock is pending. The holder is shown it when the knocks before it are answered. A repeated knock
    /// only updates the pending one.
    Heard(Lock),
    /// The workspace is free.
    NoLock,
    /// The caller holds the lock.
    Own(Lock),
    /// The holder declined this caller recently.
    TooSoon {
        /// The live lock.
        lock: Lock,
        /// Time until the caller may knock again.
        again: Ttl,
    },
    /// The lease has [`MOST_KNOCKS`] knocks already.
    TooMany,
}

/// Decides a knock.
#[must_use]
pub fn ask(found: Now, request: &Ask, rules: &Rules, now: Timestamp) -> Decision<Asked> {
    let nothing = |outcome| Decision { change: Change::Nothing, outcome };
    let mut lock = match found {
        Now::Free { .. } => return nothing(Asked::NoLock),
        Now::Locked(lock) if owns(&request.user_id, request.session_id.as_ref(), &lock, rules) => {
            return nothing(Asked::Own(lock));
        }
        Now::Locked(lock) => lock,
    };
    let knocks = &mut lock.knocks;
    knocks.declined.retain(|declined| declined.again_in(rules, now).is_some());
    if let Some(again) = knocks.again_in(&request.user_id, rules, now) {
        return nothing(Asked::TooSoon { lock, again });
    }
    if let Some(knock) = knocks.pending.iter_mut().find(|knock| knock.user_id == request.user_id) {
        knock.name = request.name.clone().or(knock.name.take());
        knock.session_id = request.session_id.clone().or(knock.session_id.take());
        knock.message = request.message.clone().or(knock.message.take());
        knock.lasts = request.lasts.clone();
        return Decision { change: Change::Reword(lock.clone()), outcome: Asked::Heard(lock) };
    }
    if knocks.pending.len() + knocks.declined.len() >= MOST_KNOCKS {
        return nothing(Asked::TooMany);
    }
    let knock = Knock {
        user_id: request.user_id.clone(),
        name: request.name.clone(),
        session_id: request.session_id.clone(),
        message: request.message.clone(),
        knocked_at: now,
        lasts: request.lasts.clone(),
    };
    knocks.pending.push(knock);
    if knocks.pending.len() == 1 {
        knocks.show_the_first(rules, now);
    }
    Decision { change: Change::Knock(lock.clone()), outcome: Asked::Heard(lock) }
}

impl Knocks {
    /// Whether there is no pending and no declined knock.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.declined.is_empty()
    }

    /// Time until `user_id` may knock again after being declined; `None` if they may now.
    #[must_use]
    pub fn again_in(&self, user_id: &UserId, rules: &Rules, now: Timestamp) -> Option<Ttl> {
        self.declined
            .iter()
            .filter(|declined| declined.user_id == *user_id)
            .find_map(|declined| declined.again_in(rules, now))
    }

    /// Removes the pending knock of `user_id`. Returns whether there was one.
    pub fn forget(&mut self, user_id: &UserId, rules: &Rules, now: Timestamp) -> bool {
        let Some(place) = self.pending.iter().position(|knock| knock.user_id == *user_id) else {
            return false;
        };
        self.pending.remove(place);
        if place == 0 {
            self.show_the_first(rules, now);
        }
        true
    }

    /// Shows the first pending knock to the holder: its time limit starts at `now`.
    fn show_the_first(&mut self, rules: &Rules, now: Timestamp) {
        let after = rules.knock_grant_after.filter(|_| !self.pending.is_empty());
        self.shown_at = after.map(|_| now);
        self.grant_at = after.map(|after| now.plus(after));
        self.grant_at_latest = after.and(rules.knock_grant_at_latest).map(|latest| now.plus(latest));
    }

    /// Postpones `grant_at`, because the holder is active. `last_active_at` is the holder's activity before
    /// this.
    ///
    /// Each heartbeat moves `grant_at` by a little. An event is recorded for the first move, for each half of
    /// `knock_grant_after` that `grant_at` has moved, and for the last move. So a reader of the events is
    /// never behind by more than that half, and the history stays small.
    pub(super) fn postpone(&mut self, last_active_at: Timestamp, rules: &Rules, now: Timestamp) -> Postponed {
        let (Some(shown_at), Some(before), Some(after)) =
            (self.shown_at, self.grant_at, rules.knock_grant_after)
        else {
            return Postponed::No;
        };
        let end = self.grant_at_latest.map_or(now.plus(after), |latest| latest.min(now.plus(after)));
        if end <= before {
            return Postponed::No;
        }
        self.grant_at = Some(end);
        let half = (after.as_millis() / 2).max(1);
        let halves = |end: Timestamp| end.since(shown_at).div_euclid(half);
        let is_first = last_active_at <= shown_at;
        let is_last = Some(end) == self.grant_at_latest;
        if is_first || is_last || halves(end) > halves(before) { Postponed::Told } else { Postponed::Untold }
    }
}

/// Answer of the holder to a knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The claimed lease.
    pub claim: Claim,
    /// User who gets the answer; the first who knocked if `None`.
    pub user_id: Option<UserId>,
}

/// Outcome of a [`Reply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replied {
    /// The lock is granted to the recipient, who must claim it.
    HandedOver(Lock),
    /// The holder keeps the lock. The user who knocked is told.
    Declined(Lock),
    /// No knock is pending.
    Nobody,
    /// The recipient is the holder.
    Own,
    /// The recipient may not hold the lock.
    NotAMember,
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

/// Recipient of `lock` by this reply, with the session of their knock. `None` if the reply names no user and
/// no knock is pending.
#[must_use]
pub fn recipient<'a>(lock: &'a Lock, request: &'a Reply) -> Option<(&'a UserId, Option<&'a SessionId>)> {
    match (knock_of(lock, request.user_id.as_ref()), &request.user_id) {
        (Some(knock), _) => Some((&knock.user_id, knock.session_id.as_ref())),
        (None, to) => to.as_ref().map(|to| (to, None)),
    }
}

/// Decides a handover. `may_hold` tells whether the named recipient may hold the lock. `wish` is the waiting
/// acquire of the [`recipient`], if there is one.
#[must_use]
pub fn hand_over(
    found: Now,
    request: &Reply,
    may_hold: bool,
    wish: Option<Acquire>,
    rules: &Rules,
    Moment { now, fresh, .. }: Moment,
) -> Decision<Replied> {
    if !may_hold && matches!(&found, Now::Locked(lock) if lock.user_id == request.claim.user_id) {
        // Only the holder learns that the recipient is not a member.
        return Decision { change: Change::Nothing, outcome: Replied::NotAMember };
    }
    let previous = match of_the_holder(found, &request.claim, rules) {
        Ok(lock) => lock,
        Err(outcome) => return Decision { change: Change::Nothing, outcome: *outcome },
    };
    let lock = match (knock_of(&previous, request.user_id.as_ref()), &request.user_id) {
        (Some(knock), _) => knock.granted(wish, &previous, rules, Begins::now(now), fresh),
        (None, None) => return Decision { change: Change::Nothing, outcome: Replied::Nobody },
        // The holder can hand over to another of their own sessions only if that session knocked.
        (None, Some(to)) if *to == previous.user_id => {
            return Decision { change: Change::Nothing, outcome: Replied::Own };
        }
        (None, Some(to)) => {
            let anybody = || Acquire::of_nobody_else(previous.workspace_id.clone(), to.clone());
            let hold = if wish.is_some() { Hold::Given } else { Hold::GivenToPerson };
            given(&wish.unwrap_or_else(anybody), hold, rules, Begins::now(now), fresh)
        }
    };
    let outcome = Replied::HandedOver(lock.clone());
    Decision { change: Change::HandOver { previous, lock, asked: true }, outcome }
}

/// Whether this handover was already carried out and led to the live `lock`. A holder repeats the request
/// when the answer got lost. `lost` is the end of the holder's last lease.
#[must_use]
pub fn was_handed_over(request: &Reply, lost: &Lost, lock: &Lock, rules: &Rules) -> bool {
    let claim = &request.claim;
    let is_their_session = match rules.same_user {
        SameUser::Share => true,
        SameUser::Separate => claim.session_id.is_none() || claim.session_id == lost.session_id,
    };
    lost.ending == Ending::HandedOver
        && lost.by_user_id.as_ref() == Some(&claim.user_id)
        && lost.next_fence == Some(lock.fence)
        && is_their_session
        && claim.fence.is_none_or(|fence| fence == lost.fence)
        && request.user_id.as_ref().is_none_or(|to| *to == lock.user_id)
}

/// Decides a decline: the holder keeps the lock for now.
#[must_use]
pub fn decline(found: Now, request: &Reply, rules: &Rules, now: Timestamp) -> Decision<Replied> {
    let mut lock = match of_the_holder(found, &request.claim, rules) {
        Ok(lock) => lock,
        Err(outcome) => return Decision { change: Change::Nothing, outcome: *outcome },
    };
    let Some(place) = place(&lock, request.user_id.as_ref()) else {
        return Decision { change: Change::Nothing, outcome: Replied::Nobody };
    };
    let knock = lock.knocks.pending.remove(place);
    lock.knocks.declined.push(Declined { user_id: knock.user_id.clone(), at: now });
    if place == 0 {
        lock.knocks.show_the_first(rules, now);
    }
    // A decline comes from a person, so it counts as activity.
    lock.last_active_at = now;
    Decision { change: Change::Decline(lock.clone(), knock.user_id), outcome: Replied::Declined(lock) }
}

/// Returns the live lock if the claim covers it.
fn of_the_holder(found: Now, claim: &Claim, rules: &Rules) -> Result<Lock, Box<Replied>> {
    match found {
        Now::Free { .. } => Err(Box::new(Replied::NoLock)),
        Now::Locked(lock) if disposes(claim, &lock, rules) => Ok(lock),
        Now::Locked(lock) => {
            let same_user = lock.user_id == claim.user_id;
            Err(Box::new(Replied::NotHolder { lock, same_user }))
        }
    }
}

/// Pending knock of this user; the first one if `user_id` is `None`.
fn knock_of<'a>(lock: &'a Lock, user_id: Option<&UserId>) -> Option<&'a Knock> {
    place(lock, user_id).and_then(|place| lock.knocks.pending.get(place))
}

/// Position of this user's pending knock; of the first one if `user_id` is `None`.
fn place(lock: &Lock, user_id: Option<&UserId>) -> Option<usize> {
    lock.knocks.pending.iter().position(|knock| user_id.is_none_or(|user_id| knock.user_id == *user_id))
}
