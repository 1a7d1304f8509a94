//! A lock has one holder, whichever server is asked.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::common::postgres::{Cluster, new_database};
use crate::world::{Roamer, Seen, Stopwatch, lock_path, node, take_turn, usual_or_slow};

#[test]
fn two_servers_never_give_one_lock_to_two_holders() {
    let url = new_database();
    let nodes = [node(&url, &[]), node(&url, &[])];
    let addresses = Mutex::new(nodes.iter().map(|node| node.address).collect::<Vec<_>>());
    let (clients, duration) = usual_or_slow((16, 4_000), (64, 60_000));
    let workspaces: Vec<Seen> = (0..20).map(|_| Seen::default()).collect();
    let turns = AtomicUsize::new(0);
    let began = Stopwatch::start();
    std::thread::scope(|scope| {
        for user in 1..=clients {
            let (addresses, workspaces, turns, began) = (&addresses, &workspaces, &turns, &began);
            scope.spawn(move || {
                let mut client = Roamer::new(addresses, user, &format!("user-{user}"));
                let mut round = 0;
                while began.ms() < duration || turns.load(Ordering::SeqCst) == 0 {
                    round += 1;
                    let place = (user * 7 + round * 3) % workspaces.len();
                    if take_turn(&mut client, user, &format!("w{place}"), &workspaces[place]) {
                        turns.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    println!("{} turns", turns.load(Ordering::SeqCst));
    let (_, database) = url.as_str().rsplit_once('/').unwrap();
    let twice = "SELECT count(*) FROM (SELECT fence FROM events WHERE type = 'lock.acquired'
                 GROUP BY workspace_id, fence HAVING count(*) > 1) f";
    assert_eq!(Cluster::of_this_process().sql(database, twice).trim(), "0", "a fence was given twice");
}

#[test]
fn the_limit_of_locks_of_a_user_holds_across_servers() {
    let url = new_database();
    let one = [("LOCKHOUSE_LIMITS_LOCKS_PER_USER", "1")];
    let nodes = [node(&url, &one), node(&url, &one)];
    for round in 0..usual_or_slow(60, 1_000) {
        // Both at a time, on two workspaces.
        let statuses = std::thread::scope(|scope| {
            let asked = [0, 1].map(|at| {
                let node = &nodes[at];
                scope.spawn(move || node.user("alice").acquire(&format!("w{at}"), &json!({})).status)
            });
            asked.map(|asked| asked.join().unwrap())
        });
        let mut sorted = statuses;
        sorted.sort_unstable();
        assert_eq!(sorted, [200, 429], "round {round}");
        let got = statuses.iter().position(|status| *status == 200).unwrap();
        nodes[1 - got].user("alice").delete(&lock_path(&format!("w{got}"))).expect(200);
    }
}
