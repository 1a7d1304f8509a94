//! The store: failing use cases, busy and full databases, retention.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use common::held::{self, Held};
use common::{NOON, Server, eventually, options};
use lockhouse::app::locks;
use lockhouse::config::Config;
use lockhouse::domain::token::{Scope, Token};
use lockhouse::domain::{
    Acquire, Acquired, Activity, Claim, Heartbeat, HeartbeatOutcome, UserId, WorkspaceId,
};
use lockhouse::error::Error;
use lockhouse::metrics::Metrics;
use lockhouse::store::listing::{FoundLocks, LockQuery};
use lockhouse::store::{Keys, Store, WorkingSet};
use lockhouse::time::{Clock, ManualClock, Ttl};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A new, empty store, its clock, and the directory of its file.
fn open() -> (Store, Arc<ManualClock>, TempDir) {
    let (directory, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(NOON));
    let options = options(directory.path());
    let store =
        Store::open(&options, Clock::Manual(Arc::clone(&clock)), &Arc::new(Metrics::default())).unwrap();
    (store, clock, directory)
}

fn wish(workspace: &str, user: &str, ttl_ms: Option<i64>) -> Acquire {
    let (workspace_id, user_id) = (WorkspaceId::parse(workspace).unwrap(), UserId::parse(user).unwrap());
    Acquire { ttl: ttl_ms.map(Ttl::from_millis), ..Acquire::new(workspace_id, user_id) }
}

