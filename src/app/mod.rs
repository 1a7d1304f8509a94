//! Use cases, shared by HTTP, the sweeper and the command line.
//!
//! A mutation is submitted to the writer together with `reply`. `reply` is called once, on another thread,
//! after the commit. Submitting does not block.

pub mod current;
pub mod handoff;
pub mod history;
pub mod invariants;
pub mod lfs;
pub mod locks;
pub mod members;
pub mod presence;
pub mod release_user;
pub mod sweep;
pub mod terraform;
mod tokens;
pub mod waitlist;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::config::{AuthMode, Config};
use crate::domain::access::{Privilege, Rules};
use crate::domain::event::{Event, Lost};
use crate::domain::rights::{Actor, Need, depends_on_role};
use crate::domain::{Claim, WorkspaceId};
use crate::error::{Denied, Error, Limit};
use crate::events::broadcaster::Broadcaster;
use crate::events::stream_limit::StreamSlot;
use crate::events::subscription::EventEncoder;
use crate::metrics::Metrics;
use crate::store::{AsOf, Keys, Reply, Store, WorkingSet};
use crate::time::{LeaseClock, Ttl};
use crate::webhooks::Webhooks;
use crate::webhooks::claim::Claimant;

pub use tokens::CacheLookup;

/// Maximum number of leases that one transaction of a bulk operation ends, so that other writes are not
/// delayed.
pub const STEP: u32 = 500;

/// Reclaim limit when the history is kept without limit: a lease can be reclaimed as long as its history is
/// kept.
const FOREVER: Ttl = Ttl::from_millis(i64::MAX);

/// State of the store, for the readiness check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// The store can be written and read.
    Yes,
    /// The store cannot be read, the last read failed, or the write of the check failed on disk.
    Unreadable,
}

/// The use cases on one store.
#[derive(Debug)]
pub struct Service {
    store: Arc<Store>,
    broadcaster: Arc<Broadcaster>,
    webhooks: Arc<Webhooks>,
    rules: Arc<Rules>,
    history_keep: Option<Ttl>,
    max_wait: Ttl,
    metrics: Arc<Metrics>,
    wake: SyncSender<()>,
    stopping: AtomicBool,
    /// Held during a check of all locks.
    checking: Mutex<()>,
    auth_mode: AuthMode,
    streams_per_user: Option<u32>,
    tokens: tokens::Tokens,
}

impl Service {
    /// Creates the use cases on `store`. Returns them with the receiver that wakes the sweeper.
    #[must_use]
    pub fn new(store: Store, config: &Config, metrics: Arc<Metrics>) -> (Arc<Self>, Receiver<()>) {
        // One pending wake-up is enough for any number of requests.
        let (wake, woken) = sync_channel(1);
        let store = Arc::new(store);
        let rules = Arc::new(Rules {
            reclaim_within: config.history.keep.map_or(FOREVER, Ttl::from_duration),
            ..config.rules()
        });
        let service = Self {
            stopping: AtomicBool::new(false),
            checking: Mutex::default(),
            auth_mode: config.auth.mode,
            streams_per_user: config.limits.streams_per_user,
            tokens: tokens::Tokens::default(),
            history_keep: config.history.keep.map(Ttl::from_duration),
            max_wait: config.locks.max_wait,
            wake,
            broadcaster: Broadcaster::new(Arc::clone(&store), Arc::clone(&rules), Arc::clone(&metrics)),
            webhooks: Webhooks::new(Arc::clone(&store), config.webhooks.clone(), Arc::clone(&metrics)),
            metrics,
            rules,
            store,
        };
        (Arc::new(service), woken)
    }

    /// Lease clock, to convert lease time for display.
    #[must_use]
    pub fn clock(&self) -> &LeaseClock {
        self.store.clock()
    }

    /// Monotonic time since an arbitrary start, for rate limits.
    #[must_use]
    pub fn monotonic(&self) -> std::time::Duration {
        self.store.clock().clock().monotonic()
    }

