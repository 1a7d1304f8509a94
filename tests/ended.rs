//! A lease that an answer has shown as ended stays ended, also after a crash; and the grace of live leases at a restart.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{NOON, Server, options, postgres};
use lockhouse::app::locks::{self, StoredLock};
use lockhouse::app::release_user;
use lockhouse::app::{current, handoff};
use lockhouse::config::Config;
use lockhouse::domain::access::Rules;
use lockhouse::domain::event::Author;
use lockhouse::domain::handoff::{KnockRequest, Knocked};
use lockhouse::domain::token::Validity;
use lockhouse::domain::{Acquire, Acquired, Lock, LockKind, UserId, WorkspaceId};
use lockhouse::error::Error;
use lockhouse::metrics::Metrics;
use lockhouse::store::listing::LockQuery;
use lockhouse::store::{Options, Rows, Store};
use lockhouse::time::{Clock, ManualClock, Ttl};
use serde_json::{Value, json};
use tempfile::TempDir;

const GRACE: u64 = 30_000;

/// A database of either engine.
struct Database {
    _directory: TempDir,
    options: Options,
}

impl Database {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { options: options(directory.path()), _directory: directory }
    }

    fn on_sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { options: Options { url: None, ..options(directory.path()) }, _directory: directory }
    }

    fn open(&self, clock: &Arc<ManualClock>) -> Store {
        let clock = Clock::Manual(Arc::clone(clock));
        Store::open(&self.options, clock, &Arc::new(Metrics::default())).unwrap()
    }

    /// A copy of the database as a crash of the server would leave it now.
    fn crash(&self) -> Self {
        let mut after = Self::on_sqlite();
        if let Some(url) = &self.options.url {
            after.options.url = Some(postgres::copy_of(url));
            return after;
        }
        for file in ["lockhouse.db", "lockhouse.db-wal"] {
            // Not by this process: closing the file would take SQLite's locks away.
            let [from, to] = [self, &after].map(|database| database.options.path.with_file_name(file));
            let copied = std::process::Command::new("cp").arg(&from).arg(to).status().unwrap();
            assert!(copied.success(), "{}", from.display());
        }
        after
    }

    /// The server crashes, and another one starts some seconds later.
    fn open_after_crash(&self, clock: &Arc<ManualClock>) -> (Store, Self) {
        let after = self.crash();
        // For a shorter time PostgreSQL takes the time over without a grace.
        clock.advance(Duration::from_secs(3));
        (after.open(clock), after)
    }
}

fn workspace(name: &str) -> WorkspaceId {
    WorkspaceId::parse(name).unwrap()
}

fn wish(name: &str, user: &str, ttl_ms: i64) -> Acquire {
    let user_id = UserId::parse(user).unwrap();
    Acquire { ttl: Some(Ttl::from_millis(ttl_ms)), ..Acquire::new(workspace(name), user_id) }
}

fn acquire(store: &Store, request: Acquire, rules: Rules) -> Acquired {
    store.write(move |set| locks::acquire(set, &request, &rules)).unwrap().value
}

fn live(store: &Store, name: &str) -> Option<Lock> {
    match store.read(|rows| locks::stored_lock(rows, &workspace(name))).unwrap().value {
        StoredLock::Live(lock) => Some(lock),
        StoredLock::Due(_) | StoredLock::Free => None,
    }
}

/// Alice's lease of one second ends, `answer` shows that, and after a crash it is still ended.
#[track_caller]
fn stays_ended(rules: Rules, answer: impl FnOnce(&Store)) {
    let (database, clock) = (Database::new(), ManualClock::starting_at(NOON));
    let store = database.open(&clock);
    acquire(&store, wish("w", "alice", 1_000), rules);
    clock.advance(Duration::from_secs(1));
    answer(&store);
    let (store, _after) = database.open_after_crash(&clock);
    assert_eq!(live(&store, "w"), None, "it was said to be over");
}

fn rules() -> Rules {
    Config::default().rules()
}

fn nothing_is_shown(rows: &dyn Rows) -> Result<(), Error> {
    let all = LockQuery { limit: 9, ..LockQuery::default() };
    assert_eq!(rows.list_locks(&all)?.locks, []);
    Ok(())
}

#[test]
fn a_lease_read_as_ended_stays_ended_after_a_crash() {
    stays_ended(rules(), |store| assert_eq!(live(store, "w"), None));
    stays_ended(rules(), |store| {
        store.read(nothing_is_shown).unwrap();
    });
    // An event carries the lock that it started, if that still exists.
    stays_ended(rules(), |store| {
        let read = |rows: &dyn Rows| {
            assert_eq!(rows.events_after(0, 9)?.len(), 1);
            Ok(rows.lock(&workspace("w"))?.filter(|lock| lock.is_live(rows.now())))
        };
        assert_eq!(store.read(read).unwrap().value, None);
    });
}

#[test]
fn a_lease_no_longer_counted_stays_ended_after_a_crash() {
    let mut one = rules();
    one.kinds.edit.locks_per_user = 1;
    stays_ended(one.clone(), |store| {
        let second = acquire(store, wish("v", "alice", 1_000), one);
        assert!(matches!(second, Acquired::Acquired(_)), "{second:?}");
    });
}

