//! One engine, with one or two servers on it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockhouse::config::Secret;
use lockhouse::domain::waitlist::{QueueEntry as _, WaitlistLimits};
use lockhouse::domain::{Fence, WorkspaceId};
use lockhouse::error::Error;
use lockhouse::metrics::Metrics;
use lockhouse::store::queue::{Queue, QueuedWaiter};
use lockhouse::store::writer::Writer;
use lockhouse::store::{Keys, Options, Reply, Store, WorkingSet};
use lockhouse::time::{Clock, ManualClock, Timestamp, Ttl};

use crate::common::NOON;
use crate::common::postgres::Cluster;
use crate::memory::{Memory, Tables};
use crate::steps::{FenceStep, WORKSPACES};
use crate::waiters::Answers;
use crate::workspace;

/// A server that was stalled for up to this time counts as there: a busy machine does not decide who is granted a lock.
const ALWAYS_THERE: &str = "
    CREATE FUNCTION always_there() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF NEW.node_id <> '' THEN NEW.seen_at := NEW.seen_at + 50000; END IF; RETURN NEW; END $$;
    CREATE TRIGGER always_there BEFORE UPDATE ON nodes FOR EACH ROW EXECUTE FUNCTION always_there();
    UPDATE nodes SET seen_at = seen_at WHERE node_id <> ''";

/// Where an engine keeps its rows.
pub enum Place {
    File(tempfile::TempDir),
    Memory { tables: Arc<Mutex<Tables>>, misses: Arc<AtomicUsize> },
    Postgres(Secret),
}

/// A server on an engine.
pub enum Server {
    Store(Store),
    Memory(Writer, Arc<Queue>),
}

impl Server {
    pub fn submit<T: Send + 'static>(
        &self,
        keys: Keys,
        work: impl Fn(&WorkingSet<'_>) -> Result<T, Error> + Send + 'static,
        reply: impl Reply<T>,
    ) {
        match self {
            Self::Store(store) => store.submit(keys, work, reply),
            Self::Memory(writer, _) => writer.submit(keys, work, reply),
        }
    }

    pub fn queue(&self) -> &Arc<Queue> {
        match self {
            Self::Store(store) => store.queue(),
            Self::Memory(_, queue) => queue,
        }
    }

    /// The waiters for a lock, on all servers of the engine.
    fn waiters(&self, workspace_id: &WorkspaceId) -> Vec<QueuedWaiter> {
        match self {
            Self::Store(store) => store.waiters(workspace_id).unwrap(),
            Self::Memory(_, queue) => queue.waiters(workspace_id),
        }
    }

    pub fn stop(&self) {
        match self {
            Self::Store(store) => store.close(),
            Self::Memory(writer, _) => writer.stop(),
        }
    }
}

/// An engine.
pub struct Engine {
    pub name: &'static str,
    place: Place,
    limits: WaitlistLimits,
    clock: Arc<ManualClock>,
    pub servers: Vec<Server>,
    pub answers: Arc<Answers>,
    /// The numbers of the waiters, by their ids.
    pub waiters: RefCell<HashMap<i64, usize>>,
    /// The answers that waiters must get, as text.
    pub owed: HashMap<usize, String>,
    fences: RefCell<Fences>,
}

/// The fences of an engine. Each engine has its own, so their order is compared.
#[derive(Default)]
struct Fences {
    /// In the order in which they were shown first.
    numbers: HashMap<i64, usize>,
    /// Of the leases of each workspace, from oldest to newest.
    seen: [Vec<Fence>; WORKSPACES],
}

