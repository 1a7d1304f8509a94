//! The queue of waiters on a real file: random histories compared with a list, with failing transactions in between.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{NOON, eventually};
use lockhouse::app::waitlist::{self, WaitOutcome};
use lockhouse::app::{current, locks};
use lockhouse::config::Config;
use lockhouse::domain::access::{Privilege, Rules, Takeover};
use lockhouse::domain::token::Validity;
use lockhouse::domain::waitlist::WaitlistLimits;
use lockhouse::domain::{Acquire, Acquired, Authority, Claim, Force, Release, UserId, WorkspaceId};
use lockhouse::error::{Error, Limit};
use lockhouse::metrics::Metrics;
use lockhouse::store::queue::{Client, Waiter};
use lockhouse::store::{AsOf, Options, Store};
use lockhouse::time::{Clock, ManualClock, Timestamp, Ttl};
use proptest::prelude::*;

const MOST: usize = 4;
const TTL: i64 = 100;
const CLAIM: i64 = 20;

#[derive(Debug, Clone)]
enum Step {
    /// A new user asks, and waits for this time (ms).
    Ask(i64),
    /// The waiter at this place disconnects.
    Go(usize),
    /// The holder releases the lock.
    Release,
    /// The same, in a transaction that fails afterwards.
    ReleaseInVain,
    /// The holder renews it.
    Renew,
    /// A new user takes over.
    Force,
    Pass(u64),
    /// The queue is searched for disconnected and late waiters.
    LookAround,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![Just(0_i64), 1_i64..60, 60_i64..500].prop_map(Step::Ask),
        2 => (0_usize..MOST).prop_map(Step::Go),
        3 => Just(Step::Release),
        1 => Just(Step::ReleaseInVain),
        2 => Just(Step::Renew),
        1 => Just(Step::Force),
        3 => prop_oneof![0_u64..30, Just(20_u64), Just(100_u64)].prop_map(Step::Pass),
        2 => Just(Step::LookAround),
    ]
}

/// The answer to a waiter: whether they have the lock.
type Told = Arc<Mutex<Option<bool>>>;

struct Person {
    gone: Arc<AtomicBool>,
    told: Told,
}

impl Client for Person {
    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    fn when_gone(&self, _: Box<dyn FnOnce() + Send>) {}

    fn answer(self: Box<Self>, answer: Result<AsOf<Acquired>, Error>) {
        let has_it = matches!(answer, Ok(AsOf { value: Acquired::Acquired(_), .. }));
        assert!(self.told.lock().unwrap().replace(has_it).is_none(), "nobody is told twice");
    }
}

/// A waiter in the model.
struct Waits {
    user: String,
    until: i64,
    gone: Arc<AtomicBool>,
    told: Told,
}

impl Waits {
    /// Waits for the answer, which another thread than that of the writes may send: whether they have the lock.
    fn answer(&self) -> bool {
        eventually(|| self.told.lock().unwrap().is_some());
        self.told.lock().unwrap().unwrap()
    }
}

struct Play {
    store: Store,
    clock: Arc<ManualClock>,
    rules: Arc<Rules>,
    line: Vec<Waits>,
    /// The holder, and the end of the lease.
    holder: Option<(String, i64)>,
    count: usize,
    _directory: tempfile::TempDir,
}

fn workspace() -> WorkspaceId {
    WorkspaceId::parse("w").unwrap()
}

fn wants(user: &str, force: Force) -> Acquire {
    Acquire {
        force,
        ttl: Some(Ttl::from_millis(TTL)),
        privilege: Privilege::Ordinary,
        ..Acquire::new(workspace(), UserId::parse(user).unwrap())
    }
}

