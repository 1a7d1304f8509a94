//! Asking before taking: somebody knocks, the holder hands the lock over or keeps it, and silence is consent.
//!
//! The knocks are part of the lease that they are about and end with it. The holder is shown them one at a time, in the
//! order in which they came; the clock of a knock begins to run when it is shown.

use super::access::{Privilege, Rules, SameUser};
use super::event::{Ending, Lost};
use super::rules::{Begins, Change, Decision, disposes, given, owns};
use super::token::Lasts;
use super::{
    Acquire, Claim, DisplayName, Fence, Force, Hold, Lock, Moment, Now, SessionId, UserId, WorkspaceId,
};
use crate::time::{Timestamp, Ttl};

/// Most knocks that one lease can have, those that were declined lately among them.
pub const MOST_KNOCKS: usize = 20;

/// Who asks the holder of a lease for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Knocks {
    /// Those without an answer, in the order in which they came. The first is the one that the holder is shown.
    pub pending: Vec<Knock>,
    /// Those that the holder declined lately.
    pub declined: Vec<Declined>,
    /// When the holder was first shown the first of them.
    pub shown_at: Option<Timestamp>,
    /// When the lock passes to the first, unless the holder answers or is at work.
    pub grant_at: Option<Timestamp>,
    /// The latest that `grant_at` can become because the holder is at work; nothing means that there is no latest.
    pub grant_at_latest: Option<Timestamp>,
}

/// What the activity of the holder does to the end of a knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Postponed {
    /// Nothing.
    No,
    /// It moves, by so little that there is no event for it.
    Untold,
    /// It moves, and those who follow the events are told.
    Told,
}

/// Somebody asks the holder for the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knock {
    /// Who.
    pub user_id: UserId,
    /// How they are shown.
    pub name: Option<DisplayName>,
    /// From which session.
    pub session_id: Option<SessionId>,
    /// What they say, to 500 bytes.
    pub message: Option<String>,
    /// When.
    pub knocked_at: Timestamp,
    /// How long the credentials of the caller are good. A lock is not granted to a caller whose credentials have ended.
    pub lasts: Lasts,
}

/// The holder kept the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// Who had asked.
    pub user_id: UserId,
    /// When the holder said so.
    pub at: Timestamp,
}

impl Declined {
    /// Time until they may ask again; `None` when they may.
    fn again_in(&self, rules: &Rules, now: Timestamp) -> Option<Ttl> {
        let left = self.at.plus(rules.knock_again_after).since(now);
        (left > 0).then(|| Ttl::from_millis(left))
    }
}

impl Knock {
    /// The lease that they get, in place of that of `lock`. `waits` is what they asked for, if they wait for it.
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
    /// For `user_id`, of whom nothing else is known.
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

/// Somebody asks the holder for the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Of which workspace.
    pub workspace_id: WorkspaceId,
    /// Who asks.
    pub user_id: UserId,
    /// How they are shown.
    pub name: Option<DisplayName>,
    /// From which session.
    pub session_id: Option<SessionId>,
    /// What they say.
    pub message: Option<String>,
    /// How long their credentials are good.
    pub lasts: Lasts,
}

/// What became of an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The holder is told, or will be when those before have their answer. A repeat changes only the words.
    Heard(Lock),
    /// Nobody has the lock.
    NoLock,
    /// The caller has it.
    Own(Lock),
    /// The holder declined them just now.
    TooSoon {
        /// The lock that they asked for.
        lock: Lock,
        /// They can ask again after so long.
        again: Ttl,
    },
    /// The lease has [`MOST_KNOCKS`] already.
    TooMany,
}

