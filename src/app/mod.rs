//! The use cases, as HTTP, the sweeper and the command line share them.
//!
//! A mutation is submitted to the writer with what is to be done with its outcome: `reply` is called once, on another
//! thread, after the commit. Nothing here waits.

pub mod current;
pub mod handoff;
pub mod history;
pub mod invariants;
pub mod locks;
pub mod members;
pub mod sweep;
mod tokens;
pub mod waitlist;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::config::{AuthMode, Config};
use crate::domain::access::{Privilege, Rules};
use crate::domain::event::Lost;
use crate::domain::member::{Actor, Need, matters};
use crate::domain::{Claim, WorkspaceId};
use crate::error::{Denied, Error, Limit};
use crate::events::broadcaster::Broadcaster;
use crate::events::stream_limit::StreamSlot;
use crate::events::subscription::EventEncoder;
use crate::metrics::Metrics;
use crate::store::{AsOf, Keys, Store, WorkingSet};
use crate::time::{LeaseClock, Ttl};

pub use locks::{MAX_PRESENT_USERS, WorkspacePresence};
pub use tokens::Recalled;

/// Leases that one transaction of a bulk operation ends at most, so that it holds nobody up.
pub const STEP: u32 = 500;

/// A lease can be reclaimed as long as the history is kept.
const FOREVER: Ttl = Ttl::from_millis(i64::MAX);

/// Whether the store works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// It takes a write and can be read.
    Yes,
    /// It cannot be read, or could not a moment ago.
    Unreadable,
}

/// The use cases.
#[derive(Debug)]
pub struct Service {
    store: Arc<Store>,
    broadcaster: Arc<Broadcaster>,
    rules: Arc<Rules>,
    history_keep: Option<Ttl>,
    max_wait: Ttl,
    metrics: Arc<Metrics>,
    wake: SyncSender<()>,
    stopping: AtomicBool,
    /// Held by whoever looks through all locks.
    checking: Mutex<()>,
    auth_mode: AuthMode,
    streams_per_user: Option<u32>,
    tokens: tokens::Tokens,
}