impl Engine {
    pub fn new(name: &'static str, place: Place, servers: usize, limits: WaitlistLimits) -> Self {
        if let Place::Postgres(url) = &place {
            sql(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        }
        let mut engine = Self {
            name,
            place,
            limits,
            clock: ManualClock::starting_at(NOON),
            servers: Vec::new(),
            answers: Arc::default(),
            waiters: RefCell::default(),
            owed: HashMap::new(),
            fences: RefCell::default(),
        };
        engine.servers = (0..servers).map(|_| engine.open(0)).collect();
        if let Place::Postgres(url) = &engine.place
            && servers > 1
        {
            sql(url, ALWAYS_THERE);
        }
        engine
    }

    /// Starts a server.
    fn open(&self, grace: i64) -> Server {
        let clock = Clock::Manual(Arc::clone(&self.clock));
        let (path, url) = match &self.place {
            Place::File(directory) => (directory.path().join("lockhouse.db"), None),
            Place::Postgres(url) => ("/nonexistent/lockhouse.db".into(), Some(url.clone())),
            Place::Memory { tables, misses } => {
                let (writer, queue) = Memory::start(tables, misses, clock, self.limits);
                return Server::Memory(writer, queue);
            }
        };
        let options = Options {
            url,
            path,
            busy_timeout: Duration::from_secs(20),
            max_size: None,
            restart_grace: Duration::from_millis(grace.unsigned_abs()),
            readers: 1,
            waiters: self.limits,
        };
        Server::Store(Store::open(&options, clock, &Arc::new(Metrics::default())).unwrap())
    }

    /// Stops all servers, and starts them after `away`.
    pub fn restart(&mut self, away: i64, grace: i64) {
        let servers = self.servers.len();
        self.stop();
        self.pass(away);
        if let Place::Memory { tables, .. } = &self.place {
            tables.lock().unwrap().restart(self.now(), Ttl::from_millis(grace));
        }
        self.servers = (0..servers).map(|_| self.open(grace)).collect();
    }

    /// Starts one server anew, whose store was stopped.
    pub fn replace(&mut self, server: usize) {
        self.servers[server] = self.open(0);
    }

    fn stop(&mut self) {
        for server in self.servers.drain(..) {
            server.stop();
        }
    }

    pub fn pass(&self, milliseconds: i64) {
        self.clock.advance(Duration::from_millis(milliseconds.unsigned_abs()));
    }

    /// Lease time. It is equal to wall time, because no clock is set.
    pub fn now(&self) -> Timestamp {
        Timestamp(Clock::Manual(Arc::clone(&self.clock)).wall().0)
    }

    /// The server that takes a step of the server `on`.
    pub fn server(&self, on: usize) -> &Server {
        &self.servers[on % self.servers.len()]
    }

    /// What is shown, with the number of each fence in its place.
    pub fn shown(&self, value: &impl Debug) -> String {
        let text = format!("{value:?}");
        let mut parts = text.split("Fence(");
        let mut shown = parts.next().unwrap_or_default().to_owned();
        let numbers = &mut self.fences.borrow_mut().numbers;
        for part in parts {
            let (fence, rest) = part.split_once(')').unwrap();
            let next = numbers.len();
            let number = numbers.entry(fence.parse().unwrap()).or_insert(next);
            write!(shown, "Fence(#{number}){rest}").unwrap();
        }
        shown
    }

    /// The live lock has this fence. It is that of the latest lease, or above the fences of all leases before.
    pub fn saw(&self, at: usize, fence: Fence) {
        let seen = &mut self.fences.borrow_mut().seen[at];
        if seen.last() != Some(&fence) {
            assert!(seen.last() < Some(&fence), "{}: the fence {fence:?} after {seen:?}", self.name);
            seen.push(fence);
        }
    }

    pub fn fence(&self, at: usize, fence: FenceStep) -> Option<Fence> {
        match fence {
            FenceStep::None => None,
            FenceStep::Ago(ago) => self.fences.borrow().seen[at].iter().rev().nth(ago).copied(),
        }
    }

    /// The waiters for a lock as `server` sees them: their numbers, and what is known of them, as text.
    pub fn line(&self, server: usize, at: usize) -> Vec<(usize, String)> {
        let numbers = self.waiters.borrow();
        let waiters = self.server(server).waiters(&workspace(at)).into_iter();
        let is_shown = |queued: &QueuedWaiter| queued.keeps_position(self.now()) || !queued.waiter.is_gone();
        let shown = |QueuedWaiter { waiter, since, until, is_leaving }| {
            (numbers[&waiter.id], self.shown(&(&waiter.request, since, until, is_leaving)))
        };
        waiters.filter(is_shown).map(shown).collect()
    }

    /// Compares the answers that have arrived with those that are owed. Waits for all if it `is_prompt`.
    pub fn settle(&mut self, is_prompt: bool) {
        let arrived = self.answers.take(if is_prompt { self.owed.len() } else { 0 });
        for (number, (request, answer)) in arrived {
            let shown = self.shown(&answer.map(|answer| answer.value));
            assert_eq!(self.owed.remove(&number), Some(shown), "SQLite, and {}: {request:?}", self.name);
        }
        assert!(!is_prompt || self.owed.is_empty(), "{}: not answered: {:?}", self.name, self.owed);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs statements on a database of the PostgreSQL of this process.
fn sql(url: &Secret, statements: &str) {
    let (_, database) = url.as_str().rsplit_once('/').unwrap();
    Cluster::of_this_process().sql(database, statements);
}
