//! The knocks on a lease, and their time limits.

use super::LockKind;
use super::access::Rules;
use super::id::{SessionId, UserId};
use super::name::DisplayName;
use super::token::Validity;
use crate::time::{Timestamp, Ttl};

/// Maximum number of knocks on one lease, including recently declined ones.
pub const MAX_KNOCKS: usize = 20;

/// Knocks on one lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Knocks {
    /// Unanswered knocks, people before agents, each in order of arrival. The holder is shown the first one.
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
pub enum Postponement {
    /// No change.
    None,
    /// `grant_at` moves, but too little for an event.
    Silent,
    /// `grant_at` moves, and an event is recorded.
    Announced,
}

/// Knock: a user asks the holder for the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knock {
    /// Kind of the lock that the user asks for.
    pub kind: LockKind,
    /// Id of the user who knocked.
    pub user_id: UserId,
    /// Display name of that user.
    pub name: Option<DisplayName>,
    /// For an agent: display name of the user for whom it acts.
    pub for_name: Option<DisplayName>,
    /// Session of that user.
    pub session_id: Option<SessionId>,
    /// Message, up to 500 bytes.
    pub message: Option<String>,
    /// Time of the knock.
    pub knocked_at: Timestamp,
    /// How long the credentials of the caller are valid. The lock is not granted if they have ended.
    pub validity: Validity,
}

/// Declined knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// Kind of the lock that the user asked for.
    pub kind: LockKind,
    /// Id of the user who knocked.
    pub user_id: UserId,
    /// When the holder declined.
    pub at: Timestamp,
}

impl Declined {
    /// Time until the user may knock again; `None` if they may now.
    pub(super) fn retry_in(&self, rules: &Rules, now: Timestamp) -> Option<Ttl> {
        let left = self.at.plus(rules.knock_again_after).since(now);
        (left > 0).then(|| Ttl::from_millis(left))
    }
}

impl Knocks {
    /// Whether there is no pending and no declined knock.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.declined.is_empty()
    }

    /// Time until `user_id`, or an agent of theirs, may knock again after being declined; `None` if they may now.
    #[must_use]
    pub fn retry_in(&self, user_id: &UserId, is_agent: bool, rules: &Rules, now: Timestamp) -> Option<Ttl> {
        self.declined
            .iter()
            .filter(|declined| declined.user_id == *user_id && declined.kind.is_agent() == is_agent)
            .find_map(|declined| declined.retry_in(rules, now))
    }

    /// Number of knocks that count for the limit of one more by this kind. Knocks of agents do not keep people out.
    pub(super) fn count_for(&self, kind: LockKind) -> usize {
        let kinds = self.pending.iter().map(|knock| knock.kind);
        let kinds = kinds.chain(self.declined.iter().map(|declined| declined.kind));
        kinds.filter(|other| kind.is_agent() || !other.is_agent()).count()
    }

    /// Adds a knock, people before agents. `held` is the kind of the lock.
    pub(super) fn add(&mut self, knock: Knock, held: LockKind, rules: &Rules, now: Timestamp) {
        let first_agent = self.pending.iter().position(|other| other.kind.is_agent());
        let place = first_agent.filter(|_| !knock.kind.is_agent()).unwrap_or(self.pending.len());
        self.pending.insert(place, knock);
        if place == 0 {
            self.show_first(held, rules, now);
        }
    }

    /// Removes the pending knocks of `user_id` and their agents on a lock of this kind.
    pub fn remove(&mut self, kind: LockKind, user_id: &UserId, rules: &Rules, now: Timestamp) {
        let is_first = self.pending.first().is_some_and(|knock| knock.user_id == *user_id);
        self.pending.retain(|knock| knock.user_id != *user_id);
        if is_first {
            self.show_first(kind, rules, now);
        }
    }

    /// Shows the first pending knock to the holder of a lock of this kind: its time limit starts at `now`.
    pub(super) fn show_first(&mut self, kind: LockKind, rules: &Rules, now: Timestamp) {
        let is_granted = self.pending.first().is_some_and(|knock| Rules::passes_on(kind, knock.kind));
        let after = rules.knock_grant_after.filter(|_| is_granted);
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
    pub(super) fn postpone(
        &mut self,
        last_active_at: Timestamp,
        rules: &Rules,
        now: Timestamp,
    ) -> Postponement {
        let (Some(shown_at), Some(before), Some(after)) =
            (self.shown_at, self.grant_at, rules.knock_grant_after)
        else {
            return Postponement::None;
        };
        let end = self.grant_at_latest.map_or(now.plus(after), |latest| latest.min(now.plus(after)));
        if end <= before {
            return Postponement::None;
        }
        self.grant_at = Some(end);
        let half = (after.as_millis() / 2).max(1);
        let halves = |end: Timestamp| end.since(shown_at).div_euclid(half);
        let is_first = last_active_at <= shown_at;
        let is_last = Some(end) == self.grant_at_latest;
        if is_first || is_last || halves(end) > halves(before) {
            Postponement::Announced
        } else {
            Postponement::Silent
        }
    }
}
