//! Check and repair of the data's invariants. Normal operation does not break them. A file that was edited by
//! hand, restored in part, or served with other settings before can.

use std::sync::{Arc, TryLockError};

use super::Service;
use super::current::{apply, apply_due, must_end};
use crate::domain::access::Rules;
use crate::domain::event::{Author, Ending};
use crate::domain::rules::Change;
use crate::domain::{Fence, Lock, WorkspaceId};
use crate::error::Error;
use crate::store::{Rows, Store, WorkingSet};

/// Number of locks per read.
const PAGE_ROWS: u32 = 500;
/// Maximum number of violations of one kind that one check repairs, so that the answer is bounded.
const MAX_VIOLATIONS: usize = 500;
/// Maximum number of locks that one transaction repairs.
const REPAIRS_PER_STEP: usize = 50;

/// Kind of violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// The holder of the lock is not an editor or admin of the workspace, but membership is enforced.
    HolderIsNoMember,
    /// The workspace of the lock does not exist, but membership is enforced.
    NoSuchWorkspace,
    /// An expired row was not removed.
    ExpiredLock,
    /// The fence of a lock is above the fence counter, so it could be assigned again.
    FenceAboveCounter,
    /// The lock counter differs from the number of locks. Only SQLite has one.
    WrongLockCount,
}

impl FindingKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::FenceAboveCounter,
        Self::ExpiredLock,
        Self::NoSuchWorkspace,
        Self::HolderIsNoMember,
        Self::WrongLockCount,
    ];

    /// Name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HolderIsNoMember => "holder_is_no_member",
            Self::NoSuchWorkspace => "no_such_workspace",
            Self::ExpiredLock => "expired_lock",
            Self::FenceAboveCounter => "fence_above_counter",
            Self::WrongLockCount => "wrong_lock_count",
        }
    }
}

/// Violation of an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Kind of the violation.
    pub kind: FindingKind,
    /// Workspace and fence of the affected lock, if a lock is affected.
    pub lock: Option<(WorkspaceId, Fence)>,
}

/// Searches for violations and repairs them, at most `most` of each kind. Calls `found` for each repaired
/// violation.
///
/// The search reads one page at a time, so that it does not block checkpoints. The repairs go through the
/// writer in short steps that do not delay other writes. Each repair checks the row again and skips it if it
/// has changed.
///
/// This call blocks for long. Do not call it on a thread that serves other work.
///
/// # Errors
/// An error of SQLite. [`Error::Stopping`] when `stops` returns true. Earlier repairs stay committed.
pub fn check(
    store: &Store,
    by: Option<&Author>,
    rules: &Arc<Rules>,
    most: usize,
    stops: impl Fn() -> bool,
    mut found: impl FnMut(Violation),
) -> Result<(), Error> {
    // The fence counter as the writer holds it. The write also shows whether repairs are possible.
    let last_fence = store.write(|set| {
        set.force_write();
        Ok(set.last_fence())
    })?;
    let mut raised = None;
    let mut counts = FindingKind::ALL.map(|kind| (kind, 0));
    let mut after = String::new();
    loop {
        if stops() {
            return Err(Error::Stopping);
        }
        let page = store.read(|rows| search(rows, &after, last_fence.value, rules))?.value;
        let mut suspects = page.suspects;
        suspects.retain(|suspect| {
            let count = counts.iter_mut().find(|(kind, _)| *kind == suspect.kind);
            count.is_some_and(|(_, count)| {
                *count += 1;
                *count <= most
            })
        });
        while !suspects.is_empty() {
            let (by, rules, here) = (by.cloned(), Arc::clone(rules), suspects.clone());
            let step = store.write(move |set| repair(set, &here, raised, by.as_ref(), &rules))?.value;
            raised = raised.max(step.raised);
            step.repaired.into_iter().for_each(&mut found);
            suspects.drain(..step.looked_at.min(suspects.len()));
        }
        match page.next {
            Some(next) if counts.iter().any(|(_, count)| *count < most) => after = next,
            Some(_) | None => break,
        }
    }
    if !store.read(|rows| rows.counted_locks())?.value.1 {
        store.write(|set| {
            set.set_lock_count(set.counted_locks()?.0);
            Ok(())
        })?;
        found(Violation { kind: FindingKind::WrongLockCount, lock: None });
    }
    Ok(())
}

/// Searches for violations without repairing them. Calls `found` for each.
///
/// # Errors
/// An error of the store when it cannot read.
pub fn look(
    rows: &dyn Rows,
    last_fence: Fence,
    rules: &Rules,
    mut found: impl FnMut(Violation),
) -> Result<(), Error> {
    let mut after = String::new();
    loop {
        let page = search(rows, &after, last_fence, rules)?;
        page.suspects.into_iter().for_each(&mut found);
        let Some(next) = page.next else { break };
        after = next;
    }
    if !rows.counted_locks()?.1 {
        found(Violation { kind: FindingKind::WrongLockCount, lock: None });
    }
    Ok(())
}

