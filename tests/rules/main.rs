//! The rules without SQL and HTTP: long random histories of acquire, heartbeat, release, takeover, knock, handover, time,
//! restart and sweep, compared with a small model.
//!
//! The model keeps of each workspace who had which lease, until when, and whether it was given up: it never deletes
//! anything, so it has no notion of sweeping.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod engines;
mod handoff;
mod memory;
mod model;
mod refusals;
mod steps;
mod waiters;
mod webhooks;
mod world;

use std::collections::HashMap;

use lockhouse::domain::access::{Privilege, Rules};
use lockhouse::domain::event::Ending;
use lockhouse::domain::rules::{self, Change};
use lockhouse::domain::{
    Acquire, Acquired, Activity, Authority, Claim, Fence, Force, GrantState, Heartbeat, HeartbeatOutcome,
    Lock, LockKind, Release, Released, SessionId, UserId, WorkspaceId,
};
use lockhouse::time::{Timestamp, Ttl};
use model::{Lease, Model, clamped, is_same_session, is_shared, yields_to_force};
use proptest::prelude::*;
use steps::{FenceStep, ForceStep, RECLAIM_WITHIN, Step, WORKSPACES, Who, rules, step, ttls};
use world::World;

fn user(number: usize) -> UserId {
    UserId::parse(&format!("user {number}")).unwrap()
}

fn session(number: Option<usize>) -> Option<SessionId> {
    number.map(|number| SessionId::parse(&format!("session {number}")).unwrap())
}

fn workspace(number: usize) -> WorkspaceId {
    WorkspaceId::parse(&format!("workspace {number}")).unwrap()
}

/// Takes each step in the world and in the model, and compares them.
struct Play {
    world: World,
    model: Model,
    now: i64,
    /// When the server started last.
    opened: i64,
    /// The outcomes that the clients received, as text.
    told: Vec<String>,
}

impl Play {
    fn new(rules: Rules) -> Self {
        Self {
            world: World::new(),
            model: Model { rules, leases: HashMap::new() },
            now: 1_000,
            opened: 0,
            told: Vec::new(),
        }
    }

    fn fence(&self, at: usize, fence: FenceStep) -> Option<i64> {
        match fence {
            FenceStep::None => None,
            FenceStep::Ago(ago) => self.model.ago(at, ago),
        }
    }

    fn take(&mut self, step: &Step) {
        let before: Vec<_> =
            (0..WORKSPACES).map(|at| self.world.seen(at, &self.model.rules, self.now)).collect();
        self.take_step(step);
        for (at, before) in before.into_iter().enumerate() {
            let after = self.world.seen(at, &self.model.rules, self.now);
            if let Some(before) = &before {
                self.agents_respect(step, at, before, after.as_ref());
            }
            if let (Some(before), Some(after)) = (before, after) {
                self.keeps_its_promises(&before, &after);
            }
        }
    }

    /// No agent ends, renews, shortens or takes a person's lock, and no person is refused because of an agent. `before` is
    /// the live lock before the step.
    fn agents_respect(&self, step: &Step, at: usize, before: &Lock, after: Option<&Lock>) {
        let same_lease = |after: &Lock| {
            Lock { knocks: after.knocks.clone(), check_at: after.check_at, ..before.clone() } == *after
        };
        if before.kind != LockKind::Agent {
            if step.is_by_agent() {
                assert!(after.is_some_and(same_lease), "an agent changed {before:?} to {after:?}");
            }
            let is_given = matches!(step, Step::HandOver { .. });
            assert!(
                is_given || after.is_none_or(|after| after.kind != LockKind::Agent),
                "an agent took {before:?}"
            );
        }
        if let Step::Acquire { kind: LockKind::Edit, by, at: there, .. } = step
            && before.kind == LockKind::Agent
            && self.model.rules.agents_yield
            && *there == at
        {
            let has =
                after.is_some_and(|after| (after.kind, &after.user_id) == (LockKind::Edit, &user(by.user)));
            assert!(has, "a person was refused because of an agent: {after:?}");
        }
    }

    /// Promises that do not depend on the model.
    fn keeps_its_promises(&self, before: &Lock, after: &Lock) {
        let rules = &self.model.rules;
        if before.fence != after.fence || before.acquired_at != after.acquired_at {
            return;
        }
        if is_shared(before.kind, rules) {
            assert!(before.expires_at <= after.expires_at && before.ttl <= after.ttl, "cut short");
        }
        let (Some(was), Some(is)) = (before.knocks.grant_at, after.knocks.grant_at) else { return };
        if before.knocks.shown_at == after.knocks.shown_at {
            assert!(was <= is, "who knocked does not get it sooner than they were told");
            if let (Some(shown), Some(latest)) = (after.knocks.shown_at, rules.knock_grant_at_latest)
                && self.opened < shown.0
            {
                assert!(is <= shown.plus(latest), "nobody is put off for ever");
            }
        }
    }

