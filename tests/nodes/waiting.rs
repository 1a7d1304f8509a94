//! Requests that wait for a lock, on several servers.

use std::process::Command;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::common::eventually;
use crate::common::postgres::new_database;
use crate::world::{Roamer, Stopwatch, lock_path, node};

#[test]
fn waiters_of_both_servers_get_their_turn_in_order_also_after_a_kill() {
    let url = new_database();
    let nodes = [node(&url, &[]), node(&url, &[]), node(&url, &[])];
    nodes[0].user("holder").acquire("w", &json!({})).expect(200);
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for place in 0..6 {
            // Users 2 and 5 wait on the server that is killed.
            let (node, order) = (&nodes[place % 3], &order);
            let waits = scope.spawn(move || {
                let mut client = node.user(&format!("user-{place}"));
                let body = json!({ "wait_ms": 60_000 }).to_string();
                let json = &[("Content-Type", "application/json")];
                let Ok(answer) = client.try_request("POST", &lock_path("w"), json, body.as_bytes()) else {
                    return;
                };
                assert_eq!(answer.status, 200, "user {place}: {}", answer.text());
                order.lock().unwrap().push(place);
                client.delete(&lock_path("w")).expect(200);
            });
            eventually(|| {
                let mut holder = nodes[0].user("holder");
                let waiting = holder.heartbeat("w", &json!({})).expect(200)["waiting"].as_u64().unwrap();
                waiting == u64::try_from(place).unwrap() + 1 || waits.is_finished()
            });
        }
        let id = nodes[2].id().to_string();
        assert!(Command::new("kill").args(["-KILL", &id]).status().unwrap().success());
        nodes[1].user("holder").delete(&lock_path("w")).expect(200);
    });
    assert_eq!(*order.lock().unwrap(), [0, 1, 3, 4]);
}

#[test]
fn waiters_of_a_server_that_is_replaced_keep_their_places() {
    let url = new_database();
    let (leaves, stays) = (node(&url, &[]), node(&url, &[]));
    stays.user("holder").acquire("w", &json!({})).expect(200);
    let addresses = Mutex::new(vec![leaves.address, stays.address]);
    let order = Mutex::new(Vec::new());
    let waiting = || stays.user("holder").heartbeat("w", &json!({})).expect(200)["waiting"].as_u64().unwrap();
    std::thread::scope(|scope| {
        for place in 0..4 {
            // Users 0 and 1 wait on the server that is replaced, and ask again on the other.
            let (addresses, order) = (&addresses, &order);
            scope.spawn(move || {
                let mut client = Roamer::new(addresses, place / 2, &format!("user-{place}"));
                client.insist("POST", &lock_path("w"), &json!({ "wait_ms": 60_000 })).expect(200);
                order.lock().unwrap().push(place);
                client.insist("DELETE", &lock_path("w"), &Value::Null).expect(200);
            });
            eventually(|| waiting() == u64::try_from(place).unwrap() + 1);
        }
        let began = Stopwatch::start();
        let (code, log) = leaves.terminate();
        assert_eq!(code, Some(0), "{log}");
        eventually(|| waiting() == 4);
        let took = began.ms();
        stays.user("holder").delete(&lock_path("w")).expect(200);
        println!("replaced: all wait again after {took} ms");
        eventually(|| order.lock().unwrap().len() == 4);
        let order = order.lock().unwrap();
        // On a machine that is too slow, they have come back too late.
        assert!(*order == [0, 1, 2, 3] || took > 4_000, "{order:?} after {took} ms");
    });
}