/// Page of the search.
struct SearchPage {
    /// Violations as read.
    suspects: Vec<Violation>,
    /// Workspace after which the next page begins; `None` on the last page.
    next: Option<String>,
}

fn search(rows: &dyn Rows, after: &str, last_fence: Fence, rules: &Rules) -> Result<SearchPage, Error> {
    let locks = rows.locks_after(after, PAGE_ROWS)?;
    let limit_reached = locks.len() >= usize::try_from(PAGE_ROWS).unwrap_or(usize::MAX);
    let next = locks.last().filter(|_| limit_reached).map(|lock| lock.workspace_id.as_str().to_owned());
    let mut suspects = Vec::new();
    for lock in locks {
        let Lock { workspace_id, fence, .. } = &lock;
        let violation = |kind| Violation { kind, lock: Some((workspace_id.clone(), *fence)) };
        if lock.fence > last_fence {
            suspects.push(violation(FindingKind::FenceAboveCounter));
        }
        suspects.extend(wrong(rows, &lock, rules)?.map(violation));
    }
    Ok(SearchPage { suspects, next })
}

/// Kind of violation of this lock, if its row should not exist.
fn wrong(rows: &(impl Rows + ?Sized), lock: &Lock, rules: &Rules) -> Result<Option<FindingKind>, Error> {
    if !lock.is_live(rows.now()) {
        return Ok(Some(FindingKind::ExpiredLock));
    }
    let ending = must_end(rows, lock, rules)?;
    let gone = Some(Ending::WorkspaceDeleted);
    Ok(ending
        .map(|_| if ending == gone { FindingKind::NoSuchWorkspace } else { FindingKind::HolderIsNoMember }))
}

/// Result of one repair step.
struct RepairStep {
    /// Number of suspects that were checked.
    looked_at: usize,
    /// Violations that were confirmed and repaired.
    repaired: Vec<Violation>,
    /// The highest fence to which a repair raised the counter.
    raised: Option<Fence>,
}

