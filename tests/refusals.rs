//! No waiter is refused because of their own lock or an ended lock: random histories of waits, knocks,
//! renewals and releases by several sessions of several users, with a timer at random times.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{NOON, eventually};
use lockhouse::app::waitlist::{self, WaitOutcome};
use lockhouse::app::{handoff, locks, sweep};
use lockhouse::config::Config;
use lockhouse::domain::access::{Privilege, Rules, SameUser};
use lockhouse::domain::handoff::KnockRequest;
use lockhouse::domain::token::Validity;
use lockhouse::domain::waitlist::WaitlistLimits;
use lockhouse::domain::{
    Acquire, Acquired, Activity, Authority, Claim, Heartbeat, Lock, Release, SessionId, UserId, WorkspaceId,
};
use lockhouse::error::Error;
use lockhouse::metrics::Metrics;
use lockhouse::store::queue::{Client, Waiter};
use lockhouse::store::{AsOf, Options, Store};
use lockhouse::time::{Clock, ManualClock, Timestamp, Ttl};
use proptest::prelude::*;

/// Durations in milliseconds, near to each other so that they meet.
const TTL: i64 = 300;
const CLAIM: i64 = 60;
const GRANT: i64 = 100;

/// A user and a session.
type Who = (usize, usize);

#[derive(Debug, Clone)]
enum Step {
    /// Acquires, and waits for this time (ms).
    Wait(Who, i64),
    Knock(Who),
    Beat(Who, bool),
    Release(Who),
    Pass(u64),
    /// Due changes are applied.
    Timer,
    /// The queue is searched for waiters whose time is over.
    Leavers,
}

fn who() -> impl Strategy<Value = Who> {
    (0_usize..3, 0_usize..2)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (who(), prop_oneof![Just(GRANT), 1_i64..400]).prop_map(|(who, wait)| Step::Wait(who, wait)),
        4 => who().prop_map(Step::Knock),
        2 => (who(), any::<bool>()).prop_map(|(who, active)| Step::Beat(who, active)),
        1 => who().prop_map(Step::Release),
        5 => prop_oneof![Just(50_u64), Just(100_u64), 0_u64..200].prop_map(Step::Pass),
        1 => Just(Step::Timer),
        3 => Just(Step::Leavers),
    ]
}

/// The answers to waiters, each with its request.
type Heard = Arc<Mutex<Vec<(Acquire, Result<AsOf<Acquired>, Error>)>>>;

struct Person {
    request: Acquire,
    heard: Heard,
}

impl Client for Person {
    fn is_gone(&self) -> bool {
        false
    }

    fn when_gone(&self, _: Box<dyn FnOnce() + Send>) {}

    fn answer(self: Box<Self>, answer: Result<AsOf<Acquired>, Error>) {
        self.heard.lock().unwrap().push((self.request, answer));
    }
}

struct Play {
    store: Store,
    clock: Arc<ManualClock>,
    rules: Arc<Rules>,
    heard: Heard,
    waited: usize,
    _directory: tempfile::TempDir,
}

fn workspace() -> WorkspaceId {
    WorkspaceId::parse("w").unwrap()
}

fn user((user, _): Who) -> UserId {
    UserId::parse(&format!("user-{user}")).unwrap()
}

fn session((_, session): Who) -> SessionId {
    SessionId::parse(&format!("tab-{session}")).unwrap()
}

fn claim(who: Who) -> Claim {
    Claim { workspace_id: workspace(), user_id: user(who), session_id: Some(session(who)), fence: None }
}