/// Somebody asks the holder for the lock.
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
    /// Whether there is nothing to remember.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.declined.is_empty()
    }

    /// Time until `user_id`, who was declined, may ask again; `None` when they may.
    #[must_use]
    pub fn again_in(&self, user_id: &UserId, rules: &Rules, now: Timestamp) -> Option<Ttl> {
        self.declined
            .iter()
            .filter(|declined| declined.user_id == *user_id)
            .find_map(|declined| declined.again_in(rules, now))
    }

    /// Somebody asks no more. Returns whether they did.
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

    /// The holder is shown the first from now on.
    fn show_the_first(&mut self, rules: &Rules, now: Timestamp) {
        let after = rules.knock_grant_after.filter(|_| !self.pending.is_empty());
        self.shown_at = after.map(|_| now);
        self.grant_at = after.map(|after| now.plus(after));
        self.grant_at_latest = after.and(rules.knock_grant_at_latest).map(|latest| now.plus(latest));
    }

    /// The holder is at work and therefore not silent. They were so before at `last_active_at`.
    ///
    /// A heartbeat moves the end by a little, again and again. There is an event for the first time, for each half of
    /// `knock_grant_after` that the end has moved, and for the last time: whoever goes by the events is never behind by
    /// more than that half, and the history has few of them.
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

/// The holder answers a knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Which lease.
    pub claim: Claim,
    /// Whom; the first who knocked if the holder does not say.
    pub user_id: Option<UserId>,
}

/// What became of a [`Reply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replied {
    /// The other has the lock, if they claim it.
    HandedOver(Lock),
    /// The holder keeps it, and the one who knocked is told.
    Declined(Lock),
    /// Nobody has knocked.
    Nobody,
    /// It was to be given to the holder.
    Own,
    /// It was to be given to somebody who may not hold it.
    NotAMember,
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

/// Who gets `lock` by this reply of its holder, and in which session they asked for it; nobody if nobody is named and
/// nobody has knocked.
#[must_use]
pub fn recipient<'a>(lock: &'a Lock, request: &'a Reply) -> Option<(&'a UserId, Option<&'a SessionId>)> {
    match (knock_of(lock, request.user_id.as_ref()), &request.user_id) {
        (Some(knock), _) => Some((&knock.user_id, knock.session_id.as_ref())),
        (None, to) => to.as_ref().map(|to| (to, None)),
    }
}

/// The holder gives the lock to somebody. `may_hold` tells whether the one whom they name may hold it; `wish` is what the
/// [`recipient`] asked for, if they wait for it.
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
        // Nobody but the holder learns that.
        return Decision { change: Change::Nothing, outcome: Replied::NotAMember };
    }
    let previous = match of_the_holder(found, &request.claim, rules) {
        Ok(lock) => lock,
        Err(outcome) => return Decision { change: Change::Nothing, outcome: *outcome },
    };
    let lock = match (knock_of(&previous, request.user_id.as_ref()), &request.user_id) {
        (Some(knock), _) => knock.granted(wish, &previous, rules, Begins::now(now), fresh),
        (None, None) => return Decision { change: Change::Nothing, outcome: Replied::Nobody },
        // To another session of one's own one can give it where that one asked.
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

/// Whether a handover was carried out before, so that the live `lock` came of it: the holder repeats it, because they do
/// not know. `lost` is how the last lease ended that they had.
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

/// The holder keeps the lock, for now.
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
    // Only a person says no.
    lock.last_active_at = now;
    Decision { change: Change::Decline(lock.clone(), knock.user_id), outcome: Replied::Declined(lock) }
}

/// The live lock, if it is the one that is claimed.
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

/// The knock of this user; the first one if nobody is named.
fn knock_of<'a>(lock: &'a Lock, user_id: Option<&UserId>) -> Option<&'a Knock> {
    place(lock, user_id).and_then(|place| lock.knocks.pending.get(place))
}

/// Where the knock of this user stands; where the first one does if nobody is named.
fn place(lock: &Lock, user_id: Option<&UserId>) -> Option<usize> {
    lock.knocks.pending.iter().position(|knock| user_id.is_none_or(|user_id| knock.user_id == *user_id))
}