    fn take_step(&mut self, step: &Step) {
        for at in 0..WORKSPACES {
            self.model.settle(at, self.now);
        }
        match *step {
            Step::Acquire { kind, by, at, ttl, force, admin } => {
                self.acquire(kind, by, at, ttl, force, admin);
            }
            Step::Heartbeat { agent, by, at, ttl, fence, session, active } => {
                let by = if session { by } else { Who { session: None, ..by } };
                self.heartbeat(agent, by, at, ttl, self.fence(at, fence), active);
            }
            Step::Release { agent, by, at, fence, session, admin } => {
                let by = if session { by } else { Who { session: None, ..by } };
                self.release(agent, by, at, self.fence(at, fence), admin);
            }
            Step::Knock { kind, by, at } => self.knock(kind, by, at),
            Step::HandOver { agent, by, at, fence, to } => {
                self.hand_over(agent, by, at, self.fence(at, fence), to);
            }
            Step::Decline { agent, by, at, fence, whose } => {
                self.decline(agent, by, at, self.fence(at, fence), whose);
            }
            Step::Pass(by) => self.now += by,
            Step::Restart { away, grace } => self.restart(away, grace),
            Step::Sweep => {
                for at in 0..WORKSPACES {
                    self.world.now(at, &self.model.rules, self.now);
                }
            }
        }
        for at in 0..WORKSPACES {
            let shown = self.world.seen(at, &self.model.rules, self.now);
            self.model.settle(at, self.now);
            let expected = self.model.live(at, self.now);
            assert_eq!(
                shown.map(|lock| (
                    (lock.kind, lock.drain_until.map(|until| until.0)),
                    lock.user_id.clone(),
                    lock.session_id.clone(),
                    lock.fence.0,
                    lock.expires_at.0,
                    lock.grant_state,
                    lock.last_active_at.0,
                    lock.knocks.grant_at.map(|at| at.0),
                    lock.knocks.grant_at_latest.map(|at| at.0),
                )),
                expected.map(|lease| (
                    (lease.kind, lease.drain_until),
                    user(lease.user),
                    session(lease.session),
                    lease.fence,
                    lease.ends,
                    lease.grant_state,
                    lease.active,
                    lease.grant_at,
                    lease.grant_at_latest,
                )),
            );
        }
    }

    /// The store records when it stopped, and extends the leases that were live then.
    fn restart(&mut self, away: i64, grace: i64) {
        // All due grants are applied.
        for at in 0..WORKSPACES {
            self.world.now(at, &self.model.rules, self.now);
        }
        // The time is recorded with each write. Leases that ended before the stop stay ended.
        let last_seen = self.now;
        self.now += away;
        self.opened = self.now;
        self.world.restart(last_seen, self.now, grace);
        if grace == 0 {
            return;
        }
        let until = self.now + grace;
        for lease in self.model.leases.values_mut().filter_map(|leases| leases.last_mut()) {
            if !lease.given_up && lease.ends > last_seen {
                lease.ends = lease.ends.max(until);
            }
            lease.grant_at = lease.grant_at.map(|at| at.max(until));
            lease.grant_at_latest = lease.grant_at_latest.map(|at| at.max(until));
        }
    }

    fn acquire(
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

    fn claim(is_agent: bool, by: Who, at: usize, fence: Option<i64>) -> Claim {
        Claim {
            is_agent,
            workspace_id: workspace(at),
            user_id: user(by.user),
            session_id: session(by.session),
            fence: fence.map(Fence),
        }
    }

    fn heartbeat(
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

    fn release(&mut self, agent: bool, by: Who, at: usize, fence: Option<i64>, admin: bool) {
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

/// The number of cases of a property. `.ci/run all` asks for more.
fn cases(usual: u32) -> u32 {
    if std::env::var_os("SLOW_TESTS").is_some() { usual * 20 } else { usual }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1_000), ..ProptestConfig::default() })]

    #[test]
    fn random_histories_match_the_model(rules in rules(), steps in prop::collection::vec(step(), 1..120)) {
        let mut play = Play::new(rules);
        for step in &steps {
            play.take(step);
        }
    }

    /// The same history, once with a sweeper that never comes and once with one that comes after every step: what
    /// the clients are told is the same, word for word.
    #[test]
    fn the_sweeper_is_invisible_to_clients(
        rules in rules(), steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut never = Play::new(rules.clone());
        let mut always = Play::new(rules);
        for step in &steps {
            if !matches!(step, Step::Sweep) {
                never.take(step);
            }
            always.take(step);
            always.take(&Step::Sweep);
            for at in 0..WORKSPACES {
                let shown = |play: &Play| play.world.seen(at, &play.model.rules, play.now);
                prop_assert_eq!(shown(&never), shown(&always));
            }
            prop_assert_eq!(&never.told, &always.told);
        }
    }
}
