//! The rules, without SQL and HTTP: long random histories of acquire, heartbeat, release, force, time, restart and
//! sweep, against a model that is small enough to be seen to be right.
//!
//! The model keeps of each workspace who was the last to have a lease, until when, and whether it was given up: it
//! never deletes anything, so it has no notion of sweeping.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::HashMap;

use lockhouse::lock::decide::{self, Change, Decision};
use lockhouse::lock::event::Ending;
use lockhouse::lock::policy::{Rules, SameUser, Standing, Takeover};
use lockhouse::lock::{
    Acquire, Acquired, Activity, Authority, Beat, Claim, Fence, Force, Heartbeat, LastLease, Lock, Release,
    Released, SessionId, Stored, UserId, WorkspaceId,
};
use lockhouse::time::{Timestamp, Ttl};
use proptest::prelude::*;

const WORKSPACES: usize = 2;
const USERS: usize = 3;
const SESSIONS: usize = 2;
const MIN_TTL: i64 = 10;
const MAX_TTL: i64 = 100;
const RECLAIM_WITHIN: i64 = 150;

#[derive(Debug, Clone)]
enum Step {
    Acquire {
        by: Who,
        at: usize,
        ttl: Option<i64>,
        force: ForceStep,
        admin: bool,
    },
    Heartbeat {
        by: Who,
        at: usize,
        ttl: Option<i64>,
        fence: FenceStep,
        session: bool,
    },
    Release {
        by: Who,
        at: usize,
        fence: FenceStep,
        session: bool,
        admin: bool,
    },
    /// Time passes.
    Pass(i64),
    /// A server that was away for so long starts again, with this grace.
    Restart {
        away: i64,
        grace: i64,
    },
    Sweep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Who {
    user: usize,
    session: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum ForceStep {
    No,
    Anyone,
    /// The lease that was live so many leases ago.
    Seen(usize),
}

/// Which fence a message carries: none, or that of the lease so many leases ago on the workspace (late, repeated and
/// reordered messages are messages with an old fence).
#[derive(Debug, Clone, Copy)]
enum FenceStep {
    None,
    Ago(usize),
}

fn who() -> impl Strategy<Value = Who> {
    (0..USERS, prop::option::of(0..SESSIONS)).prop_map(|(user, session)| Who { user, session })
}

fn fence() -> impl Strategy<Value = FenceStep> {
    prop_oneof![2 => Just(FenceStep::None), 3 => Just(FenceStep::Ago(0)), 2 => (1_usize..4).prop_map(FenceStep::Ago)]
}

fn ttl() -> impl Strategy<Value = Option<i64>> {
    prop::option::of(prop_oneof![1_i64..150, Just(MIN_TTL), Just(MAX_TTL)])
}

fn force() -> impl Strategy<Value = ForceStep> {
    prop_oneof![
        5 => Just(ForceStep::No), 1 => Just(ForceStep::Anyone), 1 => (0_usize..3).prop_map(ForceStep::Seen)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..WORKSPACES;
    prop_oneof![
        6 => (who(), at.clone(), ttl(), force(), any::<bool>())
            .prop_map(|(by, at, ttl, force, admin)| Step::Acquire { by, at, ttl, force, admin }),
        5 => (who(), at.clone(), ttl(), fence(), any::<bool>())
            .prop_map(|(by, at, ttl, fence, session)| Step::Heartbeat { by, at, ttl, fence, session }),
        3 => (who(), at, fence(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(by, at, fence, session, admin)| Step::Release { by, at, fence, session, admin }),
        5 => prop_oneof![0_i64..5, 5_i64..60, Just(MIN_TTL), Just(MAX_TTL), 100_i64..400].prop_map(Step::Pass),
        1 => (0_i64..200, 0_i64..50).prop_map(|(away, grace)| Step::Restart { away, grace }),
        2 => Just(Step::Sweep),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let same_user = prop_oneof![Just(SameUser::Share), Just(SameUser::Separate)];
    let takeover =
        prop_oneof![3 => Just(Takeover::Anyone), 1 => Just(Takeover::Admins), 1 => Just(Takeover::Nobody)];
    (same_user, takeover).prop_map(|(same_user, takeover)| Rules {
        default_ttl: Ttl::from_millis(50),
        min_ttl: Ttl::from_millis(MIN_TTL),
        max_ttl: Ttl::from_millis(MAX_TTL),
        same_user,
        takeover,
        reclaim_within: Ttl::from_millis(RECLAIM_WITHIN),
        reclaim_from: Timestamp(i64::MIN),
    })
}

/// What the decisions run on: the store without SQL.
#[derive(Default)]
struct World {
    rows: HashMap<usize, Lock>,
    last: HashMap<usize, LastLease>,
    last_fence: i64,
}

impl World {
    fn stored(&self, at: usize) -> Stored {
        match self.rows.get(&at) {
            Some(lock) => Stored::Lock(lock.clone()),
            None => Stored::None { last: self.last.get(&at).cloned() },
        }
    }

    fn end(&mut self, at: usize, lock: &Lock, ending: Ending, ended_at: Timestamp) {
        let last = LastLease {
            user_id: lock.user_id.clone(),
            session_id: lock.session_id.clone(),
            fence: lock.fence,
            ending,
            ended_at,
        };
        self.last.insert(at, last);
    }

    fn apply<T>(&mut self, at: usize, decision: Decision<T>) -> T {
        if let Some(expired) = decision.expired {
            assert_eq!(self.rows.remove(&at).as_ref(), Some(&expired), "what expired was there");
            self.end(at, &expired, Ending::Expired, expired.expires_at);
        }
        match decision.change {
            Change::Nothing => {}
            Change::Grant(lock) | Change::TakeOver { lock, .. } => {
                assert!(lock.fence.0 > self.last_fence, "a new lease has a fence above every other");
                self.last_fence = lock.fence.0;
                self.rows.insert(at, lock);
            }
            Change::Reclaim(lock) | Change::Renew(lock) => {
                self.rows.insert(at, lock);
            }
            Change::End(lock, ending) => {
                assert_eq!(self.rows.remove(&at).as_ref(), Some(&lock), "what ended was there");
                self.end(at, &lock, ending, lock.expires_at);
            }
        }
        decision.outcome
    }
}

/// The last lease of a workspace, as an onlooker with a perfect memory sees it.
#[derive(Debug, Clone)]
struct Lease {
    user: usize,
    session: Option<usize>,
    fence: i64,
    ends: i64,
    given_up: bool,
    ttl: i64,
}

struct Model {
    rules: Rules,
    leases: HashMap<usize, Vec<Lease>>,
}

impl Model {
    fn live(&self, at: usize, now: i64) -> Option<&Lease> {
        self.leases.get(&at)?.last().filter(|lease| !lease.given_up && now < lease.ends)
    }

    fn last(&mut self, at: usize) -> &mut Lease {
        self.leases.get_mut(&at).unwrap().last_mut().unwrap()
    }

    fn ago(&self, at: usize, ago: usize) -> Option<i64> {
        self.leases.get(&at)?.iter().rev().nth(ago).map(|lease| lease.fence)
    }

    fn shares(&self) -> bool {
        self.rules.same_user == SameUser::Share
    }

    /// Whether a message from `by` is about the live lease.
    fn is_about(&self, lease: &Lease, by: Who, fence: Option<i64>) -> bool {
        lease.user == by.user
            && fence.is_none_or(|fence| fence == lease.fence)
            && (self.shares() || lease.session == by.session || (by.session.is_none() && fence.is_some()))
    }
}

fn user(number: usize) -> UserId {
    UserId::parse(&format!("user {number}")).unwrap()
}

fn session(number: Option<usize>) -> Option<SessionId> {
    number.map(|number| SessionId::parse(&format!("session {number}")).unwrap())
}

fn workspace(number: usize) -> WorkspaceId {
    WorkspaceId::parse(&format!("workspace {number}")).unwrap()
}

fn clamped(ttl: i64) -> i64 {
    ttl.clamp(MIN_TTL, MAX_TTL)
}

/// The whole play: each step in both worlds, compared.
struct Play {
    world: World,
    model: Model,
    now: i64,
    /// When the server started last.
    opened: i64,
    /// What the clients were told, in words.
    told: Vec<String>,
}

impl Play {
    fn new(rules: Rules) -> Self {
        Self {
            world: World::default(),
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
        match *step {
            Step::Acquire { by, at, ttl, force, admin } => self.acquire(by, at, ttl, force, admin),
            Step::Heartbeat { by, at, ttl, fence, session } => {
                let by = if session { by } else { Who { session: None, ..by } };
                self.heartbeat(by, at, ttl, self.fence(at, fence));
            }
            Step::Release { by, at, fence, session, admin } => {
                let by = if session { by } else { Who { session: None, ..by } };
                self.release(by, at, self.fence(at, fence), admin);
            }
            Step::Pass(by) => self.now += by,
            Step::Restart { away, grace } => self.restart(away, grace),
            Step::Sweep => {
                for at in 0..WORKSPACES {
                    let decision = decide::sweep(self.world.stored(at), Timestamp(self.now));
                    self.world.apply(at, decision);
                }
            }
        }
        for at in 0..WORKSPACES {
            let shown = self.world.rows.get(&at).filter(|lock| lock.is_live(Timestamp(self.now)));
            let expected = self.model.live(at, self.now);
            assert_eq!(
                shown.map(|lock| (
                    lock.user_id.clone(),
                    lock.session_id.clone(),
                    lock.fence.0,
                    lock.expires_at.0
                )),
                expected.map(|lease| (user(lease.user), session(lease.session), lease.fence, lease.ends)),
            );
        }
    }

    /// The store writes down when it stopped, and prolongs what was alive then.
    fn restart(&mut self, away: i64, grace: i64) {
        // The time is written down with each write; what ended before the end has ended for good.
        let last_seen = self.now;
        self.now += away;
        self.opened = self.now;
        self.model.rules.reclaim_from = Timestamp(self.now);
        let until = self.now + grace;
        for lock in self.world.rows.values_mut() {
            if lock.expires_at.0 > last_seen && lock.expires_at.0 < until {
                lock.expires_at = Timestamp(until);
            }
        }
        for lease in self.model.leases.values_mut().filter_map(|leases| leases.last_mut()) {
            if !lease.given_up && lease.ends > last_seen {
                lease.ends = lease.ends.max(until);
            }
        }
    }

    fn acquire(&mut self, by: Who, at: usize, ttl: Option<i64>, force: ForceStep, admin: bool) {
        let force = match force {
            ForceStep::No => Force::No,
            ForceStep::Anyone => Force::Anyone,
            ForceStep::Seen(ago) => {
                self.model.ago(at, ago).map_or(Force::Anyone, |fence| Force::Seen(Fence(fence)))
            }
        };
        let standing = if admin { Standing::Administrator } else { Standing::Ordinary };
        let request = Acquire {
            workspace_id: workspace(at),
            user_id: user(by.user),
            user_name: None,
            session_id: session(by.session),
            standing,
            ttl: ttl.map(Ttl::from_millis),
            force,
            note: None,
            metadata: None,
        };
        // The wall clock may stand still: the fence grows all the same.
        let fresh = Fence(self.world.last_fence + 1);
        let decision =
            decide::acquire(self.world.stored(at), &request, &self.model.rules, Timestamp(self.now), fresh);
        let outcome = self.world.apply(at, decision);
        self.told.push(format!("{outcome:?}"));

        let ttl = clamped(ttl.unwrap_or(50));
        let ends = self.now + ttl;
        let may = self.model.rules.takeover.allows(standing);
        let new = Lease { user: by.user, session: by.session, fence: fresh.0, ends, given_up: false, ttl };
        let granted = |lock: &Lock| (lock.fence.0, lock.expires_at.0);
        let before = self.model.leases.get(&at).and_then(|leases| leases.last()).cloned();
        match self.model.live(at, self.now).cloned() {
            None => {
                let own = before
                    .filter(|last| !last.given_up && last.user == by.user && last.session == by.session)
                    .filter(|last| last.ends >= self.opened && self.now <= last.ends + RECLAIM_WITHIN);
                if let Some(own) = own {
                    let Acquired::Reclaimed(lock) = &outcome else { panic!("{outcome:?}") };
                    assert_eq!(granted(lock), (own.fence, ends));
                    *self.model.last(at) = Lease { ends, ttl, ..own };
                } else {
                    let Acquired::Acquired(lock) = &outcome else { panic!("{outcome:?}") };
                    assert_eq!(granted(lock), (fresh.0, ends));
                    self.model.leases.entry(at).or_default().push(new);
                }
            }
            Some(lease) if lease.user == by.user && (self.model.shares() || lease.session == by.session) => {
                let Acquired::Renewed(lock) = &outcome else { panic!("{outcome:?}") };
                assert_eq!(granted(lock), (lease.fence, ends));
                let session = by.session.or(lease.session);
                *self.model.last(at) = Lease { session, ends, ttl, ..lease };
            }
            Some(lease) => match (force, may) {
                (Force::No, _) => {
                    let Acquired::Held { lock, same_user, takeover_allowed } = &outcome else {
                        panic!("{outcome:?}")
                    };
                    assert_eq!(granted(lock), (lease.fence, lease.ends));
                    assert_eq!((*same_user, *takeover_allowed), (lease.user == by.user, may));
                }
                (_, false) => assert!(matches!(outcome, Acquired::TakeoverForbidden(_)), "{outcome:?}"),
                (Force::Seen(Fence(seen)), true) if seen != lease.fence => {
                    assert!(matches!(outcome, Acquired::FenceMismatch(_)), "{outcome:?}");
                }
                (_, true) => {
                    let Acquired::TakenOver { lock, previous } = &outcome else { panic!("{outcome:?}") };
                    assert_eq!(granted(lock), (fresh.0, ends));
                    assert_eq!(granted(previous), (lease.fence, lease.ends));
                    self.model.leases.entry(at).or_default().push(new);
                }
            },
        }
    }

    fn claim(by: Who, at: usize, fence: Option<i64>) -> Claim {
        Claim {
            workspace_id: workspace(at),
            user_id: user(by.user),
            session_id: session(by.session),
            fence: fence.map(Fence),
        }
    }

    fn heartbeat(&mut self, by: Who, at: usize, ttl: Option<i64>, fence: Option<i64>) {
        let request = Heartbeat {
            claim: Self::claim(by, at, fence),
            ttl: ttl.map(Ttl::from_millis),
            activity: Activity::Active,
        };
        let decision =
            decide::heartbeat(self.world.stored(at), &request, &self.model.rules, Timestamp(self.now));
        let outcome = self.world.apply(at, decision);
        self.told.push(format!("{outcome:?}"));
        match self.model.live(at, self.now).cloned() {
            None => assert_eq!(outcome, Beat::NoLock, "a heartbeat revives nothing"),
            Some(lease) if self.model.is_about(&lease, by, fence) => {
                let ttl = clamped(ttl.unwrap_or(lease.ttl));
                let Beat::Renewed(lock) = &outcome else { panic!("{outcome:?}") };
                assert_eq!((lock.fence.0, lock.expires_at.0), (lease.fence, self.now + ttl));
                *self.model.last(at) = Lease { ends: self.now + ttl, ttl, ..lease };
            }
            Some(lease) => {
                let Beat::NotHolder { lock, same_user } = &outcome else { panic!("{outcome:?}") };
                assert_eq!(
                    (lock.fence.0, lock.expires_at.0),
                    (lease.fence, lease.ends),
                    "nothing is lengthened"
                );
                assert_eq!(*same_user, lease.user == by.user);
            }
        }
    }

    fn release(&mut self, by: Who, at: usize, fence: Option<i64>, admin: bool) {
        let authority = if admin { Authority::Administrator } else { Authority::Holder };
        let request = Release { claim: Self::claim(by, at, fence), user_name: None, authority };
        let decision =
            decide::release(self.world.stored(at), &request, &self.model.rules, Timestamp(self.now));
        let change = decision.change.clone();
        let outcome = self.world.apply(at, decision);
        self.told.push(format!("{outcome:?}"));
        match self.model.live(at, self.now).cloned() {
            None => assert_eq!(outcome, Released::Nothing),
            Some(lease) => {
                let own = self.model.is_about(&lease, by, fence);
                if own || (admin && fence.is_none_or(|fence| fence == lease.fence)) {
                    assert!(matches!(outcome, Released::Released(_)), "{outcome:?}");
                    let Change::End(_, ending) = change else { panic!("{change:?}") };
                    assert_eq!(ending == Ending::Released, own);
                    self.model.last(at).given_up = true;
                } else {
                    assert!(matches!(outcome, Released::NotHolder { .. }), "{outcome:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_rules(rules in rules(), steps in prop::collection::vec(step(), 1..120)) {
        let mut play = Play::new(rules);
        for step in &steps {
            play.take(step);
        }
    }

    /// The same history, once with a sweeper that never comes and once with one that comes after every step: what
    /// the clients are told is the same, word for word.
    #[test]
    fn the_sweeper_changes_nothing_that_a_client_can_see(
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
                let shown = |play: &Play| {
                    play.world.rows.get(&at).filter(|lock| lock.is_live(Timestamp(play.now))).cloned()
                };
                prop_assert_eq!(shown(&never), shown(&always));
            }
            prop_assert_eq!(&never.told, &always.told);
        }
    }
}
