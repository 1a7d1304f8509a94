//! An engine for the tests: rows in memory, loaded in batches. What a use case touches without having named it is a miss; then it is
//! loaded, and all use cases of the batch run again. Every third batch loads nothing of what was named, on purpose.

mod changes;
mod rows;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lockhouse::domain::event::Event;
use lockhouse::domain::grace::{RestartGrace, Run};
use lockhouse::domain::member::{Role, Workspace};
use lockhouse::domain::token::{Hash, Token};
use lockhouse::domain::waitlist::WaitlistLimits;
use lockhouse::domain::{Fence, Lock, UserId, WorkspaceId};
use lockhouse::error::Error;
use lockhouse::store::commit_notifier::CommitNotifier;
use lockhouse::store::engine::{Engine, Work};
use lockhouse::store::queue::Queue;
use lockhouse::store::writer::Writer;
use lockhouse::store::{Effects, FenceSlot, Meta, TransactionStart, WebhookPosition};
use lockhouse::time::{Clock, LeaseClock, Timestamp, Ttl};

/// What is kept over a restart.
#[derive(Clone)]
pub struct Tables {
    meta: Meta,
    last_seen: Timestamp,
    grace: RestartGrace,
    /// With the run in which each was written.
    locks: BTreeMap<WorkspaceId, (Lock, Run)>,
    /// With the lease time of each, and its `drain_until`.
    events: Vec<(Event, Timestamp, Option<Timestamp>)>,
    workspaces: BTreeMap<WorkspaceId, Workspace>,
    members: BTreeMap<(WorkspaceId, UserId), Role>,
    tokens: BTreeMap<String, (Token, Hash)>,
    webhooks: BTreeMap<String, WebhookPosition>,
}

impl Tables {
    pub fn new(now: Timestamp) -> Self {
        let meta =
            Meta { last_fence: Fence(0), last_revision: 0, wall_offset_ms: 0, lock_count: 0, opened_at: now };
        Self {
            meta,
            last_seen: now,
            grace: RestartGrace::none(),
            locks: BTreeMap::new(),
            events: Vec::new(),
            workspaces: BTreeMap::new(),
            members: BTreeMap::new(),
            tokens: BTreeMap::new(),
            webhooks: BTreeMap::new(),
        }
    }

    /// A server starts at `now`. Leases get the restart grace.
    pub fn restart(&mut self, now: Timestamp, grace: Ttl) {
        let run = Run(self.grace.run().0 + 1);
        let recorded = self.grace.restarts().to_vec();
        self.grace = RestartGrace::at_start(recorded, run, self.last_seen, now, grace);
        self.meta.opened_at = now;
    }
}

pub struct Memory {
    tables: Arc<Mutex<Tables>>,
    clock: LeaseClock,
    /// How often use cases have run again.
    misses: Arc<AtomicUsize>,
    batches: usize,
}

impl Memory {
    /// Starts a server on the tables.
    pub fn start(
        tables: &Arc<Mutex<Tables>>,
        misses: &Arc<AtomicUsize>,
        clock: Clock,
        limits: WaitlistLimits,
    ) -> (Writer, Arc<Queue>) {
        let last_seen = tables.lock().unwrap().last_seen;
        let (tables, misses) = (Arc::clone(tables), Arc::clone(misses));
        let memory =
            Self { tables, clock: LeaseClock::resume(clock.clone(), last_seen, 0), misses, batches: 0 };
        let (notifier, queue) = (Arc::new(CommitNotifier::default()), Arc::new(Queue::new(limits)));
        let writer = Writer::start(Box::new(memory), clock, Arc::default(), notifier, Arc::clone(&queue));
        (writer.unwrap(), queue)
    }
}

impl Engine for Memory {
    fn transact(&mut self, work: &mut dyn Work) -> Result<Effects, Error> {
        self.batches += 1;
        let mut loaded = HashSet::new();
        if !self.batches.is_multiple_of(3) {
            for keys in work.keys() {
                loaded.extend(keys.workspaces.iter().map(|id| format!("workspace {}", id.as_str())));
                loaded.extend(keys.users.iter().map(|id| format!("user {}", id.as_str())));
            }
        }
        let (now, wall_micros) = (self.clock.now(), self.clock.clock().wall_micros());
        let mut tables = self.tables.lock().unwrap();
        loop {
            let set = Set { tables: RefCell::new(tables.clone()), now, loaded, missed: RefCell::default() };
            let outcome = work.run(
                &set,
                TransactionStart { wall_micros, meta: tables.meta, fences: FenceSlot::ALL },
                None,
            );
            loaded = set.loaded;
            let missed = set.missed.into_inner();
            if missed.is_empty() {
                let effects = outcome?;
                *tables = Tables { meta: effects.meta, last_seen: now, ..set.tables.into_inner() };
                return Ok(effects);
            }
            self.misses.fetch_add(1, Ordering::SeqCst);
            loaded.extend(missed);
        }
    }

    fn idle(&mut self) {}

    fn resolve_failed_commit(&mut self) -> bool {
        true
    }

    fn checkpoint_if_long(&mut self) {}

    fn checkpoint(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn finish(&mut self) {
        self.tables.lock().unwrap().last_seen = self.clock.now();
    }
}

/// What was loaded, and what the use cases have done to it.
struct Set {
    tables: RefCell<Tables>,
    now: Timestamp,
    loaded: HashSet<String>,
    missed: RefCell<Vec<String>>,
}

impl Set {
    fn need(&self, key: String) -> Result<(), Error> {
        if self.loaded.contains(&key) {
            return Ok(());
        }
        self.missed.borrow_mut().push(key);
        Err(Error::Internal("it is not loaded yet".to_owned()))
    }

    fn of_workspace(&self, workspace_id: &WorkspaceId) -> Result<(), Error> {
        self.need(format!("workspace {}", workspace_id.as_str()))
    }

    fn all_locks(&self) -> Vec<Lock> {
        let tables = self.tables.borrow();
        let with_grace = |(lock, run): &(Lock, Run)| {
            let mut lock = lock.clone();
            for at in [&mut lock.knocks.grant_at, &mut lock.knocks.grant_at_latest].into_iter().flatten() {
                *at = tables.grace.apply(*run, *at);
            }
            lock.expires_at = tables.grace.apply(*run, lock.expires_at);
            lock
        };
        tables.locks.values().map(with_grace).collect()
    }

    fn put(&self, lock: &Lock) {
        let mut tables = self.tables.borrow_mut();
        let run = tables.grace.run();
        tables.locks.insert(lock.workspace_id.clone(), (lock.clone(), run));
    }
}
