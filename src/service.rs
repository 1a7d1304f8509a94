//! The use cases, as HTTP, the sweeper and the command line share them.
//!
//! A mutation is submitted to the writer with what is to be done with its outcome: `reply` is called once, on another
//! thread, after the commit. Nothing here waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::config::Config;
use crate::error::Error;
use crate::live::faces::Face;
use crate::live::hub::Hub;
use crate::lock::event::{Event, Lost};
use crate::lock::knock::{Ask, Asked, Replied, Reply};
use crate::lock::policy::Rules;
use crate::lock::{Acquire, Acquired, Beat, Heartbeat, Lock, Release, Released, UserId, WorkspaceId};
use crate::metrics::Metrics;
use crate::store::events::By;
use crate::store::locks::{Found, Listing, ReleasedSome};
use crate::store::queue::{Client, Place, Waiter};
use crate::store::waiting::{self, Came};
use crate::store::{At, Store, asking, events, locks};
use crate::time::{LeaseClock, Timestamp, Ttl};

/// Leases that one transaction of a bulk operation ends at most, so that it holds nobody up.
pub const STEP: u32 = 500;

/// Most people who follow a workspace that are shown.
pub const FACES: usize = 500;

/// A lease can be reclaimed as long as the history is kept.
const FOREVER: Ttl = Ttl::from_millis(i64::MAX);

/// The use cases.
#[derive(Debug)]
pub struct Service {
    store: Arc<Store>,
    hub: Arc<Hub>,
    rules: Arc<Rules>,
    history_keep: Option<Ttl>,
    metrics: Arc<Metrics>,
    wake: SyncSender<()>,
    stopping: AtomicBool,
}

