//! Requests that wait for a lock, on several servers.

use std::process::Command;
use std::sync::Mutex;

use serde_json::json;

use crate::common::eventually;
use crate::common::postgres::new_database;
use crate::world::{lock_path, node};

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
