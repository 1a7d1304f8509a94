//! Contention: 32 threads use 8 workspaces through the server at once, and the complete history is checked
//! afterwards.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};

use std::time::Duration;

use common::{Client, Server};
use lockhouse::config::Config;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};

const THREADS: usize = 32;
const WORKSPACES: u64 = 8;
const ROUNDS: usize = 500;

/// A storage system that refuses what is older than the newest it has seen.
#[derive(Default)]
struct Guarded(AtomicI64);

impl Guarded {
    fn write(&self, fence: i64) -> bool {
        self.0.fetch_max(fence, Ordering::SeqCst) <= fence
    }
}

/// What a client was told: a lease it was given, with the fence.
type Grant = (u64, i64, String);

fn use_workspaces(
    mut client: Client,
    user: &str,
    number: usize,
    pass: impl Fn(u64),
    storage: &[Guarded],
) -> Vec<Grant> {
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[u8::try_from(number).unwrap(); 32]);
    let mut granted = Vec::new();
    let mut mine: HashMap<u64, i64> = HashMap::new();
    for _ in 0..ROUNDS {
        let at = random.next_u64() % WORKSPACES;
        let name = format!("w{at}");
        match random.next_u64() % 10 {
            0..4 => {
                let answer = client.acquire(
                    &name,
                    &json!({ "ttl_ms": 1_000, "force": random.next_u64().is_multiple_of(8) }),
                );
                assert!([200, 409].contains(&answer.status), "{}", answer.text());
                if answer.status == 200 {
                    let json = answer.json();
                    let fence = json["lock"]["fence"].as_i64().unwrap();
                    assert_eq!(json["lock"]["locked_by_user_id"], user);
                    granted.push((at, fence, json["outcome"].as_str().unwrap().to_owned()));
                    mine.insert(at, fence);
                    assert!(
                        storage[usize::try_from(at).unwrap()].write(fence)
                            || client.lock(&name)["fence"] != json!(fence),
                        "the live lease was refused by the storage"
                    );
                } else {
                    assert_ne!(answer.json()["lock"]["locked_by_user_id"], user);
                }
            }
            4..7 => {
                let fence = mine.get(&at).copied();
                let answer = client.heartbeat(&name, &json!({ "fence": fence }));
                assert!([200, 403, 404].contains(&answer.status), "{}", answer.text());
                if answer.status == 200 && fence.is_some() {
                    assert_eq!(answer.json()["fence"].as_i64(), fence);
                }
            }
            7..9 => {
                let answer = client.release(&name, &json!({ "fence": mine.get(&at) }));
                assert!([200, 403].contains(&answer.status), "{}", answer.text());
            }
            _ => pass(random.next_u64() % 300),
        }
    }
    granted
}

/// Goes through a workspace's history, oldest first: each lease ends before the next begins.
fn replay(events: &[Value]) -> HashSet<i64> {
    let (mut live, mut highest, mut ended): (Option<Value>, i64, HashSet<i64>) = (None, 0, HashSet::new());
    let mut begun = HashSet::new();
    for event in events {
        let fence = event["fence"].as_i64().unwrap();
        let mut starts = |fence: i64| {
            assert!(fence > highest, "a fence fell: {event}");
            highest = fence;
            begun.insert(fence);
        };
        if event["type"] == "lock.acquired" {
            assert_eq!(live, None, "two holders: {event}");
            if event["detail"]["outcome"] == "reclaimed" {
                assert!(ended.remove(&fence) && fence == highest, "reclaimed by somebody else: {event}");
            } else {
                starts(fence);
            }
            live = Some(json!(fence));
        } else {
            assert_eq!(live, Some(json!(fence)), "what was not held ended: {event}");
            assert!(ended.insert(fence), "a lease ended twice: {event}");
            live = event["detail"]["new_fence"].as_i64().map(|next| {
                starts(next);
                json!(next)
            });
        }
    }
    begun
}

fn set(config: &mut Config) {
    config.sweeper.interval = Some(Duration::from_millis(5));
}

#[test]
fn no_workspace_has_two_holders_under_contention() {
    let server = Server::with(set);
    let storage: Vec<_> = (0..WORKSPACES).map(|_| Guarded::default()).collect();
    let clients: Vec<_> = (0..THREADS).map(|number| server.user(&format!("user-{number}"))).collect();
    let grants: Vec<Grant> = std::thread::scope(|scope| {
        let workers: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, client)| {
                let (clock, storage) = (&server.clock, &storage);
                scope.spawn(move || {
                    use_workspaces(
                        client,
                        &format!("user-{number}"),
                        number,
                        |by| clock.advance(Duration::from_millis(by)),
                        storage,
                    )
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let mut client = server.client();
    let mut outcomes = BTreeMap::new();
    for (_, _, outcome) in &grants {
        *outcomes.entry(outcome.clone()).or_insert(0) += 1;
    }
    for at in 0..WORKSPACES {
        let (mut events, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = client.get(&format!("/api/v1/workspaces/w{at}/history?limit=500{cursor}")).expect(200);
            events.extend(page["events"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        events.reverse();
        let begun = replay(&events);
        for (_, fence, outcome) in grants.iter().filter(|(of, _, _)| *of == at) {
            assert!(begun.contains(fence), "w{at}: {outcome} with fence {fence} left no event");
        }
        let given: Vec<_> = grants
            .iter()
            .filter(|(of, _, outcome)| *of == at && (outcome == "acquired" || outcome == "taken_over"))
            .map(|(_, fence, _)| fence)
            .collect();
        let distinct: HashSet<_> = given.iter().collect();
        assert_eq!(given.len(), distinct.len(), "w{at}: a fence was given out twice");
        assert_eq!(distinct.len(), begun.len(), "w{at}: a lease began that nobody was told of");
    }
    for outcome in ["acquired", "renewed", "reclaimed", "taken_over"] {
        assert!(
            outcomes.get(outcome).is_some_and(|count| *count > 20),
            "too little contention: {outcomes:?}"
        );
    }
}
