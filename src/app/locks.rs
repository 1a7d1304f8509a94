//! Locks: acquire, wait, renew, release, ask, read.

use std::sync::Arc;

use super::{STEP, Service};
use crate::domain::access::Privilege;
use crate::domain::event::{Event, Lost};
use crate::domain::handoff::{Ask, Asked, Replied, Reply};
use crate::domain::member::{Actor, Need};
use crate::domain::{Acquire, Acquired, Authority, Heartbeat, Lock, Release, Released, UserId, WorkspaceId};
use crate::error::{Denied, Error, Limit};
use crate::events::presence::PresentUser;
use crate::metrics::Metrics;
use crate::store::audit::{self, Filter};
use crate::store::events::Author;
use crate::store::listing::{self, Listed, Listing};
use crate::store::locks::{Beaten, Found, ReleasedSome};
use crate::store::queue::{Client, Place, Waiter};
use crate::store::tokens::Lasts;
use crate::store::waiting::{self, Came};
use crate::store::{AsOf, Write, events, handoff, locks, workspaces};
use crate::time::Ttl;

/// Most people who follow a workspace that are shown.
pub const MAX_PRESENT_USERS: usize = 500;

/// Who is there on a workspace.
#[derive(Debug)]
pub struct WorkspacePresence {
    /// The live lock, with its holder and who knocked.
    pub lock: Option<Lock>,
    /// Who waits for it, in the order in which they will get it.
    pub waiting: Vec<Place>,
    /// Who follows its events by its name, at most [`MAX_PRESENT_USERS`].
    pub followers: Vec<PresentUser>,
}

