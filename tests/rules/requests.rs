//! Acquire, heartbeat and release, on the world and on the model.

use lockhouse::domain::access::Privilege;
use lockhouse::domain::event::Ending;
use lockhouse::domain::rules::{self, Change};
use lockhouse::domain::{
    Acquire, Acquired, Activity, Authority, Claim, Fence, Force, GrantState, Heartbeat, HeartbeatOutcome,
    Lock, LockKind, Release, Released,
};
use lockhouse::time::{Timestamp, Ttl};

use crate::model::{Lease, clamped, is_same_session, yields_to_force};
use crate::play::Play;
use crate::steps::{ForceStep, RECLAIM_WITHIN, Who, ttls};
use crate::{session, user, workspace};

impl Play {
    pub fn acquire(
        &mut self,
        kind: LockKind,
        by: Who,
        at: usize,
        ttl: Option<i64>,
        force: ForceStep,
        admin: bool,
    ) {
        let force = match force {
            ForceStep::No => Force::No,
            ForceStep::Anyone => Force::AnyHolder,
            ForceStep::Seen(ago) => {
                self.model.ago(at, ago).map_or(Force::AnyHolder, |fence| Force::OnlyFence(Fence(fence)))
            }
        };
        let privilege = if admin { Privilege::Administrator } else { Privilege::Ordinary };
        let request = Acquire {
            workspace_id: workspace(at),
            kind,
            user_id: user(by.user),
            user_name: None,
            for_name: None,
            session_id: session(by.session),
            privilege,
            ttl: ttl.map(Ttl::from_millis),
            force,
            note: None,
            metadata: None,
            reason: None,
        };
        let found = self.world.now(at, &self.model.rules, self.now);
        let next_fence = self.world.next_fence(at);
        let rules::Decision { change, outcome } =
            rules::acquire(found, &request, &self.model.rules, self.world.moment(at, self.now));
        self.world.apply(at, change);
        self.told.push(format!("{outcome:?}"));

        let ttl = clamped(kind, ttl.unwrap_or(ttls(kind).0));
        let ends = self.now + ttl;
        let now = self.now;
        let new = Lease::granted(kind, by, next_fence.0, ttl, self.now);
        let granted = |lock: &Lock| (lock.fence.0, lock.expires_at.0);
        let before = self.model.leases.get(&at).and_then(|leases| leases.last()).cloned();
        match self.model.live(at, self.now).cloned() {
            None => {
                let own = before
                    .filter(|last| !last.given_up && last.user == by.user && last.kind == kind)
                    .filter(|last| is_same_session(kind, last.session, by.session))
                    .filter(|last| last.ends >= self.opened && self.now <= last.ends + RECLAIM_WITHIN);
                if let Some(own) = own {
                    let Acquired::Reclaimed(lock) = &outcome else { panic!("{outcome:?}") };
                    assert_eq!(granted(lock), (own.fence, ends));
                    self.model.begin(at, Lease { fence: own.fence, ..new }, now);
                } else {
                    let Acquired::Acquired(lock) = &outcome else { panic!("{outcome:?}") };
                    assert_eq!(granted(lock), (next_fence.0, ends));
                    self.model.begin(at, new, now);
                }
            }
            Some(lease) if self.model.owns(&lease, kind, by) => {
                let Acquired::Renewed(lock) = &outcome else { panic!("{outcome:?}") };
                let rules = self.model.rules.clone();
                let last = self.model.last(at);
                last.renew(&rules, ttl, now);
                last.session = by.session.or(lease.session);
                last.active = now;
                assert_eq!((granted(lock), lock.ttl.as_millis()), ((lease.fence, last.ends), last.ttl));
            }
            Some(lease) => match (force, self.may_take_over(kind, privilege, &lease)) {
                _ if self.model.yields(&lease, kind) => {
                    let Acquired::TakenOver { lock, previous } = &outcome else { panic!("{outcome:?}") };
                    assert_eq!((granted(lock), previous.kind), ((next_fence.0, ends), LockKind::Agent));
                    let last = self.model.last(at);
                    (last.given_up, last.forced) = (true, true);
                    self.model.begin(at, new, now);
                }
                (Force::No, may) => {
                    let Acquired::Held { lock, same_user, takeover_allowed, idle } = &outcome else {
                        panic!("{outcome:?}")
                    };
                    assert_eq!(granted(lock), (lease.fence, lease.ends));
                    assert_eq!((*same_user, *takeover_allowed), (lease.user == by.user, may));
                    assert_eq!(idle.as_millis(), self.now - lease.active.max(self.opened));
                }
                (_, false) => assert!(matches!(outcome, Acquired::TakeoverForbidden(_)), "{outcome:?}"),
                (Force::OnlyFence(Fence(seen)), true) if seen != lease.fence => {
                    assert!(matches!(outcome, Acquired::FenceMismatch(_)), "{outcome:?}");
                }
                (_, true) => {
                    let Acquired::TakenOver { lock, previous } = &outcome else { panic!("{outcome:?}") };
                    assert_eq!(granted(lock), (next_fence.0, ends));
                    assert_eq!(granted(previous), (lease.fence, lease.ends));
                    let last = self.model.last(at);
                    (last.given_up, last.forced) = (true, true);
                    self.model.begin(at, new, now);
                }
            },
        }
    }

