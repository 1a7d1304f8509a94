//! Random histories on all engines.

use std::sync::atomic::Ordering;

use lockhouse::app::invariants;
use lockhouse::domain::Lock;
use lockhouse::domain::access::{Membership, Rules};
use lockhouse::domain::member::Role;
use proptest::prelude::*;

use super::step::engine_step;
use super::{EngineStep, Engines, SQLITE, Servers, on};
use crate::steps::{Step, WORKSPACES, limited_to, rules};
use crate::{refusals, workspace};

impl Engines {
    /// Agents stand behind all others in the line, and no person stands in line for what an agent has. No agent gets the
    /// lock of another before its end, unless its holder gives it away.
    pub(super) fn people_go_first(&self, at: usize, before: Option<&Lock>, step: &EngineStep) {
        let lock = self.live(at);
        if let (Some(before), Some(lock)) = (before, &lock)
            && lock.kind.is_agent()
            && !before.kind.is_agent()
        {
            let is_given = matches!(
                step,
                EngineStep::Rules(Step::HandOver { .. } | Step::Release { .. })
                    | EngineStep::Unlock { .. }
                    | EngineStep::ReleaseUser(_)
                    | EngineStep::Member { .. }
            );
            // In one step the lock may pass to a person by a knock, and that lease may end unclaimed.
            let unclaimed = before.knocks.grant_at.is_some_and(|at| {
                !before.knocks.pending[0].kind.is_agent()
                    && at.plus(self.rules.claim_within) <= lock.acquired_at
            });
            let has_ended = before.expires_at <= lock.acquired_at;
            assert!(is_given || has_ended || unclaimed, "{before:?} and then {lock:?}");
        }
        let queue = self.all[SQLITE].server(0).queue();
        // The waiters of a server that stops keep their places, but get no lock.
        let waiters = queue.waiters(&workspace(at)).into_iter().filter(|queued| !queued.waiter.is_gone());
        let kinds: Vec<_> = waiters.map(|queued| queued.waiter.request.kind).collect();
        assert!(kinds.is_sorted_by_key(|kind| kind.is_agent()), "{kinds:?}");
        if let Some(lock) = &lock {
            assert!(!kinds.iter().any(|kind| self.rules.yields(lock.kind, *kind)), "{lock:?} and {kinds:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::cases(24, 120), ..ProptestConfig::default() })]

    #[test]
    fn all_engines_give_the_same_outcomes(
        rules in rules(),
        few in any::<bool>(),
        enforced in any::<bool>(),
        roles in prop::collection::vec(0_usize..4, 3),
        (number, is_prompt) in (1_usize..=2, any::<bool>()),
        steps in prop::collection::vec((on(), engine_step()), 1..50),
    ) {
        let membership = if enforced { Membership::Enforced } else { Membership::Open };
        let kinds = limited_to(if few { 1 } else { 1_000 });
        let mut engines = Engines::new(Rules { membership, kinds, ..rules }, Servers { number, is_prompt });
        for at in 0..WORKSPACES {
            for (number, role) in roles.iter().enumerate() {
                if let Some(role) = Role::ALL.get(*role) {
                    engines.put_member(0, number, at, Some(*role));
                }
            }
        }
        for (on, step) in &steps {
            for answer in engines.take(*on, step) {
                refusals::check(&answer, &engines.rules);
            }
        }
        engines.settle(true);
        for store in engines.stores() {
            invariants::check(store, None, &engines.rules, 9, || false, |found| {
                assert_eq!(found.kind.as_str(), "expired_lock", "{found:?}");
            }).unwrap();
        }
        prop_assert!(engines.misses.load(Ordering::SeqCst) > 0, "use cases ran twice");
    }
}
