//! A store without SQL, for the decisions of the domain.

use std::collections::HashMap;

use lockhouse::domain::access::Rules;
use lockhouse::domain::event::Ending;
use lockhouse::domain::grace::{RestartGrace, Run};
use lockhouse::domain::rules::{self, Change};
use lockhouse::domain::{Fence, LastLease, Lock, Moment, WorkspaceState};
use lockhouse::time::{Timestamp, Ttl};

#[derive(Clone)]
pub struct World {
    /// With the run of the server in which each was written.
    rows: HashMap<usize, (Lock, Run)>,
    grace: RestartGrace,
    last: HashMap<usize, LastLease>,
    /// Of each workspace, so that one does not see what happens on another.
    fences: HashMap<usize, i64>,
    /// When the server started last.
    pub opened_at: i64,
}

impl World {
    pub fn new() -> Self {
        let (rows, last, fences) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { rows, grace: RestartGrace::none(), last, fences, opened_at: 0 }
    }

    /// The server was there at `last_seen` for the last time, and starts again.
    pub fn restart(&mut self, last_seen: i64, now: i64, grace: i64) {
        let recorded = self.grace.restarts().to_vec();
        let run = Run(self.grace.run().0 + 1);
        let (last_seen, grace) = (Timestamp(last_seen), Ttl::from_millis(grace));
        self.grace = RestartGrace::at_start(recorded, run, last_seen, Timestamp(now), grace);
        self.opened_at = now;
    }

    /// The row, as the store reads it.
    fn row(&self, at: usize) -> Option<Lock> {
        let (lock, run) = self.rows.get(&at)?;
        let mut lock = lock.clone();
        for at in [&mut lock.knocks.grant_at, &mut lock.knocks.grant_at_latest].into_iter().flatten() {
            *at = self.grace.apply(*run, *at);
        }
        lock.expires_at = self.grace.apply(*run, lock.expires_at);
        Some(lock)
    }

    fn put(&mut self, at: usize, lock: Lock) {
        self.rows.insert(at, (lock, self.grace.run()));
    }

    fn remove(&mut self, at: usize) -> Option<Lock> {
        let row = self.row(at);
        self.rows.remove(&at);
        row
    }

    /// The workspace after all due changes.
    pub fn now(&mut self, at: usize, rules: &Rules, now: i64) -> WorkspaceState {
        while let Some(lock) = self.row(at) {
            let change = rules::due(&lock, None, rules, self.moment(at, now));
            if change == Change::Nothing {
                return WorkspaceState::Locked(lock);
            }
            self.apply(at, change);
        }
        WorkspaceState::Free { last: self.last.get(&at).cloned() }
    }

    /// The lock at this time. Changes nothing.
    pub fn seen(&self, at: usize, rules: &Rules, now: i64) -> Option<Lock> {
        match self.clone().now(at, rules, now) {
            WorkspaceState::Locked(lock) => Some(lock),
            WorkspaceState::Free { .. } => None,
        }
    }

    pub fn moment(&self, at: usize, now: i64) -> Moment {
        Moment { now: Timestamp(now), opened_at: Timestamp(self.opened_at), next_fence: self.next_fence(at) }
    }

    /// The next fence. It grows even if the wall clock stands still.
    pub fn next_fence(&self, at: usize) -> Fence {
        Fence(self.fences.get(&at).copied().unwrap_or_default() + 1)
    }

    pub fn apply(&mut self, at: usize, change: Change) {
        match change {
            Change::Nothing => {}
            Change::Grant(lock) => {
                assert!(!self.rows.contains_key(&at), "a lease begins where there is none");
                self.begin(at, lock);
            }
            Change::TakeOver { previous, lock, .. } | Change::HandOver { previous, lock, .. } => {
                assert_eq!(self.remove(at).as_ref(), Some(&previous), "what ended was there");
                self.begin(at, lock);
            }
            Change::Reclaim(lock) => {
                assert!(!self.rows.contains_key(&at), "a lease begins where there is none");
                self.put(at, lock);
            }
            Change::Extend(lock) => {
                let before = self.row(at);
                let Lock { renewed_at, last_active_at, expires_at, ttl, .. } = lock;
                let only_times =
                    before.map(|before| Lock { renewed_at, last_active_at, expires_at, ttl, ..before });
                assert_eq!(only_times.as_ref(), Some(&lock), "nothing but the times changes");
                self.put(at, lock);
            }
            Change::Renew(lock)
            | Change::Postpone(lock)
            | Change::Knock(lock, _)
            | Change::UpdateKnock(lock)
            | Change::Decline(lock, _) => {
                assert_eq!(self.row(at).map(|before| before.fence), Some(lock.fence), "it is the same lease");
                self.put(at, lock);
            }
            Change::End(lock, ending) => {
                assert_eq!(self.remove(at).as_ref(), Some(&lock), "what ended was there");
                let ended_at = if ending == Ending::Expired { lock.expires_at } else { Timestamp(0) };
                let last = LastLease {
                    kind: lock.kind,
                    drain_until: lock.drain_after(ending),
                    user_id: lock.user_id,
                    session_id: lock.session_id,
                    fence: lock.fence,
                    ending,
                    ended_at,
                };
                self.last.insert(at, last);
            }
        }
    }

    fn begin(&mut self, at: usize, lock: Lock) {
        assert!(lock.fence >= self.next_fence(at), "a new lease has a fence above every other");
        self.fences.insert(at, lock.fence.0);
        self.put(at, lock);
    }
}
