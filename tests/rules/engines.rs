//! The same histories on SQLite, on PostgreSQL with one or two servers, and on an engine in memory that loads in batches,
//! misses, and runs use cases twice. The outcomes are the same, also for waiters and after restarts.

mod engine;
mod histories;
mod step;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use lockhouse::app::{current, waitlist};
use lockhouse::config::Secret;
use lockhouse::domain::access::Rules;
use lockhouse::domain::waitlist::WaitlistLimits;
use lockhouse::domain::{Lock, WorkspaceId};
use lockhouse::error::Error;
use lockhouse::store::listing::LockQuery;
use lockhouse::store::{AsOf, Keys, Rows, Store, WorkingSet};
use lockhouse::time::{Timestamp, Ttl};

use crate::common::NOON;
use crate::common::postgres::new_database;
use crate::memory::Tables;
use crate::steps::WORKSPACES;
use crate::waiters::WaiterAnswer;
use crate::workspace;
use engine::{Engine, Place, Server};
pub use step::{EngineStep, on};

/// How long the waiters of a server that stops keep their places.
const LEAVING: Ttl = Ttl::from_millis(5_000);
/// SQLite, which the others are compared with.
const SQLITE: usize = 0;

/// The servers on PostgreSQL, and how their waiters are answered.
#[derive(Debug, Clone, Copy)]
pub struct Servers {
    /// 1 or 2. The other engines have one.
    pub number: usize,
    /// Whether all answers to waiters are awaited after each step. Otherwise the history goes on meanwhile.
    pub is_prompt: bool,
}

/// All engines. Each has a clock, and the clocks are moved together.
pub struct Engines {
    all: Vec<Engine>,
    servers: Servers,
    /// The number of the next waiter.
    next: usize,
    /// The waiters that SQLite has not answered, and their servers.
    pub waiting: BTreeMap<usize, usize>,
    /// For each server, whether it has stopped.
    stopped: [Arc<AtomicBool>; 2],
    /// How often use cases ran again in memory.
    pub misses: Arc<AtomicUsize>,
    /// The revision of the last event that was compared.
    revision: i64,
    pub rules: Arc<Rules>,
}

thread_local! {
    /// The database of this test.
    static DATABASE: Secret = new_database();
}

impl Engines {
    pub fn new(rules: Rules, servers: Servers) -> Self {
        let misses = Arc::<AtomicUsize>::default();
        let tables = Arc::new(Mutex::new(Tables::new(Timestamp(NOON.0))));
        // The limit in total is one of each server.
        let total = if servers.number == 1 { 9 } else { 1_000 };
        let limits = WaitlistLimits { per_workspace: 9, per_user: 9, total };
        let all = vec![
            Engine::new("SQLite", Place::File(tempfile::tempdir().unwrap()), 1, limits),
            Engine::new("memory", Place::Memory { tables, misses: Arc::clone(&misses) }, 1, limits),
            Engine::new("PostgreSQL", Place::Postgres(DATABASE.with(Clone::clone)), servers.number, limits),
        ];
        let rules = Arc::new(rules);
        let (waiting, stopped) = (BTreeMap::new(), Default::default());
        Self { all, servers, next: 0, waiting, stopped, misses, revision: 0, rules }
    }