/// Who is there on a workspace.
#[derive(Debug)]
pub struct Presence {
    /// The live lock, with its holder and who knocked.
    pub lock: Option<Lock>,
    /// Who waits for it, in the order in which they will get it.
    pub waiting: Vec<Place>,
    /// Who follows its events by its name, at most [`FACES`].
    pub followers: Vec<Face>,
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
            opened_at: store.opened_at(),
            ..config.locks.rules.clone()
        });
        let service = Self {
            stopping: AtomicBool::new(false),
            history_keep: config.history.keep.map(Ttl::from_duration),
            wake,
            hub: Hub::new(Arc::clone(&store), Arc::clone(&rules), Arc::clone(&metrics)),
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

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Those who follow the events.
    #[must_use]
    pub const fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Somebody wants the lock of a workspace.
    pub fn acquire(
        &self,
        request: Acquire,
        reply: impl FnOnce(Result<At<Acquired>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let metrics = Arc::clone(&self.metrics);
        self.store.submit(
            move |write| locks::acquire(write, &request, &rules),
            move |answer| {
                if let Ok(acquired) = &answer {
                    metrics.acquisition(outcome_name(&acquired.value));
                }
                reply(answer);
            },
        );
    }

    /// Somebody wants the lock of a workspace, and waits for it if somebody else has it.
    pub fn acquire_waiting(self: &Arc<Self>, request: Acquire, wait: Ttl, client: Box<dyn Client>) {
        let store = Arc::clone(&self.store);
        let of = request.workspace_id.clone();
        client.when_gone(Box::new(move || {
            store.queue().somebody_left(&of);
            store.watch().ring();
        }));
        let client = Counted { client, metrics: Arc::clone(&self.metrics) };
        let waiter = Waiter::new(request, wait, Box::new(client));
        let rules = Arc::clone(&self.rules);
        let asks = Arc::clone(&waiter);
        self.store.submit(
            move |write| waiting::acquire(write, &asks, &rules),
            move |came| {
                waiter.answer(match came {
                    Ok(At { value: Came::Waits, .. }) => return,
                    Ok(At { now, value: Came::Answered(value) }) => Ok(At { now, value: *value }),
                    Ok(At { value: Came::TooMany, .. }) => Err(Error::TooMany(
                        "Too many are waiting for this lock, or in all. Try again in a moment.",
                    )),
                    Err(error) => Err(error),
                });
            },
        );
    }

    /// Somebody asks the holder for the lock.
    pub fn knock(&self, request: Ask, reply: impl FnOnce(Result<At<Asked>, Error>) + Send + 'static) {
        let rules = Arc::clone(&self.rules);
        self.store.submit(move |write| asking::ask(write, &request, &rules), reply);
    }

    /// The holder gives the lock to somebody.
    pub fn hand_over(
        &self,
        request: Reply,
        by: By,
        reply: impl FnOnce(Result<At<(Replied, Option<Lost>)>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        self.store.submit(move |write| asking::hand_over(write, &request, &by, &rules), reply);
    }

    /// The holder keeps the lock.
    pub fn decline(
        &self,
        request: Reply,
        by: By,
        reply: impl FnOnce(Result<At<(Replied, Option<Lost>)>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        self.store.submit(move |write| asking::decline(write, &request, &by, &rules), reply);
    }

    /// Holders renew their leases, all in one transaction. The answers come in the order of the requests.
    pub fn heartbeats(
        &self,
        requests: Vec<Heartbeat>,
        reply: impl FnOnce(Result<At<Vec<(Beat, Option<Lost>)>>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        self.store.submit(
            move |write| requests.iter().map(|request| locks::heartbeat(write, request, &rules)).collect(),
            reply,
        );
    }

    /// The holder renews the lease.
    pub fn heartbeat(
        &self,
        request: Heartbeat,
        reply: impl FnOnce(Result<At<(Beat, Option<Lost>)>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        self.store.submit(move |write| locks::heartbeat(write, &request, &rules), reply);
    }

    /// A lease is given back, or ended by an administrator.
    pub fn release(
        &self,
        request: Release,
        reply: impl FnOnce(Result<At<(Released, Option<Lost>)>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        self.store.submit(move |write| locks::release(write, &request, &rules), reply);
    }

    /// Ends all leases of a user, [`STEP`] a transaction. The reply is how many; when one step fails, those before it
    /// stay done and the error is the answer.
    pub fn release_user(
        self: &Arc<Self>,
        user_id: UserId,
        by: By,
        reply: impl FnOnce(Result<u32, Error>) + Send + 'static,
    ) {
        self.release_user_step(user_id, by, 0, reply);
    }

    fn release_user_step(
        self: &Arc<Self>,
        user_id: UserId,
        by: By,
        before: u32,
        reply: impl FnOnce(Result<u32, Error>) + Send + 'static,
    ) {
        let service = Arc::clone(self);
        let rules = Arc::clone(&self.rules);
        let (of, on_behalf) = (user_id.clone(), by.clone());
        self.store.submit(
            move |write| locks::release_user(write, &of, &on_behalf, &rules, STEP),
            move |answer| match answer.map(|answer| answer.value) {
                Ok(ReleasedSome { released, more: true }) => {
                    let reply: Box<dyn FnOnce(Result<u32, Error>) + Send> = Box::new(reply);
                    service.release_user_step(user_id, by, before.saturating_add(released), reply);
                }
                Ok(ReleasedSome { released, more: false }) => reply(Ok(before.saturating_add(released))),
                Err(error) => reply(Err(error)),
            },
        );
    }

    /// The live lock of a workspace, if there is one. What time has done to it is written down before anybody is told,
    /// so that no crash can undo it.
    pub fn lock(
        &self,
        workspace_id: WorkspaceId,
        reply: impl FnOnce(Result<At<Option<Lock>>, Error>) + Send + 'static,
    ) {
        let found = self.store.read(|connection, now| locks::get(connection, &workspace_id, now));
        match found {
            Ok(At { now, value: Found::Live(lock) }) => reply(Ok(At { now, value: Some(lock) })),
            Ok(At { now, value: Found::Free }) => reply(Ok(At { now, value: None })),
            Ok(At { now, value: Found::Due(lock) }) => {
                self.ask_for_a_sweep();
                let rules = Arc::clone(&self.rules);
                self.store.submit(
                    move |write| locks::settled(write, &workspace_id, &rules),
                    move |settled| {
                        reply(match settled {
                            // It has ended even if that cannot be written down just now.
                            Err(_) if !lock.is_live(now) => Ok(At { now, value: None }),
                            settled => settled,
                        });
                    },
                );
            }
            Err(error) => reply(Err(error)),
        }
    }

    /// Who is there on a workspace.
    pub fn presence(
        self: &Arc<Self>,
        workspace_id: WorkspaceId,
        reply: impl FnOnce(Result<At<Presence>, Error>) + Send + 'static,
    ) {
        let service = Arc::clone(self);
        let of = workspace_id.clone();
        self.lock(workspace_id, move |found| {
            reply(found.map(|At { now, value: lock }| {
                let mut waiting = service.store.queue().line(&of);
                waiting.retain(|place| place.is_there(now));
                let followers = service.hub.faces(&of, FACES);
                At { now, value: Presence { lock, waiting, followers } }
            }));
        });
    }

    /// Live locks, by workspace id, and whether there are more.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn locks(&self, listing: &Listing) -> Result<At<(Vec<Lock>, bool)>, Error> {
        self.store.read(|connection, now| locks::list(connection, listing, now))
    }

    /// The history of a workspace before revision `before`, newest first. An expiry that nobody has come across yet
    /// is written down first, so that it is not missing.
    pub fn history(
        self: &Arc<Self>,
        workspace_id: WorkspaceId,
        before: i64,
        limit: u32,
        reply: impl FnOnce(Result<Vec<Event>, Error>) + Send + 'static,
    ) {
        let found = self.store.read(|connection, now| locks::get(connection, &workspace_id, now));
        let service = Arc::clone(self);
        let of = workspace_id.clone();
        let read = move |settled: Result<(), Error>| {
            reply(settled.and_then(|()| {
                service
                    .store
                    .read(|connection, _| events::history(connection, &workspace_id, before, limit))
                    .map(|events| events.value)
            }));
        };
        match found.map(|found| found.value) {
            Ok(Found::Due(_)) => {
                let rules = Arc::clone(&self.rules);
                // Reads go on even if nothing can be written.
                self.store.submit(move |write| locks::settled(write, &of, &rules), |_| read(Ok(())));
            }
            Ok(Found::Live(_) | Found::Free) => read(Ok(())),
            Err(error) => read(Err(error)),
        }
    }

    /// Whether the store takes a write.
    pub fn ready(&self, reply: impl FnOnce(Result<(), Error>) + Send + 'static) {
        self.store.submit(
            |write| {
                write.touch();
                Ok(())
            },
            |done| reply(done.map(|_| ())),
        );
    }

    /// How many live locks there are.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn count_live(&self) -> Result<i64, Error> {
        self.store.read(locks::count_live).map(|count| count.value)
    }

    /// One step of the sweeper: clears away at most [`STEP`] expired leases. Returns how many.
    ///
    /// # Errors
    /// What keeps the store from writing.
    pub fn sweep_step(&self) -> Result<usize, Error> {
        let rules = Arc::clone(&self.rules);
        self.store.write(move |write| locks::sweep(write, &rules, STEP)).map(|swept| swept.value)
    }

    /// One step of the sweeper: forgets at most [`STEP`] events older than `history.keep`. Returns how many.
    ///
    /// # Errors
    /// What keeps the store from writing.
    pub fn trim_step(&self) -> Result<usize, Error> {
        let Some(keep) = self.history_keep else { return Ok(0) };
        self.store
            .write(move |write| {
                let before = Timestamp(write.now().0.saturating_sub(keep.as_millis()));
                events::trim(write, before, STEP)
            })
            .map(|trimmed| trimmed.value)
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
        self.store.close();
    }
}

/// Somebody who waits; what becomes of it is counted.
struct Counted {
    client: Box<dyn Client>,
    metrics: Arc<Metrics>,
}

impl Client for Counted {
    fn is_gone(&self) -> bool {
        self.client.is_gone()
    }

    fn when_gone(&self, callback: Box<dyn FnOnce() + Send>) {
        self.client.when_gone(callback);
    }

    fn answer(self: Box<Self>, answer: Result<At<Acquired>, Error>) {
        if let Ok(at) = &answer {
            self.metrics.acquisition(outcome_name(&at.value));
        }
        self.client.answer(answer);
    }
}

/// The label in the metrics.
const fn outcome_name(acquired: &Acquired) -> &'static str {
    match acquired {
        Acquired::Acquired(_) => "acquired",
        Acquired::Renewed(_) => "renewed",
        Acquired::Reclaimed(_) => "reclaimed",
        Acquired::TakenOver { .. } => "taken_over",
        Acquired::Held { .. } => "held",
        Acquired::FenceMismatch(_) => "fence_mismatch",
        Acquired::TakeoverForbidden(_) => "takeover_forbidden",
    }
}
