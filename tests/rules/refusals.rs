//! No waiter is refused because of its own lock, or because of a lock that has ended: random histories of waits, knocks,
//! renewals and releases by several sessions of several users, on all engines.

use lockhouse::config::Config;
use lockhouse::domain::access::{Rules, SameUser};
use lockhouse::domain::{Acquired, LockKind};
use lockhouse::time::Ttl;
use proptest::prelude::*;

use crate::engines::{EngineStep, Engines, Servers, on};
use crate::steps::{FenceStep, Step, Who};
use crate::waiters::WaiterAnswer;

/// Durations in milliseconds, near to each other so that they meet.
const TTL: i64 = 300;
const CLAIM: i64 = 60;
const GRANT: i64 = 100;

fn who() -> impl Strategy<Value = Who> {
    (0_usize..3, 0_usize..2).prop_map(|(user, session)| Who { user, session: Some(session) })
}

fn kind() -> impl Strategy<Value = LockKind> {
    prop_oneof![3 => Just(LockKind::Edit), 1 => Just(LockKind::Agent)]
}

fn step() -> impl Strategy<Value = EngineStep> {
    let rules = prop_oneof![
        4 => (kind(), who()).prop_map(|(kind, by)| Step::Knock { kind, by, at: 0 }),
        2 => (who(), any::<bool>()).prop_map(|(by, active)| {
            Step::Heartbeat { agent: false, by, at: 0, ttl: None, fence: FenceStep::None, session: true, active }
        }),
        1 => who().prop_map(|by| {
            Step::Release { agent: false, by, at: 0, fence: FenceStep::None, session: true, admin: false }
        }),
        5 => prop_oneof![Just(50_i64), Just(100_i64), 0_i64..200].prop_map(Step::Pass),
        1 => Just(Step::Sweep),
    ];
    prop_oneof![
        6 => (kind(), who(), prop_oneof![Just(GRANT), 1_i64..400])
            .prop_map(|(kind, by, wait)| EngineStep::Wait { kind, by, at: 0, ttl: Some(TTL), wait }),
        13 => rules.prop_map(EngineStep::Rules),
        3 => Just(EngineStep::Leave),
    ]
}

/// Checks the answer to a waiter.
pub fn check((request, answer): &WaiterAnswer, rules: &Rules) {
    let Ok(answer) = answer else { return };
    let now = answer.now;
    match &answer.value {
        Acquired::Held { lock, .. } => {
            assert!(lock.is_live(now), "refused because of a lock that has ended: {lock:?} at {now:?}");
            let is_own = lock.user_id == request.user_id
                && lock.kind == request.kind
                && rules.is_same_owner(lock.kind, lock.session_id.as_ref(), request.session_id.as_ref());
            assert!(
                !rules.yields(lock.kind, request.kind),
                "refused because of an agent: {request:?} by {lock:?}"
            );
            assert!(!is_own, "refused because of its own lock: {request:?} by {lock:?}");
        }
        Acquired::Acquired(lock) | Acquired::Renewed(lock) | Acquired::Reclaimed(lock) => {
            assert_eq!(lock.user_id, request.user_id, "a waiter gets its own lock");
            assert!(lock.is_live(now), "a lease that is granted has not ended: {lock:?} at {now:?}");
        }
        Acquired::TooMany => {}
        Acquired::TakenOver { lock, previous } => {
            assert!(rules.yields(previous.kind, lock.kind), "waiters do not take over: {answer:?}");
        }
        Acquired::FenceMismatch(_) | Acquired::TakeoverForbidden(_) => {
            panic!("waiters do not take over: {answer:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::cases(30, 150), ..ProptestConfig::default() })]

    #[test]
    fn no_waiter_is_refused_because_of_its_own_lock_or_one_that_has_ended(
        separate in any::<bool>(),
        (number, is_prompt) in (1_usize..=2, any::<bool>()),
        steps in prop::collection::vec((on(), step()), 1..60),
    ) {
        let rules = Rules {
            same_user: if separate { SameUser::Separate } else { SameUser::Share },
            min_ttl: Ttl::from_millis(1),
            claim_within: Ttl::from_millis(CLAIM),
            knock_grant_after: Some(Ttl::from_millis(GRANT)),
            knock_grant_at_latest: Some(Ttl::from_millis(2 * GRANT)),
            ..Config::default().rules()
        };
        let mut engines = Engines::new(rules, Servers { number, is_prompt });
        let end = [EngineStep::Rules(Step::Pass(1_000)), EngineStep::Rules(Step::Sweep), EngineStep::Leave];
        let end = end.map(|step| (0, step));
        for (on, step) in steps.iter().chain(end.iter().cycle().take(30)) {
            for answer in engines.take(*on, step) {
                assert!(answer.1.is_ok() && !matches!(&answer.1, Ok(found) if found.value == Acquired::TooMany));
                check(&answer, &engines.rules);
            }
        }
        prop_assert!(engines.waiting.is_empty(), "every waiter is answered");
        engines.settle(true);
    }
}
