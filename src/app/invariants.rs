//! What must always be so of the data, looked for and put right. None of it happens by itself: a file that was edited by
//! hand, restored in part, or served under other settings than before can have it.

use std::sync::{Arc, TryLockError};

use super::Service;
use super::current::{apply, apply_due, must_end};
use crate::domain::access::Rules;
use crate::domain::event::{Author, Ending};
use crate::domain::rules::Change;
use crate::domain::{Fence, Lock, WorkspaceId};
use crate::error::Error;
use crate::store::{Rows, Store, WorkingSet};

/// Locks that are looked at in one read.
const PAGE: u32 = 500;
/// Violations of a kind that are put right in one check of the server, so that the answer has an end.
const CHECKED: usize = 500;
/// Locks that are put right in one transaction at most.
const REPAIRED: usize = 50;

/// What is not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// A lock whose holder is no editor or admin of the workspace, where they must be.
    HolderIsNoMember,
    /// A lock on a workspace that does not exist, where it must.
    NoSuchWorkspace,
    /// An expired row that was left.
    ExpiredLock,
    /// A fence above the fence counter: it could be given out again.
    FenceAboveCounter,
    /// The counter of locks is not the number of locks.
    WrongLockCount,
}

impl FindingKind {
    /// Every kind there is.
    pub const ALL: [Self; 5] = [
        Self::FenceAboveCounter,
        Self::ExpiredLock,
        Self::NoSuchWorkspace,
        Self::HolderIsNoMember,
        Self::WrongLockCount,
    ];

    /// The name in the API.
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

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What.
    pub kind: FindingKind,
    /// The lock that is concerned, if it is one: where, and its fence.
    pub lock: Option<(WorkspaceId, Fence)>,
}

