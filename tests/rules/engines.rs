//! Two engines: the same histories on SQLite and on an engine in memory that loads in batches, misses, and runs use cases
//! twice. The outcomes are the same, also for waiters and after restarts.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use lockhouse::app::terraform::{self, Unlock};
use lockhouse::app::waitlist::{self, WaitOutcome};
use lockhouse::app::{current, handoff, invariants, locks, members, sweep};
use lockhouse::domain::access::{Membership, Privilege, Rules};
use lockhouse::domain::event::Author;
use lockhouse::domain::grace::{RestartGrace, Run};
use lockhouse::domain::handoff::{KnockReply, KnockRequest};
use lockhouse::domain::member::{Member, Role};
use lockhouse::domain::token::Validity;
use lockhouse::domain::waitlist::WaitlistLimits;
use lockhouse::domain::{Acquire, Activity, Authority, Fence, Force, Heartbeat, Lock, LockKind, Release};
use lockhouse::error::Error;
use lockhouse::metrics::Metrics;
use lockhouse::store::commit_notifier::CommitNotifier;
use lockhouse::store::listing::LockQuery;
use lockhouse::store::queue::{Queue, Waiter};
use lockhouse::store::writer::Writer;
use lockhouse::store::{AsOf, Keys, Options, Rows, Store, WorkingSet};
use lockhouse::time::{Clock, LeaseClock, ManualClock, Timestamp, Ttl, WallTime};
use proptest::prelude::*;

use crate::memory::{Memory, Tables};
use crate::refusals;
use crate::steps::{FenceStep, ForceStep, Step, WORKSPACES, Who, kind, limited_to, rules, step, ttl, who};
use crate::waiters::{Answers, WaiterAnswer, WaitingClient};
use crate::{session, user, workspace};

const LIMITS: WaitlistLimits = WaitlistLimits { per_workspace: 9, per_user: 9, total: 9 };
const NOON: WallTime = WallTime(1_795_435_200_000);

/// A step on both engines.
#[derive(Debug, Clone)]
pub enum EngineStep {
    Rules(Step),
    /// Acquires, and waits for up to `wait`.
    Wait {
        kind: LockKind,
        by: Who,
        at: usize,
        ttl: Option<i64>,
        wait: i64,
    },
    /// The waiters whose wait is over are answered.
    Leave,
    /// Unlocks a state of Terraform. Without a session, it names no lock id.
    Unlock {
        by: Who,
        at: usize,
    },
}

fn engine_step() -> impl Strategy<Value = EngineStep> {
    prop_oneof![
        8 => step().prop_map(EngineStep::Rules),
        3 => (kind(), who(), 0..WORKSPACES, ttl(), 1_i64..200)
            .prop_map(|(kind, by, at, ttl, wait)| EngineStep::Wait { kind, by, at, ttl, wait }),
        1 => Just(EngineStep::Leave),
        2 => (who(), 0..WORKSPACES).prop_map(|(by, at)| EngineStep::Unlock { by, at }),
    ]
}

/// Both engines, and a clock for each, which are moved together.
pub struct Both {
    directory: tempfile::TempDir,
    sqlite: Option<Store>,
    memory: Writer,
    memory_queue: Arc<Queue>,
    answers: [Arc<Answers>; 2],
    /// The number of waiters of each engine that were not answered.
    pub waiting: usize,
    tables: Arc<Mutex<Tables>>,
    misses: Arc<AtomicUsize>,
    clocks: [Arc<ManualClock>; 2],
    lease_clock: Arc<LeaseClock>,
    pub rules: Arc<Rules>,
    /// Of each workspace, the fences that were seen.
    fences: [Vec<Fence>; WORKSPACES],
}

fn open(directory: &tempfile::TempDir, clock: &Arc<ManualClock>, grace: i64) -> Store {
    let options = Options {
        url: None,
        path: directory.path().join("lockhouse.db"),
        busy_timeout: Duration::from_secs(5),
        max_size: None,
        restart_grace: Duration::from_millis(grace.unsigned_abs()),
        readers: 1,
        waiters: LIMITS,
    };
    Store::open(&options, Clock::Manual(Arc::clone(clock)), &Arc::new(Metrics::default())).unwrap()
}