type Job = Box<dyn Fn(&WorkingSet<'_>) -> Result<i64, Error> + Send>;

/// Fills a batch: the writer is kept busy while `jobs` gather behind it.
fn together(store: &Store, jobs: Vec<Job>) -> Vec<Result<i64, Error>> {
    let gate = Arc::new(Barrier::new(2));
    let (opened, once) = (Arc::clone(&gate), AtomicBool::new(true));
    store.submit(
        Keys::default(),
        move |_| {
            // It may be in the same batch as the following jobs, and run again with them.
            if once.swap(false, Ordering::SeqCst) {
                opened.wait();
            }
            Ok(())
        },
        |_| {},
    );
    let (sender, receiver) = mpsc::channel();
    let count = jobs.len();
    for (number, job) in jobs.into_iter().enumerate() {
        let sender = sender.clone();
        store.submit(Keys::default(), job, move |answer| {
            sender.send((number, answer.map(|at| at.value))).unwrap();
        });
    }
    gate.wait();
    let mut answers: Vec<_> = receiver.into_iter().take(count).collect();
    answers.sort_by_key(|(number, _)| *number);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// A token of this number. There can be only one.
fn note(set: &WorkingSet<'_>, number: u8) -> Result<i64, Error> {
    let token = Token {
        is_agent: false,
        token_id: number.to_string(),
        scope: Scope::Read,
        user_id: None,
        name: None,
        created_at: NOON,
        expires_at: None,
        last_used_at: None,
    };
    set.create_token(&token, &[number; 32])?;
    Ok(number.into())
}

#[test]
fn a_failed_use_case_does_not_affect_its_batch() {
    let (store, _, _directory) = open();
    let answers = together(
        &store,
        vec![
            Box::new(|set| note(set, 1)),
            Box::new(|set| note(set, 2).and_then(|_| note(set, 2))),
            Box::new(|set| note(set, 3)),
            Box::new(|set| {
                note(set, 4)?;
                panic!("a defect in a use case (this line belongs to a test)")
            }),
            Box::new(|set| note(set, 5)),
        ],
    );
    assert_eq!((&answers[0], &answers[2], &answers[4]), (&Ok(1), &Ok(3), &Ok(5)));
    assert!(
        matches!(&answers[1], Err(Error::Internal(cause)) if cause.to_lowercase().contains("unique")),
        "{:?}",
        answers[1]
    );
    assert!(matches!(&answers[3], Err(Error::Internal(_))), "{:?}", answers[3]);
    let kept = store.read(|rows| rows.tokens("", 9)).unwrap().value;
    let kept: Vec<_> = kept.into_iter().map(|token| token.token_id).collect();
    assert_eq!(kept, ["1", "3", "5"], "each is there once, and nothing of those that failed");
}

#[test]
fn fences_grow_after_a_rollback() {
    let (store, _, _directory) = open();
    let given = |set: &WorkingSet<'_>| {
        let fence = set.moment().next_fence;
        set.give_fence(fence)?;
        Ok(fence.0)
    };
    let answers = together(
        &store,
        vec![
            Box::new(given),
            Box::new(move |set| {
                given(set)?;
                Err(Error::Internal("rolled back".to_owned()))
            }),
            Box::new(given),
        ],
    );
    let (first, third) = (answers[0].clone().unwrap(), answers[2].clone().unwrap());
    assert!(third > first, "{first} {third}");
    let next = store.write(given).unwrap().value;
    assert!(next > third);
}

#[test]
fn a_database_locked_by_another_process_is_busy() {
    let server = Server::with(held::hardly_wait);
    let mut alice = server.user("alice");
    let fence = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    let held = Held::on(&server);
    let answer = alice.heartbeat("w", &json!({ "fence": fence }));
    answer.refused(503, "busy");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(alice.lock("w")["fence"], fence, "reads go on");
    drop(held);
    alice.heartbeat("w", &json!({ "fence": fence })).expect(200);
}

#[test]
fn a_full_file_refuses_writes_and_allows_reads() {
    let server = Server::on_sqlite(|config| config.database.max_size = Some(256 * 1024));
    let mut alice = server.user("alice");
    let metadata = json!({ "blob": "m".repeat(4_000) });
    let mut granted = 0;
    let full = loop {
        let answer = alice.acquire(&format!("w{granted}"), &json!({ "metadata": metadata }));
        if answer.status != 200 {
            break answer;
        }
        granted += 1;
        assert!(granted < 200, "it never gets full");
    };
    full.refused(507, "storage_full");
    assert!(granted > 10, "{granted}");
    alice.get("/readyz").refused(507, "storage_full");
    server.pass(60_000);
    assert_eq!(alice.get("/readyz").status, 200, "which does not need much room");
    assert_eq!(alice.lock(&format!("w{granted}")), Value::Null, "what was refused is not there");
    assert_eq!(alice.lock("w3")["locked_by_user_id"], "alice");
    assert_eq!(alice.history("w3").len(), 1);
    // Releasing makes room.
    assert_eq!(alice.delete("/api/v1/users/alice/locks").expect(200)["released"], granted);
    alice.acquire("again", &json!({ "metadata": metadata })).expect(200);
    assert!(std::fs::metadata(server.database()).unwrap().len() <= 256 * 1024);
}

#[test]
fn a_full_disk_of_postgresql_refuses_writes_and_allows_reads() {
    let server = Server::on_postgres();
    let mut alice = server.user("alice");
    let fence = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    held::fill_disk(&server);
    alice.acquire("v", &json!({})).refused(507, "storage_full");
    alice.heartbeat("w", &json!({ "fence": fence })).refused(507, "storage_full");
    alice.get("/readyz").refused(507, "storage_full");
    assert_eq!(alice.lock("w")["fence"], fence);
    assert_eq!(alice.lock("v"), Value::Null);
    held::free_disk(&server);
    alice.heartbeat("w", &json!({ "fence": fence })).expect(200);
    server.pass(60_000);
    assert_eq!(alice.get("/readyz").status, 200);
}

#[test]
fn history_is_kept_for_the_configured_time() {
    let server = Server::with(|config| config.history.keep = Some(Duration::from_secs(3_600)));
    let mut alice = server.user("alice");
    for number in 0..600 {
        alice.acquire(&format!("old{number}"), &json!({ "ttl_ms": 1_000 })).expect(200);
    }
    server.pass(1_000);
    eventually(|| locks(&server) == 0);
    assert_eq!(server.sweep().events, 0);
    server.pass(3_599_000);
    alice.acquire("young", &json!({})).expect(200);
    assert_eq!(server.sweep().events, 0);
    server.pass(1_001);
    assert_eq!(server.sweep().events, 1_200, "more than one step, and the expiries too");
    assert_eq!(alice.history("old3"), []);
    assert_eq!(alice.history("young").len(), 1);
    let revision = |client: &mut common::Client| {
        client.get("/api/v1/workspaces/young/history").expect(200)["events"][0]["revision"].as_i64().unwrap()
    };
    assert_eq!(revision(&mut alice), 1_201);
    server.pass(7_200_000);
    server.sweep();
    assert_eq!(alice.history("young"), []);
    alice.acquire("young", &json!({})).expect(200);
    assert_eq!(revision(&mut alice), 1_203, "a revision is never used twice, even when nothing is left");
}

#[test]
fn leases_end_on_time_without_timer_and_sweeper() {
    let (store, clock, _directory) = open();
    let rules = Arc::new(Config::default().rules());
    let by = Arc::clone(&rules);
    store
        .write(move |set| {
            for number in 0..20 {
                locks::acquire(set, &wish(&format!("w{number}"), "alice", Some(1_000)), &by)?;
            }
            Ok(())
        })
        .unwrap();
    clock.advance(Duration::from_secs(1));
    let all = LockQuery { limit: 100, ..LockQuery::default() };
    let nothing = FoundLocks { locks: Vec::new(), next: None };
    assert_eq!(store.read(|rows| rows.list_locks(&all)).unwrap().value, nothing);
    let claim = Claim {
        is_agent: false,
        workspace_id: WorkspaceId::parse("w1").unwrap(),
        user_id: UserId::parse("alice").unwrap(),
        session_id: None,
        fence: None,
    };
    let beat = Heartbeat { claim, ttl: None, activity: Activity::Idle };
    let by = Arc::clone(&rules);
    let beaten = store.write(move |set| locks::heartbeat(set, &beat, &by)).unwrap().value.beat;
    assert_eq!(beaten, HeartbeatOutcome::NoLock);
    let bobs = store.write(move |set| locks::acquire(set, &wish("w3", "bob", None), &rules)).unwrap();
    assert!(matches!(bobs.value, Acquired::Acquired(_)), "{bobs:?}");
    let left = store.read(|rows| rows.lock_count()).unwrap().value;
    assert_eq!(left, 19, "the rows that nobody touched lie there, and nobody sees them; and bob's");
}

#[test]
fn ended_leases_are_removed_without_followers_or_requests() {
    let server = Server::start();
    assert_eq!(server.config.sweeper.interval, None);
    let mut alice = server.user("alice");
    for number in 0..900 {
        alice.acquire(&format!("w{number}"), &json!({ "ttl_ms": 1_000 })).expect(200);
    }
    alice.acquire("long", &json!({})).expect(200);
    server.pass(500);
    for number in 0..10 {
        alice.heartbeat(&format!("w{number}"), &json!({ "ttl_ms": 1_000 })).expect(200);
    }
    server.pass(500);
    eventually(|| locks(&server) == 11);
    assert!(alice.get("/metrics").text().contains("lockhouse_live_locks 11\n"));
    server.pass(500);
    eventually(|| locks(&server) == 1);
    assert_eq!(alice.lock("long")["locked_by_user_id"], "alice");
}

fn locks(server: &Server) -> i64 {
    server.query("SELECT count(*) FROM locks").trim().parse().unwrap()
}
