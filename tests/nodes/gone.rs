//! A server that is killed, stopped, or cut off from the database. The others go on.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::eventually;
use crate::common::postgres::{Cluster, new_database};
use crate::common::process::Process;
use crate::common::proxy::Proxy;
use crate::world::{Roamer, Seen, Stopwatch, fence, lock_path, node, take_turn, usual_or_slow};

fn database(url: &lockhouse::config::Secret) -> &str {
    url.as_str().rsplit_once('/').unwrap().1
}

fn signal(node: &Process, name: &str) {
    assert!(Command::new("kill").args([name, &node.id().to_string()]).status().unwrap().success());
}

#[test]
fn after_a_kill_the_other_server_goes_on() {
    let url = new_database();
    let (dies, stays) = (node(&url, &[]), node(&url, &[]));
    let addresses = Mutex::new(vec![dies.address, stays.address]);
    let workspaces: Vec<Seen> = (0..8).map(|_| Seen::default()).collect();
    let (over, turns) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=8)
            .map(|user| {
                let (addresses, workspaces, over, turns) = (&addresses, &workspaces, &over, &turns);
                scope.spawn(move || {
                    let mut client = Roamer::new(addresses, user, &format!("user-{user}"));
                    while !over.load(Ordering::SeqCst) {
                        // Each has a workspace of its own, so all of them are in what the dead one had open.
                        let workspace = &workspaces[user - 1];
                        let got = take_turn(&mut client, user, &format!("w{user}"), workspace);
                        assert!(got, "user {user} alone uses this workspace");
                        turns.fetch_add(1, Ordering::SeqCst);
                    }
                    client.failed
                })
            })
            .collect();
        eventually(|| turns.load(Ordering::SeqCst) > 100);
        dies.kill();
        let killed = Stopwatch::start();
        stays.user("new").acquire("elsewhere", &json!({})).expect(200);
        let answered = killed.ms();
        for user in 1..=8 {
            // A wait holds the key no longer than the transaction of the dead one.
            let path = lock_path(&format!("w{user}"));
            eventually(|| {
                let status = stays.user("auditor").post(&format!("{path}/heartbeat"), &json!({})).status;
                status == 404 || status == 409
            });
        }
        let opened = killed.ms();
        println!("killed: the other answers after {answered} ms, and for what was open after {opened} ms");
        assert!(answered < 10_000 && opened < 20_000, "{answered} {opened}");
        let before = turns.load(Ordering::SeqCst);
        eventually(|| turns.load(Ordering::SeqCst) > before + 100);
        over.store(true, Ordering::SeqCst);
        let failed: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(failed > 0, "nobody was connected to the server that was killed");
    });
}

#[test]
fn a_server_that_was_stopped_for_longer_than_a_lease_does_not_renew_it() {
    let url = new_database();
    let (sleeps, stays) = (node(&url, &[]), node(&url, &[]));
    let mut alice = sleeps.user("alice");
    // The lease is shorter than the timeouts, or longer than they are.
    let ttl = usual_or_slow(1_000, 15_000);
    let before = fence(&alice.acquire("w", &json!({ "ttl_ms": ttl })).expect(200));
    signal(&sleeps, "-STOP");
    let body = json!({ "fence": before }).to_string();
    let heartbeat = format!(
        "POST {}/heartbeat HTTP/1.1\r\nHost: test\r\nX-User-Id: alice\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        lock_path("w"),
        body.len()
    );
    alice.send(heartbeat.as_bytes());
    let mut bob = stays.user("bob");
    let mut got = Value::Null;
    eventually(|| {
        let answer = bob.acquire("w", &json!({}));
        got = answer.json();
        answer.status == 200
    });
    assert!(fence(&got) > before);
    signal(&sleeps, "-CONT");
    let status = alice.receive("POST").unwrap().status;
    assert!([403, 404].contains(&status), "{status}");
    let mut next = 0;
    eventually(|| {
        let answer = sleeps.user("carol").acquire("other", &json!({}));
        next = answer.json()["lock"]["fence"].as_i64().unwrap_or(0);
        answer.status == 200
    });
    assert!(next > fence(&got));
    assert_eq!(stays.user("bob").lock("w")["locked_by_user_id"], "bob");
}

#[test]
fn a_server_that_is_cut_off_says_so_decides_nothing_and_comes_back_by_itself() {
    let url = new_database();
    let proxy = Proxy::before(Cluster::of_this_process());
    let cut_off = node(&proxy.url(database(&url)), &[]);
    let stays = node(&url, &[]);
    let mut alice = cut_off.user("alice");
    let alices = fence(&alice.acquire("w", &json!({ "ttl_ms": 2_000 })).expect(200));
    eventually(|| cut_off.user("probe").get("/readyz").status == 200);
    proxy.stall();
    let began = Stopwatch::start();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let mut statuses = Vec::new();
            while !over.load(Ordering::SeqCst) {
                statuses.push(cut_off.user("mallory").acquire("w", &json!({})).status);
                std::thread::park_timeout(Duration::from_millis(100));
            }
            statuses
        });
        eventually(|| {
            let mut probe = cut_off.user("probe");
            probe.try_request("GET", "/readyz", &[], b"").is_ok_and(|answer| answer.status == 503)
        });
        let noticed = began.ms();
        println!("cut off: /readyz is 503 after {noticed} ms");
        assert!(noticed < 15_000);
        cut_off.user("probe").get("/healthz").expect(200);
        let mut got = Value::Null;
        eventually(|| {
            let answer = stays.user("bob").acquire("w", &json!({}));
            got = answer.json();
            answer.status == 200
        });
        assert!(fence(&got) > alices);
        let status = cut_off.user("alice").heartbeat("w", &json!({ "fence": alices })).status;
        assert_eq!(status, 503);
        over.store(true, Ordering::SeqCst);
        let statuses = asks.join().unwrap();
        assert!(statuses.contains(&503) && !statuses.contains(&200), "{statuses:?}");
    });
    proxy.go_on();
    let back = Stopwatch::start();
    eventually(|| {
        cut_off.user("probe").get("/readyz").status == 200
            && cut_off.user("carol").acquire("other", &json!({})).status == 200
    });
    println!("cut off: back {} ms after the network is", back.ms());
    let status = cut_off.user("alice").heartbeat("w", &json!({ "fence": alices })).status;
    assert!([403, 404].contains(&status), "{status}");
    assert_eq!(cut_off.user("bob").lock("w")["locked_by_user_id"], "bob");
}