impl Play {
    fn new(same_user: SameUser) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            path: directory.path().join("lockhouse.db"),
            busy_timeout: Duration::from_secs(30),
            max_size: None,
            restart_grace: Duration::ZERO,
            readers: 1,
            waiters: WaitlistLimits { per_workspace: 100, per_user: 100, total: 100 },
        };
        let clock = ManualClock::starting_at(NOON);
        let store = Store::open(&options, Clock::Manual(Arc::clone(&clock)), &Arc::new(Metrics::default()));
        let rules = Rules {
            same_user,
            min_ttl: Ttl::from_millis(1),
            claim_within: Ttl::from_millis(CLAIM),
            knock_grant_after: Some(Ttl::from_millis(GRANT)),
            knock_grant_at_latest: Some(Ttl::from_millis(2 * GRANT)),
            ..Config::default().rules()
        };
        let heard = Heard::default();
        let (store, rules) = (store.unwrap(), Arc::new(rules));
        Self { store, clock, rules, heard, waited: 0, _directory: directory }
    }

    /// Checks a refusal at this time.
    fn refused(&self, request: &Acquire, lock: &Lock, now: Timestamp) {
        assert!(lock.is_live(now), "refused by a lock that has ended: {lock:?} at {now:?}");
        let is_theirs = lock.user_id == request.user_id
            && match self.rules.same_user {
                SameUser::Share => true,
                SameUser::Separate => lock.session_id == request.session_id,
            };
        assert!(!is_theirs, "refused by themselves: {request:?} by {lock:?}");
    }

    fn told(&self, request: &Acquire, AsOf { now, value }: &AsOf<Acquired>) {
        match value {
            Acquired::Held { lock, .. } => self.refused(request, lock, *now),
            Acquired::Acquired(lock) | Acquired::Renewed(lock) | Acquired::Reclaimed(lock) => {
                assert_eq!(lock.user_id, request.user_id, "one is told of one's own lock");
                assert!(lock.is_live(*now), "what one is given is there: {lock:?} at {now:?}");
            }
            Acquired::TakenOver { .. }
            | Acquired::FenceMismatch(_)
            | Acquired::TakeoverForbidden(_)
            | Acquired::TooMany => panic!("nobody takes over here: {value:?}"),
        }
    }

    fn take(&mut self, step: &Step) {
        let rules = Arc::clone(&self.rules);
        match *step {
            Step::Wait(who, wait) => {
                let request = Acquire {
                    session_id: Some(session(who)),
                    ttl: Some(Ttl::from_millis(TTL)),
                    ..Acquire::new(workspace(), user(who))
                };
                let person = Person { request: request.clone(), heard: Arc::clone(&self.heard) };
                let waiter = Waiter::new(
                    request.clone(),
                    Ttl::from_millis(wait),
                    Validity::Unlimited,
                    Box::new(person),
                );
                let came = self
                    .store
                    .write(move |set| waitlist::acquire(set, &waiter, Privilege::Ordinary, &rules))
                    .unwrap();
                match came.value {
                    WaitOutcome::Answered(value) => {
                        self.told(&request, &AsOf { now: came.now, value: *value });
                    }
                    WaitOutcome::Waiting => self.waited += 1,
                    WaitOutcome::LimitReached(_) => panic!("there is room"),
                }
            }
            Step::Knock(who) => {
                let ask = KnockRequest {
                    validity: Validity::Unlimited,
                    workspace_id: workspace(),
                    user_id: user(who),
                    name: None,
                    session_id: Some(session(who)),
                    message: None,
                };
                self.store.write(move |set| handoff::knock(set, &ask, &rules)).unwrap();
            }
            Step::Beat(who, active) => {
                let activity = if active { Activity::Active } else { Activity::Idle };
                let beat = Heartbeat { claim: claim(who), ttl: None, activity };
                self.store.write(move |set| locks::heartbeat(set, &beat, &rules)).unwrap();
            }
            Step::Release(who) => {
                let request = Release {
                    claim: claim(who),
                    user_name: None,
                    authority: Authority::Holder,
                    privilege: Privilege::Ordinary,
                    reason: None,
                };
                self.store.write(move |set| locks::release(set, &request, &rules)).unwrap();
            }
            Step::Pass(by) => self.clock.advance(Duration::from_millis(by)),
            Step::Timer => {
                self.store.write(move |set| sweep::sweep(set, &rules, 100)).unwrap();
            }
            Step::Leavers => self.leave(),
        }
        self.hear();
    }

    /// Checks the answers that have arrived. They carry their time, so it does not matter when they arrive.
    fn hear(&mut self) {
        for (request, answer) in std::mem::take(&mut *self.heard.lock().unwrap()) {
            self.waited -= 1;
            self.told(&request, answer.as_ref().unwrap());
        }
    }

    fn leave(&self) {
        let leaving = self.store.queue().workspaces_with_leavers(self.store.clock().now(), 10);
        let rules = Arc::clone(&self.rules);
        self.store.write(move |set| waitlist::remove_leavers(set, &leaving, &rules)).unwrap();
    }

    /// In the end every waiter has an answer.
    fn end(mut self) {
        for _ in 0..10 {
            self.take(&Step::Pass(1_000));
            self.take(&Step::Timer);
            self.take(&Step::Leavers);
        }
        eventually(|| {
            self.hear();
            self.waited == 0
        });
        self.store.close();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn waiters_are_never_refused_by_their_own_or_an_ended_lock(
        separate in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut play = Play::new(if separate { SameUser::Separate } else { SameUser::Share });
        for step in &steps {
            play.take(step);
        }
        play.end();
    }
}