/// Looks for what is not as it must be, and puts it right, until `most` were found of each kind. Tells `found` of each.
///
/// The search reads a page at a time, so that nothing is kept from being folded into the file meanwhile. The repairs go
/// through the writer in steps that hold up nobody. Each looks again: what has changed since it was read is left alone.
///
/// Not for a thread that others wait for.
///
/// # Errors
/// What SQLite refuses; [`Error::Stopping`] when `stops` says so. What was put right before stays so.
pub fn check(
    store: &Store,
    by: Option<&Author>,
    rules: &Arc<Rules>,
    most: usize,
    stops: impl Fn() -> bool,
    mut found: impl FnMut(Violation),
) -> Result<(), Error> {
    // From the writer: nothing that is given out later is above it. It also tells whether repairs can be made at all.
    let last_fence = store.write(|set| {
        set.touch();
        Ok(set.last_fence())
    })?;
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
            let step = store.write(move |set| repair(set, &here, by.as_ref(), &rules))?.value;
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

/// A page of the search.
struct SearchPage {
    /// What is wrong, as it was read.
    suspects: Vec<Violation>,
    /// After which workspace the next page begins, if there is one.
    next: Option<String>,
}

fn search(rows: &dyn Rows, after: &str, last_fence: Fence, rules: &Rules) -> Result<SearchPage, Error> {
    let locks = rows.locks_after(after, PAGE)?;
    let full = locks.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX);
    let next = locks.last().filter(|_| full).map(|lock| lock.workspace_id.as_str().to_owned());
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

/// Why this lock should not be there, if it should not.
fn wrong(rows: &(impl Rows + ?Sized), lock: &Lock, rules: &Rules) -> Result<Option<FindingKind>, Error> {
    if !lock.is_live(rows.now()) {
        return Ok(Some(FindingKind::ExpiredLock));
    }
    let ending = must_end(rows, lock, rules)?;
    let gone = Some(Ending::WorkspaceDeleted);
    Ok(ending
        .map(|_| if ending == gone { FindingKind::NoSuchWorkspace } else { FindingKind::HolderIsNoMember }))
}

/// What one step did.
struct Repaired {
    /// So many of the suspects were looked at.
    looked_at: usize,
    /// Those that were still wrong, and are no more.
    repaired: Vec<Violation>,
}

/// Looks at suspects again, as many as a step has time for, and puts right what is wrong.
fn repair(
    set: &WorkingSet<'_>,
    suspects: &[Violation],
    by: Option<&Author>,
    rules: &Rules,
) -> Result<Repaired, Error> {
    let step = set.step();
    let mut done = Repaired { looked_at: 0, repaired: Vec::new() };
    for suspect in suspects.iter().take(REPAIRED) {
        if done.looked_at > 0 && step.is_over() {
            break;
        }
        done.looked_at += 1;
        let Some((workspace_id, fence)) = &suspect.lock else { continue };
        let lock = set.lock(workspace_id)?;
        let Some(lock) = lock.filter(|lock| lock.fence == *fence) else { continue };
        match suspect.kind {
            FindingKind::FenceAboveCounter => raise_counter(set, lock, by, rules)?,
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

/// The next fence is above that of `lock`. A lease with a fence so great that none would be left above it ends; none was
/// ever given out.
fn raise_counter(set: &WorkingSet<'_>, lock: Lock, by: Option<&Author>, rules: &Rules) -> Result<(), Error> {
    if lock.fence <= set.last_fence() {
        // Another one of them has raised it.
        Ok(())
    } else if lock.fence.0 <= Fence::GREATEST_BY_CLOCK {
        set.give_fence(lock.fence)
    } else {
        apply(set, Change::End(lock, Ending::Revoked), by, rules)
    }
}

impl Service {
    /// Looks for what is not as it must be, and puts it right, at most 500 of a kind. One caller at a time.
    ///
    /// # Errors
    /// [`Error::Busy`] while another one is at it; what keeps the store from reading or writing.
    pub fn repair(&self, by: Option<&Author>) -> Result<Vec<Violation>, Error> {
        let _alone = match self.checking.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Error::Busy),
        };
        let mut found = Vec::new();
        let stops = || self.is_stopping();
        check(&self.store, by, &self.rules, CHECKED, stops, |violation| found.push(violation))?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::app::{locks, members};
    use crate::config::Config;
    use crate::domain::member::{Member, Membership, Role};
    use crate::domain::waitlist::WaitlistLimits;
    use crate::domain::{Acquire, UserId};
    use crate::metrics::Metrics;
    use crate::store::Options;
    use crate::time::{Clock, ManualClock, WallTime};

    /// A store in which nobody has named the workspaces whose locks alice has.
    fn with_strays(path: std::path::PathBuf, count: usize) -> (Store, Arc<Rules>) {
        let options = Options {
            path,
            busy_timeout: Duration::from_secs(5),
            max_size: None,
            restart_grace: Duration::ZERO,
            readers: 1,
            waiters: WaitlistLimits { per_workspace: 1, per_user: 1, in_all: 1 },
        };
        let clock = Clock::Manual(ManualClock::starting_at(WallTime(1_795_435_200_000)));
        let store = Store::open(&options, clock, &Arc::new(Metrics::default())).unwrap();
        let mut rules = Config::default().rules();
        rules.locks_per_user = u32::MAX;
        let open = rules.clone();
        store
            .write(move |set| {
                for number in 0..count {
                    let request = Acquire::of_nobody_else(named(number), UserId::parse("alice")?);
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
    fn all_pages_are_searched_and_at_most_so_many_of_a_kind_are_put_right() {
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
    fn what_has_changed_since_it_was_read_is_left_alone_and_a_step_is_short() {
        let directory = tempfile::tempdir().unwrap();
        let (store, rules) = with_strays(directory.path().join("lockhouse.db"), 200);
        let page = store.read(|rows| search(rows, "", Fence(i64::MAX), &rules)).unwrap().value;
        assert_eq!((page.suspects.len(), page.next), (200, None));
        let suspects = page.suspects;
        let (by_now, them) = (Arc::clone(&rules), suspects.clone());
        let step = store
            .write(move |set| {
                // The first is named, and alice may have it; the second she does not have any more, but bob has.
                for number in [0, 1] {
                    set.put_workspace(&named(number), None, false, set.wall())?;
                    for user in ["alice", "bob"] {
                        let member = Member { user_id: UserId::parse(user)?, role: Role::Editor };
                        members::put_member(set, &named(number), &member, None, &by_now)?;
                    }
                }
                members::remove_member(set, &named(1), &UserId::parse("alice")?, None, &by_now)?;
                locks::acquire(set, &Acquire::of_nobody_else(named(1), UserId::parse("bob")?), &by_now)?;
                repair(set, &them, None, &by_now)
            })
            .unwrap()
            .value;
        assert_eq!(step.looked_at, REPAIRED, "the others wait for the next step");
        assert_eq!(step.repaired, suspects[2..REPAIRED]);
        assert_eq!(store.read(|rows| rows.lock_count()).unwrap().value, 152);
    }
}
