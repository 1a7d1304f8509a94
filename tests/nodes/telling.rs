//! What one server does is heard at the others. Servers are replaced under load.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::postgres::{Cluster, new_database};
use crate::common::process::Process;
use crate::common::{eventually, metric_at};
use crate::world::{Roamer, Seen, Stopwatch, fence, lock_path, node, take_turn, usual_or_slow};

/// Follows the events of a server: workspace and fence of each lease that begins, in order.
fn follow(node: &Process) -> impl FnMut() -> (String, i64) + use<> {
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET /api/v1/events HTTP/1.0\r\nX-User-Id: follower\r\n\r\n").unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with(": still here") {
        line.clear();
        stream.read_line(&mut line).unwrap();
    }
    move || loop {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream has ended");
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let event: Value = serde_json::from_str(data).unwrap();
        if event["type"] == "lock.acquired" {
            return (event["workspace_id"].as_str().unwrap().to_owned(), fence(&event));
        }
    }
}

#[test]
fn an_event_of_one_server_is_heard_at_the_other() {
    let url = new_database();
    let (tells, hears) = (node(&url, &[]), node(&url, &[]));
    let mut next = follow(&hears);
    let mut alice = tells.user("alice");
    // The first answer waits for the document that answers are held against.
    alice.get("/healthz").expect(200);
    let mut took = Vec::new();
    for _ in 0..usual_or_slow(60, 1_000) {
        let began = Stopwatch::start();
        let told = fence(&alice.acquire("w", &json!({})).expect(200));
        assert_eq!(next().1, told);
        took.push(began.ms());
        alice.delete(&lock_path("w")).expect(200);
    }
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!("events: heard after {} ms (half), {} ms (99 %), {} ms (all)", at(50), at(99), at(100));
    assert!(at(50) < 900, "notifications do not arrive: {took:?}");
}

#[test]
fn connections_that_postgresql_ends_are_replaced_and_no_event_is_missed_or_told_twice() {
    let url = new_database();
    let (_, database) = url.as_str().rsplit_once('/').unwrap();
    let (tells, hears) = (node(&url, &[]), node(&url, &[]));
    let mut next = follow(&hears);
    let mut alice = tells.user("alice");
    alice.get("/healthz").expect(200);
    let addresses = Mutex::new(vec![tells.address, hears.address]);
    let workspaces: Vec<Seen> = (0..6).map(|_| Seen::default()).collect();
    let (over, turns, mut worst) = (AtomicBool::new(false), AtomicUsize::new(0), 0);
    let end_all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'lockhouse'";
    std::thread::scope(|scope| {
        // Commits in doubt are among theirs, and each is answered as it went.
        for user in 1..=6 {
            let (addresses, workspaces, over, turns) = (&addresses, &workspaces, &over, &turns);
            scope.spawn(move || {
                let mut client = Roamer::new(addresses, user, &format!("user-{user}"));
                while !over.load(Ordering::SeqCst) {
                    assert!(take_turn(&mut client, user, &format!("w{user}"), &workspaces[user - 1]));
                    turns.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 0..usual_or_slow(6, 100) {
            let before = turns.load(Ordering::SeqCst);
            eventually(|| turns.load(Ordering::SeqCst) > before + 12);
            let ended = Cluster::of_this_process().sql(database, end_all);
            assert!(ended.trim().parse::<u32>().unwrap() >= 2, "the connections of two servers: {ended}");
            let began = Stopwatch::start();
            for _ in 0..5 {
                let told = fence(&alice.acquire("w", &json!({})).expect(200));
                // The events of the others come in between.
                let mut event = next();
                while event.0 != "w" {
                    event = next();
                }
                assert_eq!(event.1, told, "round {round}");
                worst = worst.max(began.ms());
                alice.delete(&lock_path("w")).expect(200);
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    println!("connections ended: heard within {worst} ms");
    assert!(worst < 15_000);
}

#[test]
fn servers_are_replaced_under_load_without_a_failed_request() {
    let url = new_database();
    let mut nodes = vec![node(&url, &[]), node(&url, &[])];
    let addresses = Mutex::new(nodes.iter().map(|node| node.address).collect::<Vec<_>>());
    let workspaces: Vec<Seen> = (0..8).map(|_| Seen::default()).collect();
    let (over, turns, waits) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for user in 1..=8 {
            let (addresses, workspaces, over, turns) = (&addresses, &workspaces, &over, &turns);
            scope.spawn(move || {
                let mut client = Roamer::new(addresses, user, &format!("user-{user}"));
                while !over.load(Ordering::SeqCst) {
                    assert!(take_turn(&mut client, user, &format!("w{user}"), &workspaces[user - 1]));
                    turns.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for user in 0..2 {
            let (addresses, over, waits) = (&addresses, &over, &waits);
            scope.spawn(move || {
                let mut client = Roamer::new(addresses, user, &format!("waiter-{user}"));
                while !over.load(Ordering::SeqCst) {
                    // Told to ask again by a server that stops.
                    let body = json!({ "wait_ms": 20_000 });
                    client.insist("POST", &lock_path("contended"), &body).expect(200);
                    client.insist("DELETE", &lock_path("contended"), &Value::Null);
                    waits.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 0..usual_or_slow(3, 10) {
            let before = turns.load(Ordering::SeqCst);
            eventually(|| turns.load(Ordering::SeqCst) > before + 40);
            // As a load balancer does: the new one is there before the old one leaves.
            nodes.push(node(&url, &[]));
            let leaves = nodes.remove(0);
            *addresses.lock().unwrap() = nodes.iter().map(|node| node.address).collect();
            let (code, log) = leaves.terminate();
            assert_eq!(code, Some(0), "round {round}: {log}");
            assert!(!log.contains("panicked"), "{log}");
        }
        over.store(true, Ordering::SeqCst);
    });
    println!("{} turns, {} waits", turns.load(Ordering::SeqCst), waits.load(Ordering::SeqCst));
    assert!(waits.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_snapshot_that_is_held_open_stops_nothing() {
    let url = new_database();
    let (_, database) = url.as_str().rsplit_once('/').unwrap();
    let cluster = Cluster::of_this_process();
    let nodes = [node(&url, &[]), node(&url, &[])];
    let mut clients = nodes.each_ref().map(|node| node.user("alice"));
    let lease = fence(&clients[0].acquire("w", &json!({})).expect(200));
    let held = cluster
        .hold(database, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM locks");
    let ages =
        || nodes.each_ref().map(|node| metric_at(node.address, "lockhouse_postgres_oldest_transaction_age"));
    let (began, duration) = (Stopwatch::start(), usual_or_slow(3_000, 180_000));
    let mut renewed = 0;
    while began.ms() < duration || renewed < 100 {
        for client in &mut clients {
            client.heartbeat("w", &json!({ "fence": lease })).expect(200);
            renewed += 1;
        }
    }
    // Each node has made some transactions since, and shows it.
    assert!(ages().iter().all(|age| *age >= 100.0), "{:?}", ages());
    drop(held);
    eventually(|| ages().iter().all(|age| *age < 100.0));
    println!("{renewed} heartbeats beside a snapshot");
}
