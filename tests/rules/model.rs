//! The model: all leases of each workspace. Nothing is ever deleted.

use std::collections::HashMap;

use lockhouse::domain::GrantState;
use lockhouse::domain::access::{Rules, SameUser};

use crate::steps::{DEFAULT_TTL, MAX_TTL, MIN_TTL, Who};

/// A lease of a workspace.
#[derive(Debug, Clone)]
pub struct Lease {
    pub user: usize,
    pub session: Option<usize>,
    pub fence: i64,
    pub ends: i64,
    pub given_up: bool,
    pub ttl: i64,
    pub active: i64,
    /// Whether the holder has claimed it, and who may claim it.
    pub grant_state: GrantState,
    /// The users who knocked and their sessions, in order.
    pub knocks: Vec<(usize, Option<usize>)>,
    /// The users who were declined, and when.
    pub declined: Vec<(usize, i64)>,
    pub grant_at: Option<i64>,
    /// The limit for postponements by activity.
    pub grant_at_latest: Option<i64>,
}

impl Lease {
    pub fn granted(by: Who, fence: i64, ttl: i64, now: i64) -> Self {
        Self {
            user: by.user,
            session: by.session,
            fence,
            ends: now + ttl,
            given_up: false,
            ttl,
            active: now,
            grant_state: GrantState::Claimed,
            knocks: Vec::new(),
            declined: Vec::new(),
            grant_at: None,
            grant_at_latest: None,
        }
    }

    /// A lease that was granted or handed over.
    pub fn given(to: Who, fence: i64, rules: &Rules, now: i64) -> Self {
        let ends = now + rules.claim_within.as_millis().min(DEFAULT_TTL);
        let grant_state = if to.session.is_some() { GrantState::ToSession } else { GrantState::ToUser };
        Self { ends, grant_state, ..Self::granted(to, fence, DEFAULT_TTL, now) }
    }

    /// Shows the first knock from now on.
    pub fn show_the_first(&mut self, rules: &Rules, now: i64) {
        let after = rules.knock_grant_after.filter(|_| !self.knocks.is_empty());
        self.grant_at = after.map(|after| now + after.as_millis());
        self.grant_at_latest = after.and(rules.knock_grant_at_latest).map(|latest| now + latest.as_millis());
    }

    /// Records activity of the holder.
    pub fn is_active(&mut self, rules: &Rules, now: i64) {
        self.active = now;
        if let (Some(grant_at), Some(after)) = (self.grant_at, rules.knock_grant_after) {
            let postponed = (now + after.as_millis()).min(self.grant_at_latest.unwrap_or(i64::MAX));
            self.grant_at = Some(grant_at.max(postponed));
        }
    }

    /// Its holder renews it for `ttl` from now. Where sessions share it, none cuts it short.
    pub fn renew(&mut self, rules: &Rules, ttl: i64, now: i64) {
        self.ends = if rules.same_user == SameUser::Share { self.ends.max(now + ttl) } else { now + ttl };
        self.ttl = if rules.same_user == SameUser::Share { self.ttl.max(ttl) } else { ttl };
        self.grant_state = GrantState::Claimed;
    }
}

pub struct Model {
    pub rules: Rules,
    pub leases: HashMap<usize, Vec<Lease>>,
}

impl Model {
    /// Applies due grants. The fences are those that the world would give.
    pub fn settle(&mut self, at: usize, now: i64) {
        let Some(leases) = self.leases.get_mut(&at) else { return };
        let Some(last) = leases.last_mut() else { return };
        let Some(grant_at) = last.grant_at.filter(|grant_at| *grant_at <= now && *grant_at <= last.ends)
        else {
            return;
        };
        if last.given_up {
            return;
        }
        last.given_up = true;
        let (user, session) = last.knocks[0];
        let next = Lease::given(Who { user, session }, last.fence + 1, &self.rules, grant_at);
        leases.push(next);
    }

    pub fn live(&self, at: usize, now: i64) -> Option<&Lease> {
        self.leases.get(&at)?.last().filter(|lease| !lease.given_up && now < lease.ends)
    }

    pub fn last(&mut self, at: usize) -> &mut Lease {
        self.leases.get_mut(&at).unwrap().last_mut().unwrap()
    }

    pub fn ago(&self, at: usize, ago: usize) -> Option<i64> {
        self.leases.get(&at)?.iter().rev().nth(ago).map(|lease| lease.fence)
    }

    fn shares(&self) -> bool {
        self.rules.same_user == SameUser::Share
    }

    /// Whether `by` has the live lease.
    pub fn owns(&self, lease: &Lease, by: Who) -> bool {
        let any_session = lease.grant_state == GrantState::ToUser;
        lease.user == by.user && (self.shares() || lease.session == by.session || any_session)
    }

    /// Whether a message from `by` is about the live lease.
    pub fn is_about(&self, lease: &Lease, by: Who, fence: Option<i64>) -> bool {
        let named = by.session.is_none() && fence.is_some() && lease.user == by.user;
        fence.is_none_or(|fence| fence == lease.fence) && (self.owns(lease, by) || named)
    }

    /// Whether `by` gives the live lease away.
    pub fn is_given_by(&self, lease: &Lease, by: Who, fence: Option<i64>) -> bool {
        let whatever = by.session.is_none() && fence.is_none() && lease.user == by.user;
        whatever || self.is_about(lease, by, fence)
    }
}

pub fn clamped(ttl: i64) -> i64 {
    ttl.clamp(MIN_TTL, MAX_TTL)
}
