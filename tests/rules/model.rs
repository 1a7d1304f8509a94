//! The model: all leases of each workspace. Nothing is ever deleted.

use std::collections::HashMap;

use lockhouse::domain::access::{Rules, SameUser};
use lockhouse::domain::{GrantState, LockKind};

use crate::steps::{MIN_TTL, Who, ttls};

/// A lease of a workspace.
#[derive(Debug, Clone)]
pub struct Lease {
    pub kind: LockKind,
    pub user: usize,
    pub session: Option<usize>,
    pub fence: i64,
    pub ends: i64,
    pub given_up: bool,
    /// It was ended by someone else, or handed over.
    pub forced: bool,
    /// Until when the processes of earlier leases may run.
    pub drain_until: Option<i64>,
    pub ttl: i64,
    pub active: i64,
    /// Whether the holder has claimed it, and who may claim it.
    pub grant_state: GrantState,
    /// The users who knocked, their sessions and the kinds they ask for: people before agents, each in order.
    pub knocks: Vec<(usize, Option<usize>, LockKind)>,
    /// The users who were declined, whether as agents, and when.
    pub declined: Vec<(usize, bool, i64)>,
    pub grant_at: Option<i64>,
    /// The limit for postponements by activity.
    pub grant_at_latest: Option<i64>,
}

impl Lease {
    pub fn granted(kind: LockKind, by: Who, fence: i64, ttl: i64, now: i64) -> Self {
        Self {
            kind,
            user: by.user,
            session: by.session,
            fence,
            ends: now + ttl,
            given_up: false,
            forced: false,
            drain_until: None,
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
    pub fn given(kind: LockKind, to: Who, fence: i64, rules: &Rules, now: i64) -> Self {
        let (ttl, _) = ttls(kind);
        let ends = now + if is_of_people(kind) { rules.claim_within.as_millis().min(ttl) } else { ttl };
        let grant_state = if to.session.is_some() { GrantState::ToSession } else { GrantState::ToUser };
        Self { ends, grant_state, ..Self::granted(kind, to, fence, ttl, now) }
    }

    /// Shows the first knock from now on.
    pub fn show_the_first(&mut self, rules: &Rules, now: i64) {
        let to_agent = self.knocks.first().is_some_and(|knock| knock.2 == LockKind::Agent);
        let passes =
            !self.knocks.is_empty() && (is_of_people(self.kind) && !to_agent || self.kind == LockKind::Agent);
        let after = rules.knock_grant_after.filter(|_| passes);
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
        let shared = is_shared(self.kind, rules);
        self.ends = if shared { self.ends.max(now + ttl) } else { now + ttl };
        self.ttl = if shared { self.ttl.max(ttl) } else { ttl };
        self.grant_state = GrantState::Claimed;
    }
}

/// Agents are treated like people here.
fn is_of_people(kind: LockKind) -> bool {
    matches!(kind, LockKind::Edit | LockKind::Agent)
}

fn is_of_a_session(kind: LockKind) -> bool {
    matches!(kind, LockKind::Agent | LockKind::Run | LockKind::Terraform)
}

/// Whether the sessions of a user share a lock of this kind.
pub fn is_shared(kind: LockKind, rules: &Rules) -> bool {
    kind == LockKind::Lfs || (kind == LockKind::Edit && rules.same_user == SameUser::Share)
}

pub struct Model {
    pub rules: Rules,
    pub leases: HashMap<usize, Vec<Lease>>,
}

impl Model {
    /// Applies due grants. The fences are those that the world would give.
    pub fn settle(&mut self, at: usize, now: i64) {
        let Some(last) = self.leases.get_mut(&at).and_then(|leases| leases.last_mut()) else { return };
        let Some(grant_at) = last.grant_at.filter(|grant_at| *grant_at <= now && *grant_at <= last.ends)
        else {
            return;
        };
        if last.given_up {
            return;
        }
        (last.given_up, last.forced) = (true, true);
        let (user, session, kind) = last.knocks[0];
        let next = Lease::given(kind, Who { user, session }, last.fence + 1, &self.rules, grant_at);
        self.begin(at, next, grant_at);
    }

    /// Adds a lease that begins at `now`. The processes of all earlier leases that others have ended may run until
    /// those leases would have expired.
    pub fn begin(&mut self, at: usize, lease: Lease, now: i64) {
        let leases = self.leases.entry(at).or_default();
        let running = leases.iter().filter(|lease| lease.forced).map(|lease| lease.ends).max();
        leases.push(Lease { drain_until: running.filter(|until| *until > now), ..lease });
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

    /// Whether `by` has the live lease, which must be of this kind.
    pub fn owns(&self, lease: &Lease, kind: LockKind, by: Who) -> bool {
        lease.kind == kind && self.is_owner(lease, by)
    }

    /// Whether the lease is an agent's and passes to a person who asks for a lock of this kind.
    pub fn yields(&self, lease: &Lease, kind: LockKind) -> bool {
        self.rules.agents_yield && (lease.kind, kind) == (LockKind::Agent, LockKind::Edit)
    }

    fn is_owner(&self, lease: &Lease, by: Who) -> bool {
        let any_session = lease.grant_state == GrantState::ToUser;
        let same = is_same_session(lease.kind, lease.session, by.session);
        lease.user == by.user && (is_shared(lease.kind, &self.rules) || same || any_session)
    }

    /// Whether a message from `by`, or from an agent of theirs, is about the live lease.
    pub fn is_about(&self, lease: &Lease, agent: bool, by: Who, fence: Option<i64>) -> bool {
        if agent && lease.kind != LockKind::Agent {
            return false;
        }
        let named = by.session.is_none() && fence.is_some() && lease.user == by.user;
        fence.is_none_or(|fence| fence == lease.fence) && (self.is_owner(lease, by) || named)
    }

    /// Whether `by` gives the live lease away.
    pub fn is_given_by(&self, lease: &Lease, agent: bool, by: Who, fence: Option<i64>) -> bool {
        if agent && lease.kind != LockKind::Agent {
            return false;
        }
        let names_nothing = by.session.is_none() && fence.is_none() && lease.user == by.user;
        (names_nothing && !is_of_a_session(lease.kind)) || self.is_about(lease, agent, by, fence)
    }
}

/// Whether these are the same session. Where it owns the lock, no session id is no session.
pub fn is_same_session(kind: LockKind, one: Option<usize>, other: Option<usize>) -> bool {
    one == other && (one.is_some() || !is_of_a_session(kind))
}

/// Whether `force` replaces a lock of this kind.
pub fn yields_to_force(kind: LockKind) -> bool {
    is_of_people(kind)
}

pub fn clamped(kind: LockKind, ttl: i64) -> i64 {
    ttl.clamp(MIN_TTL, ttls(kind).1)
}