    /// Runs the use case on all engines. Returns the outcome, which must be the same.
    pub fn run(
        &self,
        on: usize,
        keys: &Keys,
        work: impl Fn(&WorkingSet<'_>) -> Result<String, Error> + Send + Sync + 'static,
    ) -> String {
        self.run_each(on, keys, move |_, set| work(set)).swap_remove(SQLITE).value
    }

    /// Like [`Self::run`], for work that knows on which engine it runs. Returns the outcomes.
    fn run_each<T: Debug + Send + 'static>(
        &self,
        on: usize,
        keys: &Keys,
        work: impl Fn(usize, &WorkingSet<'_>) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Vec<AsOf<T>> {
        let work = Arc::new(work);
        let (sender, receiver) = mpsc::channel();
        for (number, engine) in self.all.iter().enumerate() {
            let (work, sender) = (Arc::clone(&work), sender.clone());
            let work = move |set: &WorkingSet<'_>| work(number, set);
            engine
                .server(on)
                .submit(keys.clone(), work, move |answer| sender.send((number, answer)).unwrap());
        }
        drop(sender);
        let mut told: Vec<_> = receiver.into_iter().collect();
        told.sort_by_key(|(number, _)| *number);
        let told = told.into_iter().map(|(_, outcome)| outcome);
        self.same(told.collect()).into_iter().map(Result::unwrap).collect()
    }

    /// The values of the engines, which must show the same.
    fn same<T: Debug>(&self, values: Vec<T>) -> Vec<T> {
        let shown: Vec<_> = self.all.iter().zip(&values).map(|(engine, value)| engine.shown(value)).collect();
        for (engine, other) in self.all.iter().zip(&shown) {
            assert_eq!(shown[SQLITE], *other, "SQLite, and {}", engine.name);
        }
        values
    }

    /// The stores of SQLite and PostgreSQL.
    pub fn stores(&self) -> impl Iterator<Item = &Store> {
        self.all.iter().flat_map(|engine| &engine.servers).filter_map(|server| match server {
            Server::Store(store) => Some(store),
            Server::Memory(..) => None,
        })
    }

    /// The live lock, after due changes, as a read sees it.
    fn live(&self, at: usize) -> Option<Lock> {
        let read = |rows: &dyn Rows| Ok(rows.lock(&workspace(at))?.filter(|lock| rows.now() < lock.due_at()));
        let mut first = None;
        for engine in &self.all {
            for server in &engine.servers {
                let Server::Store(store) = server else { continue };
                let lock = store.read(read).unwrap().value;
                let shown = engine.shown(&lock);
                let (_, expected) = first.get_or_insert_with(|| (lock, shown.clone()));
                assert_eq!(*expected, shown, "reads of SQLite, and {}", engine.name);
            }
        }
        first.unwrap().0
    }

    /// Compares the locks and the events, after due changes. It is seen as a use case sees it, and nothing of that is kept.
    fn look(&mut self, on: usize) {
        for at in 0..WORKSPACES {
            let (rules, after) = (Arc::clone(&self.rules), self.revision);
            let seen = self.run_each(on + at, &Keys::default(), move |_, set| {
                let lock = current::load_current(set, &workspace(at), &rules)?;
                let listing = LockQuery { limit: 2, ..LockQuery::default() };
                let listed = (set.list_locks(&listing)?.locks, set.workspaces(None, "", 2)?);
                Ok((lock, listed, set.events_after(after, u32::MAX)?))
            });
            for (engine, AsOf { value: (lock, _, events), .. }) in self.all.iter().zip(seen) {
                self.revision = events.last().map_or(self.revision, |event| event.revision);
                if let Some(lock) = lock {
                    engine.saw(at, lock.fence);
                }
            }
        }
    }

    /// The numbers of the waiters for a lock, in order. All servers see the same.
    fn line(&self, at: usize) -> Vec<usize> {
        let expected = self.all[SQLITE].line(0, at);
        for engine in &self.all {
            for server in 0..engine.servers.len() {
                assert_eq!(expected, engine.line(server, at), "waiters of SQLite, and {}", engine.name);
            }
        }
        expected.into_iter().map(|(number, _)| number).collect()
    }

    /// The answers to the waiters that have left the line. Each engine owes the same.
    fn answers(&mut self) -> Vec<WaiterAnswer> {
        let line: Vec<_> = (0..WORKSPACES).flat_map(|at| self.line(at)).collect();
        let before = self.waiting.len();
        self.waiting.retain(|number, _| line.contains(number));
        let answered = self.all[SQLITE].answers.take(before - self.waiting.len());
        assert_eq!(answered.len(), before - self.waiting.len(), "only those that left the line are answered");
        for (number, (_, answer)) in &answered {
            let outcome = answer.as_ref().map(|answer| &answer.value);
            let shown = self.all[SQLITE].shown(&outcome);
            for engine in &mut self.all[SQLITE + 1..] {
                engine.owed.insert(*number, shown.clone());
            }
        }
        self.settle(self.servers.is_prompt);
        answered.into_values().collect()
    }

    /// Compares the answers that have arrived. Waits for all if it `is_prompt`.
    pub fn settle(&mut self, is_prompt: bool) {
        for engine in &mut self.all[SQLITE + 1..] {
            engine.settle(is_prompt);
        }
    }

    pub fn pass(&self, milliseconds: i64) {
        for engine in &self.all {
            engine.pass(milliseconds);
        }
    }

    /// The waiters whose wait is over are answered.
    fn leave(&self) {
        // Each server looks after the clients that are connected to it.
        for server in 0..self.servers.number {
            let leaving =
                |engine: &Engine| engine.server(server).queue().workspaces_with_leavers(engine.now(), 10);
            let leaving: Vec<_> = self.all.iter().map(leaving).collect();
            let rules = Arc::clone(&self.rules);
            self.run_each(server, &Keys::default(), move |engine, set| {
                waitlist::remove_leavers(set, &leaving[engine], &rules)
            });
        }
    }

    /// All servers stop, and start after `away`. Their clients are gone.
    fn restart(&mut self, away: i64, grace: i64) {
        self.settle(true);
        self.forget_places();
        for server in 0..self.servers.number {
            self.disconnect(server);
        }
        for engine in &mut self.all {
            engine.restart(away, grace);
        }
    }

    /// One of two servers stops, and starts after `away`. The other one goes on, and no lease gets a grace.
    fn replace(&mut self, server: usize, away: i64, leaves: bool) {
        self.settle(true);
        if leaves {
            self.keep_places(server);
        }
        self.disconnect(server);
        for engine in self.all.iter().filter(|engine| engine.servers.len() > 1) {
            engine.servers[server].stop();
        }
        self.pass(away);
        // The other one removes the waiters of this one that keep no place, and writes down the time.
        let rules = Arc::clone(&self.rules);
        self.run_each(1 - server, &Keys::default(), move |_, set| {
            set.force_write();
            let all: Vec<WorkspaceId> = (0..WORKSPACES).map(workspace).collect();
            waitlist::remove_leavers(set, &all, &rules)
        });
        for engine in self.all.iter_mut().filter(|engine| engine.servers.len() > 1) {
            engine.replace(server);
        }
    }

    /// Marks the waiters that are connected to a server. Engines that know only one are told here what PostgreSQL does.
    fn keep_places(&self, server: usize) {
        let leaving = |engine: &Engine| -> HashSet<i64> {
            let waiters = engine.waiters.borrow();
            let leaves = |number: &usize| self.waiting.get(number) == Some(&server);
            waiters.iter().filter(|(_, number)| leaves(number)).map(|(id, _)| *id).collect()
        };
        let leaving: Vec<_> =
            self.all.iter().map(|engine| (engine.servers.len() == 1).then(|| leaving(engine))).collect();
        self.run_each(server, &Keys::default(), move |engine, set| {
            let Some(leaving) = &leaving[engine] else {
                set.leave();
                return Ok(());
            };
            for workspace_id in (0..WORKSPACES).map(workspace) {
                let mut waiters = set.queue().waiters(&workspace_id);
                for queued in waiters.iter_mut().filter(|queued| leaving.contains(&queued.waiter.id)) {
                    queued.is_leaving = true;
                    queued.until = queued.until.min(set.now().plus(LEAVING));
                }
                set.queue().replace(&workspace_id, waiters);
            }
            Ok(())
        });
    }

    /// Removes the waiters of servers that have stopped. PostgreSQL keeps their places also while all servers restart, and
    /// the other engines keep no line then.
    fn forget_places(&self) {
        let keys = Keys { workspaces: (0..WORKSPACES).map(workspace).collect(), ..Keys::default() };
        self.run_each(0, &keys, |_, set| {
            for workspace_id in (0..WORKSPACES).map(workspace) {
                let mut waiters = set.queue().waiters(&workspace_id);
                waiters.retain(|queued| !queued.is_leaving);
                set.queue().replace(&workspace_id, waiters);
            }
            Ok(())
        });
    }

    /// The clients of a server have lost their connections.
    fn disconnect(&mut self, server: usize) {
        std::mem::take(&mut self.stopped[server]).store(true, Ordering::SeqCst);
        self.waiting.retain(|_, on| *on != server);
    }
}