/// Checks suspects again, within the time of one step, and repairs confirmed violations. `raised` is the highest fence
/// to which an earlier repair raised the counter.
fn repair(
    set: &WorkingSet<'_>,
    suspects: &[Violation],
    raised: Option<Fence>,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<RepairStep, Error> {
    let step = set.step_budget();
    let mut done = RepairStep { looked_at: 0, repaired: Vec::new(), raised };
    for suspect in suspects.iter().take(REPAIRS_PER_STEP) {
        if done.looked_at > 0 && step.is_over() {
            break;
        }
        done.looked_at += 1;
        let Some((workspace_id, fence)) = &suspect.lock else { continue };
        let lock = set.lock(workspace_id)?;
        let Some(lock) = lock.filter(|lock| lock.fence == *fence) else { continue };
        match suspect.kind {
            FindingKind::FenceAboveCounter if lock.fence > set.last_fence() => {
                done.raised = done.raised.max(raise_counter(set, lock, by, rules)?);
            }
            // A repair has covered it. Otherwise the lock was granted after the counter was read.
            FindingKind::FenceAboveCounter if Some(lock.fence) <= done.raised => {}
            FindingKind::FenceAboveCounter => continue,
            kind if wrong(&**set, &lock, rules)? != Some(kind) => continue,
            FindingKind::ExpiredLock => drop(apply_due(set, workspace_id, rules)?),
            FindingKind::HolderIsNoMember | FindingKind::NoSuchWorkspace => {
                let Some(ending) = must_end(&**set, &lock, rules)? else { continue };
                apply(set, Change::End(lock, ending), by, rules)?;
            }
            FindingKind::WrongLockCount => continue,
        }
        done.repaired.push(suspect.clone());
    }
    Ok(done)
}

/// Raises the fence counter to the fence of `lock`, and returns that fence. A lease whose fence is too great to leave
/// room above is ended instead. The server never assigns such a fence.
fn raise_counter(
    set: &WorkingSet<'_>,
    lock: Lock,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<Option<Fence>, Error> {
    let fence = lock.fence;
    if fence.0 > Fence::GREATEST_BY_CLOCK {
        apply(set, Change::End(lock, Ending::Revoked), by, rules)?;
        return Ok(None);
    }
    set.give_fence(fence)?;
    Ok(Some(fence))
}

impl Service {
    /// Searches for violations and repairs them, at most 500 of each kind. One caller at a time.
    ///
    /// # Errors
    /// [`Error::Busy`] while another check runs. An error of the store when it cannot read or write.
    pub fn repair(&self, by: Option<&Author>) -> Result<Vec<Violation>, Error> {
        let _alone = match self.checking.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Error::Busy),
        };
        let mut found = Vec::new();
        let stops = || self.is_stopping();
        check(&self.store, by, &self.rules, MAX_VIOLATIONS, stops, |violation| found.push(violation))?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::app::{locks, members};
    use crate::config::Config;
    use crate::domain::access::Membership;
    use crate::domain::member::{Member, Role};
    use crate::domain::waitlist::WaitlistLimits;
    use crate::domain::{Acquire, UserId};
    use crate::metrics::Metrics;
    use crate::store::Options;
    use crate::time::{Clock, ManualClock, WallTime};

    /// Store with locks of alice on workspaces that do not exist.
    fn with_strays(path: std::path::PathBuf, count: usize) -> (Store, Arc<Rules>) {
        let options = Options {
            url: None,
            path,
            busy_timeout: Duration::from_secs(5),
            max_size: None,
            restart_grace: Duration::ZERO,
            readers: 1,
            waiters: WaitlistLimits { per_workspace: 1, per_user: 1, total: 1 },
        };
        let clock = Clock::Manual(ManualClock::starting_at(WallTime(1_795_435_200_000)));
        let store = Store::open(&options, clock, &Arc::new(Metrics::default())).unwrap();
        let mut rules = Config::default().rules();
        rules.kinds.edit.locks_per_user = u32::MAX;
        let open = rules.clone();
        store
            .write(move |set| {
                for number in 0..count {
                    let request = Acquire::new(named(number), UserId::parse("alice")?);
                    locks::acquire(set, &request, &open)?;
                }
                Ok(())
            })
            .unwrap();
        rules.membership = Membership::Enforced;
        (store, Arc::new(rules))
    }

    fn named(number: usize) -> WorkspaceId {
        WorkspaceId::parse(&format!("w{number:04}")).unwrap()
    }

    #[test]
    fn the_check_reads_all_pages_and_limits_repairs_of_each_kind() {
        let directory = tempfile::tempdir().unwrap();
        let (store, rules) = with_strays(directory.path().join("lockhouse.db"), 1_234);
        let mut found = Vec::new();
        check(&store, None, &rules, 700, || false, |violation| found.push(violation)).unwrap();
        assert_eq!(found.len(), 700);
        assert_eq!(store.read(|rows| rows.lock_count()).unwrap().value, 534);
        check(&store, None, &rules, usize::MAX, || false, |violation| found.push(violation)).unwrap();
        let workspaces: Vec<_> =
            found.iter().map(|violation| violation.lock.as_ref().unwrap().0.clone()).collect();
        assert_eq!(workspaces, (0..1_234).map(named).collect::<Vec<_>>());
        assert!(found.iter().all(|violation| violation.kind == FindingKind::NoSuchWorkspace));
        let stopped = check(&store, None, &rules, 1, || true, |_| panic!("it was stopped"));
        assert_eq!(stopped, Err(Error::Stopping));
    }

    #[test]
    fn rows_changed_since_they_were_read_are_not_repaired() {
        let directory = tempfile::tempdir().unwrap();
        let (store, rules) = with_strays(directory.path().join("lockhouse.db"), 200);
        let page = store.read(|rows| search(rows, "", Fence(i64::MAX), &rules)).unwrap().value;
        assert_eq!((page.suspects.len(), page.next), (200, None));
        let suspects = page.suspects;
        let (by_now, them) = (Arc::clone(&rules), suspects.clone());
        let step = store
            .write(move |set| {
                // The first workspace now exists with alice as a member. On the second, bob has replaced
                // alice.
                for number in [0, 1] {
                    set.put_workspace(&named(number), None, false, set.wall())?;
                    for user in ["alice", "bob"] {
                        let member = Member { user_id: UserId::parse(user)?, role: Role::Editor };
                        members::put_member(set, &named(number), &member, None, &by_now)?;
                    }
                }
                members::remove_member(set, &named(1), &UserId::parse("alice")?, None, &by_now)?;
                locks::acquire(set, &Acquire::new(named(1), UserId::parse("bob")?), &by_now)?;
                repair(set, &them, None, None, &by_now)
            })
            .unwrap()
            .value;
        assert_eq!(step.looked_at, REPAIRS_PER_STEP, "the others wait for the next step");
        assert_eq!(step.repaired, suspects[2..REPAIRS_PER_STEP]);
        assert_eq!(store.read(|rows| rows.lock_count()).unwrap().value, 152);
    }

    #[test]
    fn a_lock_granted_during_a_check_is_no_violation() {
        let directory = tempfile::tempdir().unwrap();
        let (store, rules) = with_strays(directory.path().join("lockhouse.db"), 0);
        let rules = Arc::new(Rules { membership: Membership::Open, ..(*rules).clone() });
        // `stops` is asked after the counter is read and before the rows are.
        let grant = || {
            let rules = Arc::clone(&rules);
            let request = Acquire::new(named(0), UserId::parse("alice").unwrap());
            store.write(move |set| locks::acquire(set, &request, &rules)).unwrap();
            false
        };
        check(&store, None, &rules, 10, grant, |violation| panic!("{violation:?}")).unwrap();
        assert_eq!(store.read(|rows| rows.lock_count()).unwrap().value, 1);
    }
}