impl Play {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            url: common::postgres::new_database_if_asked(),
            path: directory.path().join("lockhouse.db"),
            busy_timeout: Duration::from_secs(30),
            max_size: None,
            restart_grace: Duration::ZERO,
            readers: 1,
            waiters: WaitlistLimits { per_workspace: MOST, per_user: MOST, total: 100 },
        };
        let clock = ManualClock::starting_at(NOON);
        let store = Store::open(&options, Clock::Manual(Arc::clone(&clock)), &Arc::new(Metrics::default()));
        let rules = Rules {
            min_ttl: Ttl::from_millis(1),
            claim_within: Ttl::from_millis(CLAIM),
            takeover: Takeover::Anyone,
            ..Config::default().rules()
        };
        Self {
            store: store.unwrap(),
            clock,
            rules: Arc::new(rules),
            line: Vec::new(),
            holder: None,
            count: 0,
            _directory: directory,
        }
    }

    fn now(&self) -> i64 {
        let Timestamp(now) = self.store.clock().now();
        now
    }

    fn somebody(&mut self) -> String {
        self.count += 1;
        format!("user-{}", self.count)
    }

    /// Applies the ends of leases: each lock goes to the next connected waiter.
    fn time_passed(&mut self, now: i64) {
        while let Some((_, until)) = self.holder.take_if(|(_, until)| *until <= now) {
            self.next(until, now);
        }
    }

    /// Grants to the first waiter in time, else to the first who is still connected.
    fn next(&mut self, freed_at: i64, now: i64) {
        let there = |waits: &Waits| !waits.gone.load(Ordering::SeqCst);
        let in_time = self.line.iter().position(|waits| freed_at < waits.until && there(waits));
        if let Some(place) = in_time.or_else(|| self.line.iter().position(there)) {
            let next = self.line.remove(place);
            assert!(next.answer(), "{} is next", next.user);
            self.holder = Some((next.user, now + CLAIM));
        }
    }

    fn ask(&mut self, wait: i64) {
        let (now, user) = (self.now(), self.somebody());
        let (gone, told) = (Arc::new(AtomicBool::new(false)), Told::default());
        let person = Person { gone: Arc::clone(&gone), told: Arc::clone(&told) };
        let waiter = Waiter::new(
            wants(&user, Force::No),
            Ttl::from_millis(wait),
            Validity::Unlimited,
            Box::new(person),
        );
        let rules = Arc::clone(&self.rules);
        let came = self
            .store
            .write(move |set| waitlist::acquire(set, &waiter, Privilege::Ordinary, &rules))
            .unwrap()
            .value;
        self.time_passed(now);
        if self.holder.is_none() {
            assert!(
                matches!(&came, WaitOutcome::Answered(outcome) if matches!(**outcome, Acquired::Acquired(_))),
                "{came:?}"
            );
            self.holder = Some((user, now + TTL));
            return;
        }
        // Waiters who cannot get the lock any more leave.
        self.leave(now);
        if self.line.len() < MOST {
            assert_eq!(came, WaitOutcome::Waiting);
            self.line.push(Waits { user, until: now + wait, gone, told });
        } else {
            assert_eq!(came, WaitOutcome::LimitReached(Limit::WaitersPerWorkspace));
        }
    }

    fn leave(&mut self, now: i64) {
        self.line.retain(|waits| {
            let stays = now < waits.until && !waits.gone.load(Ordering::SeqCst);
            if stays {
                assert_eq!(*waits.told.lock().unwrap(), None, "{}", waits.user);
            } else {
                assert!(!waits.answer(), "{}", waits.user);
            }
            stays
        });
    }

    fn release(&mut self, in_vain: bool) {
        let now = self.now();
        self.time_passed_in_the_store();
        self.time_passed(now);
        let user = self.holder.as_ref().map_or("nobody", |(user, _)| user);
        let claim = Claim {
            is_agent: false,
            workspace_id: workspace(),
            user_id: UserId::parse(user).unwrap(),
            session_id: None,
            fence: None,
        };
        let request = Release {
            claim,
            user_name: None,
            authority: Authority::Holder,
            privilege: Privilege::Ordinary,
            reason: None,
        };
        let rules = Arc::clone(&self.rules);
        let done = self.store.write(move |set| {
            locks::release(set, &request, &rules)?;
            if in_vain { Err(Error::invalid("this", "fails")) } else { Ok(()) }
        });
        if in_vain {
            done.unwrap_err();
        } else if self.holder.take().is_some() {
            self.next(now, now);
        }
    }

    fn time_passed_in_the_store(&self) {
        let rules = Arc::clone(&self.rules);
        self.store.write(move |set| current::load_current(set, &workspace(), &rules)).unwrap();
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Ask(wait) => self.ask(wait),
            Step::Go(place) => {
                if let Some(waits) = self.line.get(place) {
                    waits.gone.store(true, Ordering::SeqCst);
                }
            }
            Step::Release => self.release(false),
            Step::ReleaseInVain => self.release(true),
            Step::Renew | Step::Force => {
                let now = self.now();
                self.time_passed_in_the_store();
                self.time_passed(now);
                let (user, force) = match (step, &self.holder) {
                    (Step::Renew, Some((user, _))) => (user.clone(), Force::No),
                    _ => (self.somebody(), Force::AnyHolder),
                };
                let (request, rules) = (wants(&user, force), Arc::clone(&self.rules));
                self.store.write(move |set| locks::acquire(set, &request, &rules)).unwrap();
                self.holder = Some((user, now + TTL));
            }
            Step::Pass(by) => self.clock.advance(Duration::from_millis(by)),
            Step::LookAround => {
                let now = self.now();
                self.store.queue().client_left(&workspace());
                let leaving = self.store.queue().workspaces_with_leavers(Timestamp(now), 10);
                let rules = Arc::clone(&self.rules);
                let any = !leaving.is_empty();
                self.store.write(move |set| waitlist::remove_leavers(set, &leaving, &rules)).unwrap();
                if any {
                    self.time_passed(now);
                    self.leave(now);
                }
            }
        }
        let line: Vec<_> = self.store.queue().waiters(&workspace());
        let users: Vec<_> = line.iter().map(|place| place.waiter.request.user_id.as_str()).collect();
        let expected: Vec<_> = self.line.iter().map(|waits| waits.user.as_str()).collect();
        assert_eq!(users, expected);
        assert_eq!(self.store.queue().len(), expected.len());
    }
}

/// Each has a database of its own, which takes longer on PostgreSQL.
fn histories() -> u32 {
    if common::postgres::is_asked_for() { 20 } else { 60 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: histories(), ..ProptestConfig::default() })]

    #[test]
    fn waiters_are_served_in_order_and_only_while_connected(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut play = Play::new();
        for step in &steps {
            play.take(step);
        }
        play.store.close();
    }
}