impl Both {
    pub fn new(rules: Rules) -> Self {
        let clocks = [ManualClock::starting_at(NOON), ManualClock::starting_at(NOON)];
        let lease_clock = LeaseClock::resume(Clock::Manual(Arc::clone(&clocks[1])), Timestamp(NOON.0), 0);
        let lease_clock = Arc::new(lease_clock);
        let directory = tempfile::tempdir().unwrap();
        let sqlite = Some(open(&directory, &clocks[0], 0));
        let tables = Arc::new(Mutex::new(Tables::new(Timestamp(NOON.0))));
        let misses = Arc::default();
        let (memory, memory_queue) = start(&tables, &lease_clock, &misses);
        let fences = [Vec::new(), Vec::new()];
        let rules = Arc::new(rules);
        Self {
            directory,
            sqlite,
            memory,
            memory_queue,
            answers: Default::default(),
            waiting: 0,
            tables,
            misses,
            clocks,
            lease_clock,
            rules,
            fences,
        }
    }

    /// Runs the use case on both engines. Returns the outcome, which must be the same.
    pub fn run(
        &self,
        keys: &Keys,
        work: impl Fn(&WorkingSet<'_>) -> Result<String, Error> + Send + Sync + 'static,
    ) -> String {
        self.run_each(keys, move |_, set| work(set)).value
    }

    /// Like [`Self::run`], for work that knows on which engine it runs: 0 is SQLite, 1 is the one in memory.
    fn run_each<T: Debug + PartialEq + Send + 'static>(
        &self,
        keys: &Keys,
        work: impl Fn(usize, &WorkingSet<'_>) -> Result<T, Error> + Send + Sync + 'static,
    ) -> AsOf<T> {
        let work = Arc::new(work);
        let (sender, receiver) = mpsc::channel();
        for engine in [0, 1] {
            let (work, sender) = (Arc::clone(&work), sender.clone());
            let work = move |set: &WorkingSet<'_>| work(engine, set);
            let reply = move |answer| sender.send((engine, answer)).unwrap();
            if engine == 1 {
                self.memory.submit(keys.clone(), work, reply);
            } else {
                self.sqlite.as_ref().unwrap().submit(keys.clone(), work, reply);
            }
        }
        let mut told: Vec<_> = receiver.into_iter().take(2).collect();
        told.sort_by_key(|(engine, _)| *engine);
        assert_eq!(told[0].1, told[1].1, "SQLite, and in memory");
        told.swap_remove(0).1.unwrap()
    }

    fn queues(&self) -> [&Arc<Queue>; 2] {
        [self.sqlite.as_ref().unwrap().queue(), &self.memory_queue]
    }

    /// Takes the step. Returns the answers to waiters: those of earlier steps, and to the caller of this one.
    pub fn take(&mut self, step: &EngineStep) -> Vec<WaiterAnswer> {
        let before: Vec<_> = (0..WORKSPACES).map(|at| self.live(at)).collect();
        let mut answers = Vec::new();
        match step {
            EngineStep::Rules(step) => self.take_rules(step),
            EngineStep::Wait { kind, by, at, ttl, wait } => {
                answers.extend(self.wait(*kind, *by, *at, *ttl, *wait));
            }
            EngineStep::Leave => self.leave(),
            EngineStep::Unlock { by, at } => self.unlock(*by, *at),
        }
        // What is there then. It is seen as a use case sees it, and nothing of that is kept.
        for at in 0..WORKSPACES {
            self.look(at);
        }
        for (at, before) in before.iter().enumerate() {
            self.people_go_first(at, before.as_ref(), step);
        }
        let [left, left_in_memory] = self.queues().map(|queue| queue.len());
        assert_eq!(left, left_in_memory, "waiters of SQLite, and in memory");
        let answered = self.waiting - left;
        let [sqlite, memory] = self.answers.each_ref().map(|answers| answers.take(answered));
        assert_eq!(sqlite, memory, "answers to the waiters of SQLite, and in memory");
        self.waiting = left;
        answers.extend(sqlite);
        answers
    }

    fn wait(
        &mut self,
        kind: LockKind,
        by: Who,
        at: usize,
        ttl: Option<i64>,
        wait: i64,
    ) -> Option<WaiterAnswer> {
        let request = Acquire {
            kind,
            session_id: session(by.session),
            ttl: ttl.map(Ttl::from_millis),
            ..Acquire::new(workspace(at), user(by.user))
        };
        let waiters = self.answers.each_ref().map(|answers| {
            let client = WaitingClient { request: request.clone(), answers: Arc::clone(answers) };
            Waiter::new(request.clone(), Ttl::from_millis(wait), Validity::Unlimited, Box::new(client))
        });
        let rules = Arc::clone(&self.rules);
        let keys = Keys::workspace(&workspace(at)).and_user(&user(by.user));
        let AsOf { now, value } = self.run_each(&keys, move |engine, set| {
            waitlist::acquire(set, &waiters[engine], Privilege::Ordinary, &rules)
        });
        match value {
            WaitOutcome::Answered(value) => Some((request, Ok(AsOf { now, value: *value }))),
            WaitOutcome::Waiting => {
                self.waiting += 1;
                None
            }
            WaitOutcome::LimitReached(_) => None,
        }
    }

    fn unlock(&mut self, by: Who, at: usize) {
        let request = Unlock {
            workspace_id: workspace(at),
            user_id: user(by.user),
            user_name: None,
            id: session(by.session).map(|session| session.as_str().to_owned()),
        };
        let rules = Arc::clone(&self.rules);
        self.run(&Keys::workspace(&workspace(at)), move |set| {
            Ok(format!("{:?}", terraform::unlock(set, &request, Privilege::Ordinary, &rules)?))
        });
    }

    /// The live lock, after due changes.
    fn live(&self, at: usize) -> Option<Lock> {
        let read = |rows: &dyn Rows| Ok(rows.lock(&workspace(at))?.filter(|lock| rows.now() < lock.due_at()));
        self.sqlite.as_ref().unwrap().read(read).unwrap().value
    }

    /// Agents stand behind all others in the line, and no person stands in line for what an agent has. No agent gets the
    /// lock of another before its end, unless its holder gives it away.
    fn people_go_first(&self, at: usize, before: Option<&Lock>, step: &EngineStep) {
        let lock = self.live(at);
        if let (Some(before), Some(lock)) = (before, &lock)
            && lock.kind.is_agent()
            && !before.kind.is_agent()
        {
            let is_given = matches!(
                step,
                EngineStep::Rules(Step::HandOver { .. } | Step::Release { .. }) | EngineStep::Unlock { .. }
            );
            // In one step the lock may pass to a person by a knock, and that lease may end unclaimed.
            let unclaimed = before.knocks.grant_at.is_some_and(|at| {
                !before.knocks.pending[0].kind.is_agent()
                    && at.plus(self.rules.claim_within) <= lock.acquired_at
            });
            let has_ended = before.expires_at <= lock.acquired_at;
            assert!(is_given || has_ended || unclaimed, "{before:?} and then {lock:?}");
        }
        for queue in self.queues() {
            let kinds: Vec<_> =
                queue.waiters(&workspace(at)).iter().map(|place| place.waiter.request.kind).collect();
            assert!(kinds.is_sorted_by_key(|kind| kind.is_agent()), "{kinds:?}");
            if let Some(lock) = &lock {
                assert!(
                    !kinds.iter().any(|kind| self.rules.yields(lock.kind, *kind)),
                    "{lock:?} and {kinds:?}"
                );
            }
        }
    }

    fn leave(&self) {
        let now = self.lease_clock.now();
        let leaving = self.queues().map(|queue| queue.workspaces_with_leavers(now, 10));
        assert_eq!(leaving[0], leaving[1], "SQLite, and in memory");
        let rules = Arc::clone(&self.rules);
        self.run_each(&Keys::default(), move |engine, set| {
            waitlist::remove_leavers(set, &leaving[engine], &rules)
        });
    }

    fn fence(&self, at: usize, fence: FenceStep) -> Option<Fence> {
        match fence {
            FenceStep::None => None,
            FenceStep::Ago(ago) => self.fences[at].iter().rev().nth(ago).copied(),
        }
    }

    fn take_rules(&mut self, step: &Step) {
        let rules = Arc::clone(&self.rules);
        let claim = |both: &Self, is_agent, by: Who, at: usize, fence| lockhouse::domain::Claim {
            is_agent,
            workspace_id: workspace(at),
            user_id: user(by.user),
            session_id: session(by.session),
            fence: both.fence(at, fence),
        };
        let keys = |at: usize| Keys::workspace(&workspace(at));
        match *step {
            Step::Acquire { kind, by, at, ttl, force, admin } => {
                let force = match force {
                    ForceStep::No => Force::No,
                    ForceStep::Anyone => Force::AnyHolder,
                    ForceStep::Seen(ago) => {
                        self.fence(at, FenceStep::Ago(ago)).map_or(Force::AnyHolder, Force::OnlyFence)
                    }
                };
                let request = Acquire {
                    kind,
                    session_id: session(by.session),
                    privilege: if admin { Privilege::Administrator } else { Privilege::Ordinary },
                    ttl: ttl.map(Ttl::from_millis),
                    force,
                    ..Acquire::new(workspace(at), user(by.user))
                };
                self.run(&keys(at).and_user(&user(by.user)), move |set| {
                    Ok(format!("{:?}", locks::acquire(set, &request, &rules)?))
                });
            }
            Step::Heartbeat { agent, by, at, ttl, fence, session, active } => {
                let by = if session { by } else { Who { session: None, ..by } };
                let activity = if active { Activity::Active } else { Activity::Idle };
                let claim = claim(self, agent, by, at, fence);
                let request = Heartbeat { claim, ttl: ttl.map(Ttl::from_millis), activity };
                self.run(&keys(at), move |set| Ok(format!("{:?}", locks::heartbeat(set, &request, &rules)?)));
            }
            Step::Release { agent, by, at, fence, session, admin } => {
                let by = if session { by } else { Who { session: None, ..by } };
                let (authority, privilege) = if admin {
                    (Authority::Administrator, Privilege::Administrator)
                } else {
                    (Authority::Holder, Privilege::Ordinary)
                };
                let claim = claim(self, agent, by, at, fence);
                let request = Release { claim, user_name: None, authority, privilege, reason: None };
                self.run(&keys(at), move |set| Ok(format!("{:?}", locks::release(set, &request, &rules)?)));
            }
            Step::Knock { kind, by, at } => {
                let request = KnockRequest {
                    kind,
                    validity: Validity::Unlimited,
                    workspace_id: workspace(at),
                    user_id: user(by.user),
                    name: None,
                    for_name: None,
                    session_id: session(by.session),
                    message: Some("please".to_owned()),
                };
                self.run(&keys(at), move |set| Ok(format!("{:?}", handoff::knock(set, &request, &rules)?)));
            }
            Step::HandOver { agent, by, at, fence, to } => {
                let request = KnockReply { claim: claim(self, agent, by, at, fence), user_id: to.map(user) };
                let by = Author::new(user(by.user), None);
                self.run(&keys(at), move |set| {
                    Ok(format!("{:?}", handoff::hand_over(set, &request, &by, &rules)?))
                });
            }
            Step::Decline { agent, by, at, fence, whose } => {
                let request =
                    KnockReply { claim: claim(self, agent, by, at, fence), user_id: whose.map(user) };
                let by = Author::new(user(by.user), None);
                self.run(&keys(at), move |set| {
                    Ok(format!("{:?}", handoff::decline(set, &request, &by, &rules)?))
                });
            }
            Step::Pass(by) => self.pass(by),
            Step::Restart { away, grace } => self.restart(away, grace),
            Step::Sweep => {
                self.run(&Keys::default(), move |set| Ok(format!("{:?}", sweep::sweep(set, &rules, 10)?)));
            }
        }
    }

    fn look(&mut self, at: usize) {
        let rules = Arc::clone(&self.rules);
        let seen = Arc::new(Mutex::new(None));
        let found = Arc::clone(&seen);
        self.run(&Keys::default(), move |set| {
            let lock = current::load_current(set, &workspace(at), &rules)?;
            *found.lock().unwrap() = lock.as_ref().map(|lock| lock.fence);
            let listing = LockQuery { limit: 2, ..LockQuery::default() };
            let listed = (set.list_locks(&listing)?.locks, set.workspaces(None, "", 2)?);
            let all = set.events_after(0, u32::MAX)?;
            Ok(format!("{lock:?} {listed:?} {:?} {}", all.last(), all.len()))
        });
        let seen = *seen.lock().unwrap();
        if let Some(fence) = seen.filter(|fence| self.fences[at].last() != Some(fence)) {
            self.fences[at].push(fence);
        }
    }

    pub fn pass(&self, milliseconds: i64) {
        for clock in &self.clocks {
            clock.advance(Duration::from_millis(milliseconds.unsigned_abs()));
        }
    }

    pub fn stop(&self) {
        self.memory.stop();
        self.sqlite.as_ref().unwrap().close();
    }

    fn restart(&mut self, away: i64, grace: i64) {
        self.sqlite.take().unwrap().close();
        self.memory.stop();
        self.pass(away);
        self.sqlite = Some(open(&self.directory, &self.clocks[0], grace));
        let mut tables = self.tables.lock().unwrap();
        let now = self.lease_clock.now();
        let run = Run(tables.grace.run().0 + 1);
        let recorded = tables.grace.restarts().to_vec();
        tables.grace = RestartGrace::at_start(recorded, run, tables.last_seen, now, Ttl::from_millis(grace));
        tables.meta.opened_at = now;
        drop(tables);
        (self.memory, self.memory_queue) = start(&self.tables, &self.lease_clock, &self.misses);
        // The connections of the waiters have ended with the server.
        self.waiting = 0;
    }
}

fn start(
    tables: &Arc<Mutex<Tables>>,
    clock: &Arc<LeaseClock>,
    misses: &Arc<AtomicUsize>,
) -> (Writer, Arc<Queue>) {
    let memory = Memory {
        tables: Arc::clone(tables),
        clock: Arc::clone(clock),
        misses: Arc::clone(misses),
        batches: 0,
    };
    let (notifier, queue) = (Arc::new(CommitNotifier::default()), Arc::new(Queue::new(LIMITS)));
    let metrics = Arc::new(Metrics::default());
    let writer =
        Writer::start(Box::new(memory), clock.clock().clone(), metrics, notifier, Arc::clone(&queue));
    (writer.unwrap(), queue)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::cases(24), ..ProptestConfig::default() })]

    #[test]
    fn both_engines_give_the_same_outcomes(
        rules in rules(),
        few in any::<bool>(),
        enforced in any::<bool>(),
        roles in prop::collection::vec(0_usize..4, 3),
        steps in prop::collection::vec(engine_step(), 1..50),
    ) {
        let membership = if enforced { Membership::Enforced } else { Membership::Open };
        let kinds = limited_to(if few { 1 } else { 1_000 });
        let mut both = Both::new(Rules { membership, kinds, ..rules });
        for at in 0..WORKSPACES {
            for (number, role) in roles.iter().enumerate() {
                let Some(role) = Role::ALL.get(*role).copied() else { continue };
                let (member, rules) = (Member { user_id: user(number), role }, Arc::clone(&both.rules));
                both.run(&Keys::default(), move |set| {
                    set.put_workspace(&workspace(at), None, false, NOON)?;
                    Ok(format!("{:?}", members::put_member(set, &workspace(at), &member, None, &rules)?))
                });
            }
        }
        for step in &steps {
            for answer in both.take(step) {
                refusals::check(&answer, &both.rules);
            }
        }
        let rules = Arc::clone(&both.rules);
        both.run(&Keys::workspace(&workspace(0)), move |set| {
            Ok(format!("{:?}", members::remove_member(set, &workspace(0), &user(0), None, &rules)?))
        });
        let (sqlite, rules) = (both.sqlite.as_ref().unwrap(), Arc::clone(&both.rules));
        invariants::check(sqlite, None, &rules, 9, || false, |found| {
            assert_eq!(found.kind.as_str(), "expired_lock", "{found:?}");
        }).unwrap();
        prop_assert!(both.misses.load(Ordering::SeqCst) > 0, "use cases ran twice");
        both.stop();
    }
}
