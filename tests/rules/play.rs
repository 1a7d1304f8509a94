//! A history, step by step, on the world and on the model.

use std::collections::HashMap;

use lockhouse::domain::access::Rules;
use lockhouse::domain::{Lock, LockKind};

use crate::model::{Model, is_shared};
use crate::steps::{FenceStep, Step, WORKSPACES, Who};
use crate::world::World;
use crate::{session, user};

/// Takes each step in the world and in the model, and compares them.
pub struct Play {
    pub world: World,
    pub model: Model,
    pub now: i64,
    /// When the server started last.
    pub opened: i64,
    /// The outcomes that the clients received, as text.
    pub told: Vec<String>,
}

impl Play {
    pub fn new(rules: Rules) -> Self {
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

    pub fn take(&mut self, step: &Step) {
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
            assert!(was <= is, "the lock passes no sooner than the user who knocked was told");
            if let (Some(shown), Some(latest)) = (after.knocks.shown_at, rules.knock_grant_at_latest)
                && self.opened < shown.0
            {
                assert!(is <= shown.plus(latest), "activity postpones it up to the limit");
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
}