impl Service {
    /// The use cases on `store`, and what wakes the sweeper.
    #[must_use]
    pub fn new(store: Store, config: &Config, metrics: Arc<Metrics>) -> (Arc<Self>, Receiver<()>) {
        // One wake-up is enough, however many ask for it.
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
            metrics,
            rules,
            store,
        };
        (Arc::new(service), woken)
    }

    /// The lease clock, for showing instants.
    #[must_use]
    pub fn clock(&self) -> &LeaseClock {
        self.store.clock()
    }

    /// Time since an arbitrary start, for what is limited by the second.
    #[must_use]
    pub fn monotonic(&self) -> std::time::Duration {
        self.store.clock().clock().monotonic()
    }

    /// How callers say who they are.
    #[must_use]
    pub const fn auth_mode(&self) -> AuthMode {
        self.auth_mode
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What is counted, with what has to be looked at first.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn measured(&self) -> Result<&Metrics, Error> {
        let shown = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        let (database, log) = self.store.sizes();
        self.metrics.database_size.set(shown(database));
        self.metrics.wal_size.set(shown(log));
        self.metrics.live_locks.set(self.count_locks()?);
        Ok(&self.metrics)
    }

    /// `tell` is called once if the files of the database are no longer there.
    pub fn when_gone(&self, tell: impl FnOnce() + Send + 'static) {
        self.store.when_gone(tell);
    }

    /// Those who follow the events.
    #[must_use]
    pub const fn broadcaster(&self) -> &Arc<Broadcaster> {
        &self.broadcaster
    }

    /// Starts the thread that tells the followers, and makes happen what is due.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start_events(&self, encoder: EventEncoder) -> io::Result<JoinHandle<()>> {
        let mut timer = sweep::Timer::new(Arc::clone(&self.store), Arc::clone(&self.rules));
        self.broadcaster.start(encoder, move || timer.run_due())
    }

    /// Room for one more stream of events of this caller; none is needed for one who is nobody, and can be told apart from
    /// nobody.
    ///
    /// # Errors
    /// [`Error::TooMany`] when they have as many as one can.
    pub fn seat(&self, caller: Option<String>) -> Result<Option<StreamSlot>, Error> {
        let (Some(caller), Some(most)) = (caller, self.streams_per_user) else { return Ok(None) };
        self.broadcaster.slot(caller, most).map(Some).ok_or_else(|| {
            self.metrics.limited(Limit::Streams);
            Error::TooMany(Limit::Streams)
        })
    }

    /// Submits a use case of `actor` on the workspace of `keys`, which is carried out only if they may. `work` gets what they
    /// may do besides. That they may not is no error: it would cost those who are carried out together with it.
    fn submit_as<T: Send + 'static>(
        &self,
        actor: Actor,
        keys: Keys,
        need: Need,
        work: impl Fn(&WorkingSet<'_>, Privilege) -> Result<T, Error> + Send + 'static,
        reply: impl FnOnce(Result<AsOf<T>, Error>) + Send + 'static,
    ) {
        let (rules, workspaces) = (Arc::clone(&self.rules), keys.workspaces.clone());
        let work = move |set: &WorkingSet<'_>| {
            let mut standing = actor.standing;
            for workspace_id in &workspaces {
                match members::may(&**set, &actor, workspace_id, need, &rules)? {
                    Ok(found) => standing = found,
                    Err(denied) => return Ok(Err(denied)),
                }
            }
            work(set, standing).map(Ok)
        };
        self.store.submit(keys, work, move |answer| reply(allowed(answer)));
    }

    /// As [`Self::submit_as`], for those who say that they have the lock. See [`as_holder`].
    fn submit_as_holder<T: Send + 'static>(
        &self,
        actor: Actor,
        claim: Claim,
        work: impl Fn(&WorkingSet<'_>) -> Result<T, Error> + Send + 'static,
        lost: impl Fn(Lost) -> T + Send + 'static,
        reply: impl FnOnce(Result<AsOf<T>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let keys = Keys::workspace(&claim.workspace_id);
        let work = move |set: &WorkingSet<'_>| as_holder(set, &actor, &claim, &rules, || work(set), &lost);
        self.store.submit(keys, work, move |answer| reply(allowed(answer)));
    }

    /// Whether `actor` may do what they need on a workspace, as it is now.
    ///
    /// # Errors
    /// [`Error::Denied`] when they may not; what the store cannot read.
    pub fn may(&self, actor: &Actor, workspace_id: &WorkspaceId, need: Need) -> Result<(), Error> {
        self.may_all(actor, std::slice::from_ref(workspace_id), need)
    }

    /// The same of several workspaces, in one read.
    ///
    /// # Errors
    /// As [`Self::may`], of the first on which they may not.
    pub fn may_all(&self, actor: &Actor, workspaces: &[WorkspaceId], need: Need) -> Result<(), Error> {
        let rules = &self.rules;
        if workspaces.is_empty() || !matters(need, rules) {
            // Most reads ask; then nobody has to be looked up.
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

    /// Whether the store takes a write, and can be read.
    pub fn ready(&self, reply: impl FnOnce(Result<Ready, Error>) + Send + 'static) {
        if self.store.was_full() {
            return reply(Err(Error::StorageFull));
        }
        let store = Arc::clone(&self.store);
        self.store.submit(
            Keys::default(),
            |set| {
                set.touch();
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

    /// How many threads have read from the store, and how many connections there are for them.
    #[must_use]
    pub fn readers(&self) -> (u32, u32) {
        self.store.readers()
    }

    /// How many locks there are, those among them that have ended just now.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn count_locks(&self) -> Result<i64, Error> {
        self.store.read(|rows| rows.lock_count()).map(|count| count.value)
    }

    /// Folds the write-ahead log into the database when it has grown beyond `bytes`.
    ///
    /// # Errors
    /// What SQLite cannot do.
    pub fn fold_log_over(&self, bytes: u64) -> Result<(), Error> {
        self.store.fold_log_over(bytes)
    }

    fn ask_for_a_sweep(&self) {
        // Full: somebody has asked already. Disconnected: there is no sweeper.
        let _ = self.wake.try_send(());
    }

    /// Tells the sweeper to stop, in the middle of a round if need be.
    pub fn stop_sweeping(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Full: it is woken already, and sees that it is over. Disconnected: there is no sweeper.
        let _ = self.wake.try_send(());
    }

    /// Whether the sweeper was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Finishes what was submitted and answers it; takes no more.
    pub fn close(&self) {
        if let Err(error) = self.tidy_tokens() {
            log::warn!("when tokens were last used is not written down: {error}");
        }
        self.store.close();
    }
}

/// Carries out `work` for somebody who says that they have the lock, if they may see the workspace. If they lost it because
/// they belong there no more, that is what they are told, by `lost`: the workspace is there for them no more, but they
/// had its lock.
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

/// The answer of a use case that is carried out only for those who may.
fn allowed<T>(answer: Result<AsOf<Result<T, Denied>>, Error>) -> Result<AsOf<T>, Error> {
    let AsOf { now, value } = answer?;
    value.map(|value| AsOf { now, value }).map_err(Error::Denied)
}
