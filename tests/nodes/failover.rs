//! A standby takes over. The address of the database names both.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use lockhouse::config::Secret;
use serde_json::{Value, json};

use crate::common::eventually;
use crate::common::postgres::Cluster;
use crate::common::process::Process;
use crate::world::{Roamer, fence, lock_path, node};

struct Pair {
    primary: Cluster,
    standby: Cluster,
    url: Secret,
}

impl Pair {
    fn start() -> Self {
        let primary = Cluster::start("-c wal_level=replica");
        primary.sql("postgres", "CREATE DATABASE locks");
        let standby = primary.standby();
        let url = format!("postgres://lockhouse@{},{}/locks", primary.host(), standby.host());
        let pair = Self { primary, standby, url: Secret::from(url.as_str()) };
        pair.is_streaming();
        pair
    }

    fn is_streaming(&self) {
        let caught_up = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
        eventually(|| self.primary.sql("postgres", caught_up).trim() == "1");
    }

    fn promote(&self) {
        assert_eq!(self.standby.sql("postgres", "SELECT pg_promote(true, 60)").trim(), "t");
    }
}

/// Waits until the node takes locks again.
fn is_back(node: &Process) {
    eventually(|| {
        let mut client = node.user("probe");
        let asked = client.try_request("POST", &lock_path("probe"), &[], b"");
        asked.is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_synchronous_standby_has_each_lock_that_was_acknowledged() {
    let pair = Pair::start();
    pair.primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
    pair.primary.sql("postgres", "SELECT pg_reload_conf()");
    let is_sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    eventually(|| pair.primary.sql("postgres", is_sync).trim() == "1");
    let nodes = [node(&pair.url, &[]), node(&pair.url, &[])];
    let addresses = Mutex::new(nodes.iter().map(|node| node.address).collect::<Vec<_>>());
    let over = AtomicBool::new(false);
    let acknowledged = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for user in 0..6 {
            let (addresses, over, acknowledged) = (&addresses, &over, &acknowledged);
            scope.spawn(move || {
                let mut client = Roamer::new(addresses, user, &format!("user-{user}"));
                for round in 0.. {
                    let workspace = format!("w{user}-{round}");
                    let answer = client.insist("POST", &lock_path(&workspace), &Value::Null).expect(200);
                    acknowledged.lock().unwrap().push((user, workspace, fence(&answer)));
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
        }
        eventually(|| acknowledged.lock().unwrap().len() > 100);
        pair.primary.kill();
        pair.promote();
        let before = acknowledged.lock().unwrap().len();
        eventually(|| acknowledged.lock().unwrap().len() > before + 50);
        over.store(true, Ordering::SeqCst);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let mut clients: Vec<_> = (0..6).map(|user| nodes[user % 2].user(&format!("user-{user}"))).collect();
    for (user, workspace, fence) in &acknowledged {
        // Shortly after the failover a server may still say 503: ask again.
        eventually(|| {
            let renewed = clients[*user].heartbeat(workspace, &json!({ "fence": fence }));
            renewed.status != 503 && renewed.expect(200)["success"] == true
        });
    }
    let highest = acknowledged.iter().map(|(_, _, fence)| *fence).max().unwrap();
    assert!(fence(&clients[0].acquire("new", &json!({})).expect(200)) > highest);
}

#[test]
fn after_an_asynchronous_failover_lost_grants_are_refused_and_each_new_fence_is_higher() {
    let pair = Pair::start();
    let nodes = [node(&pair.url, &[]), node(&pair.url, &[])];
    let (mut alice, mut bob) = (nodes[0].user("alice"), nodes[1].user("bob"));
    let alices = fence(&alice.acquire("w", &json!({})).expect(200));
    let kept = fence(&alice.acquire("kept", &json!({})).expect(200));
    let ended = fence(&alice.acquire("ended", &json!({ "ttl_ms": 1_000 })).expect(200));
    eventually(|| alice.lock("ended") == Value::Null);
    pair.is_streaming();
    let mut events = Following::of(&nodes[0]);
    // From here on the standby gets nothing.
    pair.standby.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
    pair.standby.sql("postgres", "SELECT pg_reload_conf()");
    eventually(|| pair.standby.sql("postgres", "SELECT count(*) FROM pg_stat_wal_receiver").trim() == "0");
    alice.release("w", &json!({ "fence": alices })).expect(200);
    let bobs = fence(&bob.acquire("w", &json!({})).expect(200));
    let mut highest = bobs;
    let lost: Vec<_> = (0..30).map(|round| format!("lost-{}", round % 10)).collect();
    for workspace in &lost {
        highest = highest.max(fence(&bob.acquire(workspace, &json!({})).expect(200)));
        bob.delete(&lock_path(workspace)).expect(200);
    }
    assert!(bobs > alices && alices > 0 && kept > 0 && ended > 0);
    pair.primary.kill();
    pair.promote();
    nodes.iter().for_each(is_back);
    // What the new primary has not is refused; nor can alice go on by a fence below that of bob.
    let (mut alice, mut bob) = (nodes[1].user("alice"), nodes[0].user("bob"));
    let status = bob.heartbeat("w", &json!({ "fence": bobs })).status;
    assert!([403, 404].contains(&status), "{status}");
    for (workspace, old) in [("w", alices), ("kept", kept)] {
        for claim in [json!({ "fence": old }), json!({})] {
            alice.heartbeat(workspace, &claim).refused(404, "lock_not_found");
        }
        bob.acquire(workspace, &json!({})).refused(409, "lock_held");
        let again = fence(&alice.acquire(workspace, &json!({})).expect(200));
        assert!(again > highest, "{workspace}: {again} after {highest}");
        alice.heartbeat(workspace, &json!({ "fence": again })).expect(200);
    }
    let again = alice.acquire("ended", &json!({})).expect(200);
    assert_eq!(again["outcome"], "acquired", "another may have had it in the lost moments");
    for workspace in &lost[..10] {
        let new = fence(&bob.acquire(workspace, &json!({})).expect(200));
        assert!(new > highest, "{workspace}: {new} after {highest}");
    }
    // Who follows the events is told to read again, and hears what comes then.
    events.wait_for("event: reset");
    // What came before the reset is read again, and not told.
    alice.acquire("later", &json!({})).expect(200);
    events.wait_for("lock.acquired");
}

/// The events of a node.
struct Following(BufReader<TcpStream>);

impl Following {
    fn of(node: &Process) -> Self {
        let mut stream = TcpStream::connect(node.address).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        stream.write_all(b"GET /api/v1/events HTTP/1.0\r\nX-User-Id: follower\r\n\r\n").unwrap();
        let mut following = Self(BufReader::new(stream));
        following.wait_for(": still here");
        following
    }

    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended before {text}");
        }
    }
}