    /// How callers authenticate.
    #[must_use]
    pub const fn auth_mode(&self) -> AuthMode {
        self.auth_mode
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The metrics, after the gauges that are read from the store are updated.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn updated_metrics(&self) -> Result<&Metrics, Error> {
        let shown = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        let sizes = self.store.sizes();
        self.metrics.database_size.set(shown(sizes.database));
        self.metrics.wal_size.set(shown(sizes.log));
        self.metrics.oldest_transaction.set(shown(sizes.oldest_transaction));
        self.metrics.live_locks.set(self.count_locks()?);
        self.webhooks.show_metrics();
        Ok(&self.metrics)
    }

    /// Registers `tell`, which is called once if the database file or its write-ahead log is removed, moved
    /// or overwritten.
    pub fn when_gone(&self, tell: impl FnOnce() + Send + 'static) {
        self.store.when_gone(tell);
    }

    /// Broadcaster of events to followers.
    #[must_use]
    pub const fn broadcaster(&self) -> &Arc<Broadcaster> {
        &self.broadcaster
    }

    /// Starts the thread that sends events to followers and applies due changes.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn start_events(&self, encoder: EventEncoder) -> io::Result<JoinHandle<()>> {
        let mut timer = sweep::Timer::new(Arc::clone(&self.store), Arc::clone(&self.rules));
        self.broadcaster.start(encoder, move || timer.run_due())
    }

    /// The webhooks.
    #[must_use]
    pub const fn webhooks(&self) -> &Arc<Webhooks> {
        &self.webhooks
    }

    /// Starts the threads that send events to webhooks. There are none without webhooks. `encode` writes the body
    /// of an event.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator, and errors of the store.
    pub fn start_webhooks(&self, encode: fn(&Event) -> Vec<u8>) -> Result<Option<JoinHandle<()>>, Error> {
        self.webhooks.start(Claimant::of(self.store.node_id()), encode)
    }

    /// Reserves a slot for one more event stream of this caller. Returns `None` if the caller is anonymous or
    /// there is no limit.
    ///
    /// # Errors
    /// [`Error::TooMany`] when the caller has reached the limit of streams.
    pub fn reserve_stream(&self, caller: Option<String>) -> Result<Option<StreamSlot>, Error> {
        let (Some(caller), Some(most)) = (caller, self.streams_per_user) else { return Ok(None) };
        self.broadcaster.slot(caller, most).map(Some).ok_or_else(|| {
            self.metrics.limited(Limit::Streams);
            Error::TooMany(Limit::Streams)
        })
    }

