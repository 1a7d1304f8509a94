//! Clients that acquire, renew and release until the server is gone, and what must be there afterwards.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;

use super::process::Process;

/// Clients at a time.
const CLIENTS: usize = 6;

/// What a client was told before the server died.
#[derive(Default)]
pub struct Told {
    /// The last lease on each workspace, and whether its release was acknowledged.
    leases: HashMap<String, (i64, bool)>,
    pub fences: Vec<(String, i64)>,
}

/// Each client has workspaces of its own, so that it knows what must be there. Ends when the server is gone.
fn load(process: &Process, number: usize, done: &AtomicUsize) -> Told {
    let mut told = Told::default();
    let mut client = process.user(&format!("user-{number}"));
    for round in 0.. {
        let workspace = format!("w{number}-{}", round % 3);
        let path = format!("/api/v1/workspaces/{workspace}/lock");
        let (method, path) = match round % 4 {
            0 | 3 => ("POST", path),
            1 => ("POST", format!("{path}/heartbeat")),
            _ => ("DELETE", path),
        };
        let Ok(answer) = client.try_request(method, &path, &[], b"") else { return told };
        done.fetch_add(1, Ordering::SeqCst);
        let json = answer.json();
        match (answer.status, method) {
            (200, "POST") => {
                let fence = json["lock"]["fence"].as_i64().or(json["fence"].as_i64()).unwrap();
                told.leases.insert(workspace.clone(), (fence, false));
                told.fences.push((workspace, fence));
            }
            (200, _) => {
                if let Some(lease) = told.leases.get_mut(&workspace) {
                    lease.1 = true;
                }
            }
            (404, _) => {}
            _ => panic!("{}", answer.text()),
        }
    }
    told
}

/// Kills the server while clients work, after about so many answers, and returns what they were told.
pub fn killed_under_load(process: Process, answers: usize) -> Vec<Told> {
    let done = AtomicUsize::new(0);
    let told = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (process, done) = (&process, &done);
                scope.spawn(move || load(process, number, done))
            })
            .collect();
        while done.load(Ordering::SeqCst) < answers {
            std::thread::yield_now();
        }
        Command::new("kill").args(["-KILL", &process.id().to_string()]).status().unwrap();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    // Its sockets are gone before it is.
    process.kill();
    told
}

/// The greatest fence that was told.
pub fn highest(told: &[Told]) -> i64 {
    told.iter().flat_map(|told| &told.fences).map(|(_, fence)| *fence).max().unwrap()
}

/// What was acknowledged and is not there any more. Something may have been done that nobody was told of.
pub fn missing(database: &Path, told: &[Told]) -> Vec<String> {
    let process = Process::serve(database);
    let mut missing = Vec::new();
    for told in told {
        let mut client = process.user("auditor");
        for (workspace, (fence, released)) in &told.leases {
            let history = client.history(workspace);
            let live = client.lock(workspace)["fence"].as_i64();
            let ended = history.iter().any(|(event, of)| event != "lock.acquired" && of == fence);
            if live != Some(*fence) && !ended {
                missing.push(format!("{workspace}: lease {fence} is gone without a trace"));
            }
            if *released && !ended {
                missing.push(format!("{workspace}: the release of {fence} was acknowledged and forgotten"));
            }
        }
        for (workspace, fence) in &told.fences {
            if !client.history(workspace).contains(&("lock.acquired".to_owned(), *fence)) {
                missing.push(format!("{workspace}: no event for {fence}"));
            }
        }
    }
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    missing
}

/// What must not be in a database that no server has open: damage, and a fence that two leases have.
pub fn defects(database: &Path) -> Vec<String> {
    let connection = Connection::open(database).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    let mut begun = BTreeMap::<i64, usize>::new();
    let mut fences = connection
        .prepare("SELECT fence FROM events WHERE type = 'lock.acquired' AND reclaimed = 0")
        .unwrap();
    for fence in fences.query_map([], |row| row.get(0)).unwrap() {
        *begun.entry(fence.unwrap()).or_default() += 1;
    }
    let twice = begun.into_iter().filter(|(_, leases)| *leases > 1);
    let damage = (check != "ok").then_some(check);
    damage.into_iter().chain(twice.map(|(fence, _)| format!("the fence {fence} was given twice"))).collect()
}