    fn may_take_over(&self, kind: LockKind, privilege: Privilege, lease: &Lease) -> bool {
        let rules = &self.model.rules;
        let idle = self.now - lease.active.max(self.opened);
        let is_idle = rules.idle_takeover_after.is_some_and(|after| idle >= after.as_millis());
        kind != LockKind::Agent
            && yields_to_force(lease.kind)
            && (rules.takeover.allows(privilege) || is_idle)
    }

    pub fn claim(is_agent: bool, by: Who, at: usize, fence: Option<i64>) -> Claim {
        Claim {
            is_agent,
            workspace_id: workspace(at),
            user_id: user(by.user),
            session_id: session(by.session),
            fence: fence.map(Fence),
        }
    }

    pub fn heartbeat(
        &mut self,
        agent: bool,
        by: Who,
        at: usize,
        ttl: Option<i64>,
        fence: Option<i64>,
        active: bool,
    ) {
        let request = Heartbeat {
            claim: Self::claim(agent, by, at, fence),
            ttl: ttl.map(Ttl::from_millis),
            activity: if active { Activity::Active } else { Activity::Idle },
        };
        let found = self.world.now(at, &self.model.rules, self.now);
        let rules::Decision { change, outcome } =
            rules::heartbeat(found, &request, &self.model.rules, Timestamp(self.now));
        self.world.apply(at, change);
        self.told.push(format!("{outcome:?}"));
        match self.model.live(at, self.now).cloned() {
            None => assert_eq!(outcome, HeartbeatOutcome::NoLock, "a heartbeat revives nothing"),
            Some(lease) if self.model.is_about(&lease, agent, by, fence) => {
                let ttl = clamped(lease.kind, ttl.unwrap_or(lease.ttl));
                let HeartbeatOutcome::Renewed(lock) = &outcome else { panic!("{outcome:?}") };
                let (rules, now) = (self.model.rules.clone(), self.now);
                let last = self.model.last(at);
                last.renew(&rules, ttl, now);
                if lease.grant_state == GrantState::ToUser {
                    last.session = by.session;
                }
                if active {
                    last.is_active(&rules, now);
                }
                assert_eq!(
                    (lock.fence.0, lock.expires_at.0, lock.ttl.as_millis()),
                    (lease.fence, last.ends, last.ttl)
                );
            }
            Some(lease) => {
                let HeartbeatOutcome::NotHolder { lock, same_user } = &outcome else { panic!("{outcome:?}") };
                assert_eq!(
                    (lock.fence.0, lock.expires_at.0),
                    (lease.fence, lease.ends),
                    "nothing is lengthened"
                );
                assert_eq!(*same_user, lease.user == by.user);
            }
        }
    }

    pub fn release(&mut self, agent: bool, by: Who, at: usize, fence: Option<i64>, admin: bool) {
        let authority = if admin { Authority::Administrator } else { Authority::Holder };
        let request = Release {
            claim: Self::claim(agent, by, at, fence),
            user_name: None,
            authority,
            privilege: Privilege::Administrator,
            reason: None,
        };
        let found = self.world.now(at, &self.model.rules, self.now);
        let rules::Decision { change, outcome } = rules::release(found, &request, &self.model.rules);
        self.world.apply(at, change.clone());
        self.told.push(format!("{outcome:?}"));
        match self.model.live(at, self.now).cloned() {
            None => assert_eq!(outcome, Released::Nothing),
            Some(lease) => {
                let own = self.model.is_given_by(&lease, agent, by, fence);
                if own || (admin && fence.is_none_or(|fence| fence == lease.fence)) {
                    assert!(matches!(outcome, Released::Released(_)), "{outcome:?}");
                    let Change::End(_, ending) = change else { panic!("{change:?}") };
                    assert_eq!(ending == Ending::Released, own);
                    let last = self.model.last(at);
                    (last.given_up, last.forced) = (true, !own);
                } else {
                    assert!(matches!(outcome, Released::NotHolder { .. }), "{outcome:?}");
                }
            }
        }
    }
}