impl Service {
    /// Somebody wants the lock of a workspace.
    pub fn acquire(
        &self,
        actor: Actor,
        request: Acquire,
        reply: impl FnOnce(Result<AsOf<Acquired>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let metrics = Arc::clone(&self.metrics);
        self.submit_as(
            actor,
            request.workspace_id.clone(),
            Need::Edit,
            move |write, standing| locks::acquire(write, &Acquire { standing, ..request.clone() }, &rules),
            move |answer| {
                count(&metrics, &answer);
                reply(answer);
            },
        );
    }

    /// Somebody wants the lock of a workspace, and waits for it if somebody else has it.
    pub fn acquire_waiting(
        self: &Arc<Self>,
        actor: Actor,
        request: Acquire,
        wait: Ttl,
        lasts: Lasts,
        client: Box<dyn Client>,
    ) {
        let store = Arc::clone(&self.store);
        let of = request.workspace_id.clone();
        client.when_gone(Box::new(move || {
            store.queue().somebody_left(&of);
            store.notifier().wake();
        }));
        let workspace_id = request.workspace_id.clone();
        let client = Counted { client, metrics: Arc::clone(&self.metrics) };
        let waiter = Waiter::new(request, wait.min(self.max_wait), lasts, Box::new(client));
        let rules = Arc::clone(&self.rules);
        let asks = Arc::clone(&waiter);
        self.submit_as(
            actor,
            workspace_id,
            Need::Edit,
            move |write, standing| waiting::acquire(write, &asks, standing, &rules),
            move |came| {
                waiter.answer(match came {
                    Ok(AsOf { value: Came::Waits, .. }) => return,
                    Ok(AsOf { now, value: Came::Answered(value) }) => Ok(AsOf { now, value: *value }),
                    Ok(AsOf { value: Came::Full(limit), .. }) => Err(Error::TooMany(limit)),
                    Err(error) => Err(error),
                });
            },
        );
    }

    /// Somebody asks the holder for the lock.
    pub fn knock(
        &self,
        actor: Actor,
        request: Ask,
        reply: impl FnOnce(Result<AsOf<Asked>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let workspace_id = request.workspace_id.clone();
        let metrics = Arc::clone(&self.metrics);
        let work = move |write: &Write<'_>, _| handoff::ask(write, &request, &rules);
        self.submit_as(actor, workspace_id, Need::Edit, work, move |answer| {
            match answer.as_ref().map(|asked| &asked.value) {
                Ok(Asked::TooSoon { .. }) => metrics.limited(Limit::KnockAgain),
                Ok(Asked::TooMany) => metrics.limited(Limit::Knocks),
                Ok(Asked::Heard(_) | Asked::NoLock | Asked::Own(_)) | Err(_) => {}
            }
            reply(answer);
        });
    }

    /// The holder gives the lock to somebody.
    pub fn hand_over(
        &self,
        actor: Actor,
        request: Reply,
        by: Author,
        reply: impl FnOnce(Result<AsOf<(Replied, Option<Lost>)>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let claim = request.claim.clone();
        let work = move |write: &Write<'_>| handoff::hand_over(write, &request, &by, &rules);
        self.submit_as_holder(actor, claim, work, |lost| (Replied::NoLock, Some(lost)), reply);
    }

    /// The holder keeps the lock.
    pub fn decline(
        &self,
        actor: Actor,
        request: Reply,
        by: Author,
        reply: impl FnOnce(Result<AsOf<(Replied, Option<Lost>)>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let claim = request.claim.clone();
        let work = move |write: &Write<'_>| handoff::decline(write, &request, &by, &rules);
        self.submit_as_holder(actor, claim, work, |lost| (Replied::NoLock, Some(lost)), reply);
    }

    /// Holders renew their leases, all in one transaction. The answers come in the order of the requests.
    pub fn heartbeats(
        &self,
        actor: Actor,
        requests: Vec<Heartbeat>,
        reply: impl FnOnce(Result<AsOf<Vec<Result<Beaten, Denied>>>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let beat = move |write: &Write<'_>, request: &Heartbeat| {
            let workspace_id = &request.claim.workspace_id;
            match workspaces::may(write.connection(), &actor, workspace_id, Need::See, &rules)? {
                Ok(_) => locks::heartbeat(write, request, &rules).map(Ok),
                Err(denied) => {
                    let turned_out = workspaces::turned_out(write, &request.claim)?;
                    Ok(turned_out.map(Beaten::lost).ok_or(denied))
                }
            }
        };
        self.store.submit(move |write| requests.iter().map(|request| beat(write, request)).collect(), reply);
    }

    /// The holder renews the lease.
    pub fn heartbeat(
        &self,
        actor: Actor,
        request: Heartbeat,
        reply: impl FnOnce(Result<AsOf<Beaten>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let claim = request.claim.clone();
        let work = move |write: &Write<'_>| locks::heartbeat(write, &request, &rules);
        self.submit_as_holder(actor, claim, work, Beaten::lost, reply);
    }

    /// A lease is given back, or ended by an administrator.
    pub fn release(
        &self,
        actor: Actor,
        request: Release,
        reply: impl FnOnce(Result<AsOf<(Released, Option<Lost>)>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let claim = request.claim.clone();
        if request.authority == Authority::Holder {
            let work = move |write: &Write<'_>| locks::release(write, &request, &rules);
            return self.submit_as_holder(actor, claim, work, |lost| (Released::Nothing, Some(lost)), reply);
        }
        let work = move |write: &Write<'_>, standing| {
            let may = standing >= Privilege::WorkspaceAdmin;
            let authority = if may { Authority::Administrator } else { Authority::Holder };
            locks::release(write, &Release { authority, ..request.clone() }, &rules)
        };
        self.submit_as(actor, claim.workspace_id, Need::Revoke, work, reply);
    }

    /// Ends all leases of a user, a step a transaction. The reply is how many; when one step fails, those before it stay
    /// done and the error is the answer.
    pub fn release_user(
        self: &Arc<Self>,
        user_id: UserId,
        by: Author,
        reply: impl FnOnce(Result<u32, Error>) + Send + 'static,
    ) {
        let (user_id, by) = (Arc::new(user_id), Arc::new(by));
        Releasing { service: Arc::clone(self), user_id, by, released: 0, reply: Box::new(reply) }.step(None);
    }

    /// The live lock of a workspace, if there is one. What time has done to it is written down before anybody is told,
    /// so that no crash can undo it.
    ///
    /// # Errors
    /// What keeps the store from reading, or from writing that down.
    pub fn lock(&self, workspace_id: &WorkspaceId) -> Result<AsOf<Option<Lock>>, Error> {
        let AsOf { now, value } = self.peek(workspace_id)?;
        match value {
            Found::Live(lock) => Ok(AsOf { now, value: Some(lock) }),
            Found::Free => Ok(AsOf { now, value: None }),
            Found::Due(_) => {
                self.ask_for_a_sweep();
                let (rules, of) = (Arc::clone(&self.rules), workspace_id.clone());
                self.store.write(move |write| locks::settled(write, &of, &rules))
            }
        }
    }

    /// The lock of a workspace as it stands there: nothing is written.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn peek(&self, workspace_id: &WorkspaceId) -> Result<AsOf<Found>, Error> {
        self.store.read_locks(|read| locks::get(read, workspace_id))
    }

    /// Who is there on a workspace.
    ///
    /// # Errors
    /// As [`Self::lock`].
    pub fn presence(&self, workspace_id: &WorkspaceId) -> Result<AsOf<WorkspacePresence>, Error> {
        let AsOf { now, value: lock } = self.lock(workspace_id)?;
        let mut waiting = self.store.queue().line(workspace_id);
        waiting.retain(|place| place.waits(now));
        let followers = self.followers(workspace_id)?;
        Ok(AsOf { now, value: WorkspacePresence { lock, waiting, followers } })
    }

    /// Who follows the events of a workspace, and is told them.
    fn followers(&self, workspace_id: &WorkspaceId) -> Result<Vec<PresentUser>, Error> {
        let mut faces = self.broadcaster.presence(workspace_id, MAX_PRESENT_USERS);
        if faces.iter().any(|face| face.is_member) {
            let members = self.store.read(|connection, _| {
                let is_member = |face: &PresentUser| {
                    Ok(workspaces::role(connection, workspace_id, &face.user_id)?.is_some())
                };
                faces.iter().map(is_member).collect::<Result<Vec<_>, Error>>()
            })?;
            let mut are_members = members.value.into_iter();
            faces.retain(|face| are_members.next() == Some(true) || !face.is_member);
        }
        Ok(faces)
    }

    /// A page of live locks, by workspace id.
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn locks(&self, listing: &Listing) -> Result<AsOf<Listed>, Error> {
        self.store.read_locks(|read| listing::list(read, listing))
    }

    /// The history of all workspaces that `actor` may see now: the events before revision `before` that `filter` lets
    /// through, newest first. May wait for the writer: expiries that are due are written down first, up to [`STEP`].
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn whole_history(
        &self,
        actor: &Actor,
        filter: &Filter,
        before: i64,
        limit: usize,
    ) -> Result<audit::Page, Error> {
        let is_due = |connection: &_, now| Ok(locks::next_due(connection)?.is_some_and(|due| due <= now));
        if self.store.read(is_due)?.value {
            // Reads go on even if nothing can be written.
            let _ = self.sweep_step(STEP);
        }
        let rules = &self.rules;
        self.store
            .read(|connection, _| audit::page(connection, actor, filter, before, limit, rules))
            .map(|page| page.value)
    }

    /// The history of a workspace before revision `before`, newest first. An expiry that nobody has come across yet
    /// is written down first, so that it is not missing. Of a workspace that was deleted since, only administrators see it.
    ///
    /// # Errors
    /// What the store cannot read. Reads go on even if nothing can be written.
    pub fn history(
        &self,
        actor: &Actor,
        workspace_id: &WorkspaceId,
        before: i64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        if let Found::Due(_) = self.peek(workspace_id)?.value {
            let (rules, of) = (Arc::clone(&self.rules), workspace_id.clone());
            let settled = self.store.write(move |write| locks::settled(write, &of, &rules));
            settled.map_or_else(|error| log::debug!("an expiry is not in the history yet: {error}"), drop);
        }
        let read = |connection: &_| {
            let is_admin = actor.standing == Privilege::Administrator;
            let after = if is_admin { 0 } else { events::last_deletion(connection, workspace_id)? };
            events::history(connection, workspace_id, after, before, limit)
        };
        self.store.read(|connection, _| read(connection)).map(|events| events.value)
    }
}

/// All leases of a user are being ended, on somebody's behalf.
struct Releasing {
    service: Arc<Service>,
    user_id: Arc<UserId>,
    by: Arc<Author>,
    released: u32,
    reply: Box<dyn FnOnce(Result<u32, Error>) + Send>,
}

impl Releasing {
    /// Goes on after this workspace.
    fn step(mut self, after: Option<WorkspaceId>) {
        let service = Arc::clone(&self.service);
        let rules = Arc::clone(&service.rules);
        let (user_id, by) = (Arc::clone(&self.user_id), Arc::clone(&self.by));
        service.store.submit(
            move |write| {
                let after = after.as_ref().map_or("", WorkspaceId::as_str);
                locks::release_user(write, &user_id, &by, &rules, after)
            },
            move |answer| match answer.map(|answer| answer.value) {
                Ok(ReleasedSome { released, after }) => {
                    self.released = self.released.saturating_add(released);
                    if after.is_some() { self.step(after) } else { (self.reply)(Ok(self.released)) }
                }
                Err(error) => (self.reply)(Err(error)),
            },
        );
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

    fn answer(self: Box<Self>, answer: Result<AsOf<Acquired>, Error>) {
        count(&self.metrics, &answer);
        self.client.answer(answer);
    }
}

/// Counts what became of an attempt to acquire.
fn count(metrics: &Metrics, answer: &Result<AsOf<Acquired>, Error>) {
    match answer {
        Ok(AsOf { value, .. }) => metrics.acquisition(outcome_name(value)),
        Err(Error::TooMany(limit)) => metrics.limited(*limit),
        Err(_) => {}
    }
    if matches!(answer, Ok(AsOf { value: Acquired::TooMany, .. })) {
        metrics.limited(Limit::Locks);
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
        Acquired::TooMany => "too_many",
    }
}