#[test]
fn a_granted_knock_is_not_undone_by_a_crash() {
    let (database, clock) = (Database::new(), ManualClock::starting_at(NOON));
    let store = database.open(&clock);
    acquire(&store, wish("w", "alice", 600_000), rules());
    let ask = KnockRequest {
        kind: LockKind::Edit,
        for_name: None,
        validity: Validity::Unlimited,
        workspace_id: workspace("w"),
        user_id: UserId::parse("bob").unwrap(),
        name: None,
        session_id: None,
        message: None,
    };
    let heard = store.write(move |set| handoff::knock(set, &ask, &rules())).unwrap().value;
    assert!(matches!(heard, Knocked::Pending(_)), "{heard:?}");
    clock.advance(Duration::from_secs(30));
    assert_eq!(live(&store, "w"), None, "alice has it no more");
    let (store, _after) = database.open_after_crash(&clock);
    assert_eq!(live(&store, "w"), None);
    let rules = rules();
    let now = store.write(move |set| current::load_current(set, &workspace("w"), &rules)).unwrap().value;
    assert_eq!(now.unwrap().user_id.as_str(), "bob");
}

#[test]
fn releasing_all_locks_of_a_user_includes_due_grants() {
    let (database, clock) = (Database::new(), ManualClock::starting_at(NOON));
    let store = database.open(&clock);
    acquire(&store, wish("w", "alice", 600_000), rules());
    let bob = UserId::parse("bob").unwrap();
    let ask = KnockRequest {
        kind: LockKind::Edit,
        for_name: None,
        validity: Validity::Unlimited,
        workspace_id: workspace("w"),
        user_id: bob.clone(),
        name: None,
        session_id: None,
        message: None,
    };
    store.write(move |set| handoff::knock(set, &ask, &rules())).unwrap();
    clock.advance(Duration::from_secs(30));
    let by = Author { user_id: bob.clone(), name: None, reason: None };
    let some = store
        .write(move |set| release_user::release_user(set, &bob, &[LockKind::Edit], &by, &rules(), ""))
        .unwrap()
        .value;
    assert_eq!(some, release_user::ReleaseStep { released: 1, after: None });
    let now = store.write(|set| current::load_current(set, &workspace("w"), &rules())).unwrap().value;
    assert_eq!(now, None, "neither has it");
}

/// With PostgreSQL the end of the lease may have been written down: that is done each second.
#[test]
fn a_lease_not_yet_read_as_ended_has_the_grace_after_a_crash() {
    let (database, clock) = (Database::on_sqlite(), ManualClock::starting_at(NOON));
    let store = database.open(&clock);
    acquire(&store, wish("w", "alice", 1_000), rules());
    clock.advance(Duration::from_secs(1));
    let (store, _after) = database.open_after_crash(&clock);
    assert_eq!(live(&store, "w").map(|lock| lock.user_id.as_str().to_owned()), Some("alice".to_owned()));
}

#[test]
fn two_restarts_within_one_grace_keep_each_lease() {
    let mut server = Server::start();
    let mut alice = server.user("alice");
    alice.acquire("old", &json!({ "ttl_ms": 5_000 })).expect(200);
    alice.acquire("over", &json!({ "ttl_ms": 1_000 })).expect(200);
    server.pass(1_000);
    assert_eq!(alice.lock("over"), Value::Null);
    server.restart();
    let mut alice = server.user("alice");
    assert_eq!(alice.lock("old")["expires_in_ms"], GRACE);
    assert_eq!(alice.lock("over"), Value::Null);
    alice.acquire("young", &json!({ "ttl_ms": 1_000 })).expect(200);
    alice.acquire("kept", &json!({ "ttl_ms": 20_000 })).expect(200);
    assert_eq!(alice.lock("young")["expires_in_ms"], 1_000, "what begins after a restart is not stretched");
    server.pass(10_000);
    assert_eq!(alice.lock("young"), Value::Null);
    server.stop();
    server.pass(60_000);
    server.start_again();
    let mut alice = server.user("alice");
    for name in ["old", "kept"] {
        assert_eq!(alice.lock(name)["expires_in_ms"], GRACE, "{name}");
    }
    for name in ["over", "young"] {
        assert_eq!(alice.lock(name), Value::Null, "{name}");
    }
    let fence = alice.lock("old")["fence"].clone();
    alice.heartbeat("old", &json!({ "fence": fence, "ttl_ms": 1_000 })).expect(200);
    server.pass(GRACE);
    for name in ["old", "kept"] {
        assert_eq!(alice.lock(name), Value::Null, "{name}: the grace has an end");
    }
}

#[test]
fn starting_rewrites_no_lease() {
    let mut server = Server::start();
    let mut alice = server.user("alice");
    for number in 0..50 {
        alice.acquire(&format!("w{number}"), &json!({ "ttl_ms": 1_000 })).expect(200);
    }
    let rows = |server: &Server| {
        server.query("SELECT workspace_id, expires_at, run, check_at FROM locks ORDER BY workspace_id")
    };
    let before = rows(&server);
    server.restart();
    assert_eq!(rows(&server), before);
    server.pass(10_000);
    assert_eq!(server.user("alice").lock("w7")["expires_in_ms"], GRACE - 10_000);
    // The leases that are checked at their former end stay, and are checked again at their new end.
    let check_at = |row: &str| row.rsplit('|').next().unwrap().parse::<i64>().unwrap();
    let former = before.lines().map(check_at).max();
    common::eventually(|| rows(&server).lines().map(check_at).min() > former);
    server.pass(GRACE - 10_000);
    common::eventually(|| rows(&server).is_empty());
}