    /// Submits a use case of `actor` on the workspaces of `keys`. `work` runs only if the actor has the
    /// access that `need` names. It receives the actor's privilege. A denial is a value, not an error: on an
    /// error the writer rolls back the batch and runs each of its use cases again.
    fn submit_as<T: Send + 'static>(
        &self,
        actor: Actor,
        keys: Keys,
        need: Need,
        work: impl Fn(&WorkingSet<'_>, &Rules, Privilege) -> Result<T, Error> + Send + 'static,
        reply: impl Reply<T>,
    ) {
        let (rules, workspaces) = (Arc::clone(&self.rules), keys.workspaces.clone());
        let keys = self.with_roles(keys, &actor, need);
        let work = move |set: &WorkingSet<'_>| {
            let mut privilege = actor.scope.privilege();
            for workspace_id in &workspaces {
                match members::may(&**set, &actor, workspace_id, need, &rules)? {
                    Ok(found) => privilege = found,
                    Err(denied) => return Ok(Err(denied)),
                }
            }
            work(set, &rules, privilege).map(Ok)
        };
        self.store.submit(keys, work, move |answer| reply(allowed(answer)));
    }

    /// Adds the caller to `keys`, if roles matter.
    fn with_roles(&self, keys: Keys, actor: &Actor, need: Need) -> Keys {
        let caller = actor.user_id.clone().filter(|_| depends_on_role(need, &self.rules));
        Keys { caller, ..keys }
    }

    /// Like [`Self::submit_as`], for callers who claim to hold the lock. See [`as_holder`].
    fn submit_as_holder<T: Send + 'static>(
        &self,
        actor: Actor,
        claim: Claim,
        work: impl Fn(&WorkingSet<'_>, &Rules) -> Result<T, Error> + Send + 'static,
        lost: impl Fn(Lost) -> T + Send + 'static,
        reply: impl Reply<T>,
    ) {
        let rules = Arc::clone(&self.rules);
        let keys = self.with_roles(Keys::workspace(&claim.workspace_id), &actor, Need::See);
        let work =
            move |set: &WorkingSet<'_>| as_holder(set, &actor, &claim, &rules, || work(set, &rules), &lost);
        self.store.submit(keys, work, move |answer| reply(allowed(answer)));
    }

    /// Checks whether `actor` currently has the access that `need` names on a workspace.
    ///
    /// # Errors
    /// [`Error::Denied`] when it does not. An error of the store when it cannot read.
    pub fn may(&self, actor: &Actor, workspace_id: &WorkspaceId, need: Need) -> Result<(), Error> {
        self.may_all(actor, std::slice::from_ref(workspace_id), need)
    }

    /// Like [`Self::may`] for several workspaces, in one read.
    ///
    /// # Errors
    /// Same as [`Self::may`], for the first workspace without access.
    pub fn may_all(&self, actor: &Actor, workspaces: &[WorkspaceId], need: Need) -> Result<(), Error> {
        let rules = &self.rules;
        if workspaces.is_empty() || !depends_on_role(need, rules) {
            // Most reads call this. In this case no role is looked up.
            return Ok(());
        }
        let found = self.store.read(|rows| {
            for workspace_id in workspaces {
                if let Err(denied) = members::may(rows, actor, workspace_id, need, rules)? {
                    return Ok(Err(Error::Denied(denied)));
                }
            }
            Ok(Ok(()))
        })?;
        found.value
    }

    /// Replies whether the store can be written and read.
    pub fn ready(&self, reply: impl FnOnce(Result<Ready, Error>) + Send + 'static) {
        if self.store.was_full() {
            return reply(Err(Error::StorageFull));
        }
        if let Some(answers) = self.store.answers() {
            // A probe that waited for the database could not be answered in time.
            return reply(if answers { Ok(Ready::Yes) } else { Err(Error::Busy) });
        }
        let store = Arc::clone(&self.store);
        self.store.submit(
            Keys::default(),
            |set| {
                set.force_write();
                Ok(())
            },
            move |done| {
                reply(match done {
                    Ok(_) if store.is_readable() => Ok(Ready::Yes),
                    Ok(_) => Ok(Ready::Unreadable),
                    Err(Error::Disk(cause)) => {
                        log::error!("the store is not ready: {cause}");
                        Ok(Ready::Unreadable)
                    }
                    Err(error) => Err(error),
                });
            },
        );
    }

    /// Number of threads that have read from the store, and number of connections for them.
    #[must_use]
    pub fn readers(&self) -> (u32, u32) {
        self.store.readers()
    }

    /// Number of locks, including those that have just expired.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn count_locks(&self) -> Result<i64, Error> {
        self.store.read(|rows| rows.lock_count()).map(|count| count.value)
    }

    /// Checkpoints the write-ahead log into the database if the log is larger than `bytes`.
    ///
    /// # Errors
    /// An error of SQLite. [`Error::Busy`] when a reader is using the log.
    pub fn checkpoint_if_over(&self, bytes: u64) -> Result<(), Error> {
        self.store.checkpoint_if_over(bytes)
    }

    fn wake_sweeper(&self) {
        // Full: a wake-up is already pending. Disconnected: there is no sweeper.
        let _ = self.wake.try_send(());
    }

    /// Tells the sweeper to stop, even in the middle of a round.
    pub fn stop_sweeping(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Full: a wake-up is already pending, and the sweeper then sees `stopping`. Disconnected: there is no
        // sweeper.
        let _ = self.wake.try_send(());
    }

    /// Whether the sweeper was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Prepares the stop: waiters keep their positions while they ask again at another server on the same database.
    pub fn leave(&self) {
        self.store.leave();
    }

    /// Finishes and answers submitted work. Accepts no more.
    pub fn close(&self) {
        if let Err(error) = self.tidy_tokens() {
            log::warn!("when tokens were last used is not written down: {error}");
        }
        self.store.close();
    }
}

/// Runs `work` for a caller who claims to hold the lock, if the caller may see the workspace. A holder who
/// was removed may no longer see it. If the caller lost the lock by that removal, the answer is `lost`
/// instead of a denial.
fn as_holder<T>(
    set: &WorkingSet<'_>,
    actor: &Actor,
    claim: &Claim,
    rules: &Rules,
    work: impl FnOnce() -> Result<T, Error>,
    lost: impl Fn(Lost) -> T,
) -> Result<Result<T, Denied>, Error> {
    match members::may(&**set, actor, &claim.workspace_id, Need::See, rules)? {
        Ok(_) => work().map(Ok),
        Err(denied) => {
            let excluded = locks::lost(set, claim, None)?.filter(Lost::is_exclusion);
            Ok(excluded.map(lost).ok_or(denied))
        }
    }
}

/// Turns a denial into [`Error::Denied`].
fn allowed<T>(answer: Result<AsOf<Result<T, Denied>>, Error>) -> Result<AsOf<T>, Error> {
    let AsOf { now, value } = answer?;
    value.map(|value| AsOf { now, value }).map_err(Error::Denied)
}
