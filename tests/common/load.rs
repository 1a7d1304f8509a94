//! Clients that acquire, renew and release until the server is gone, and what must be there afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;

use super::process::Process;

/// Clients at a time.
const CLIENTS: usize = 6;

/// What a client received before the server ended.
#[derive(Default)]
pub struct Told {
    /// The last lease on each workspace, and whether its release was acknowledged.
    leases: HashMap<String, (i64, bool)>,
    pub fences: Vec<(String, i64)>,
    /// For each workspace, how many releases were carried out or may have been.
    releases: HashMap<String, usize>,
    /// For each workspace, how often it is unknown whether it was acquired.
    unknown: HashMap<String, usize>,
}

impl Told {
    fn count_unknown(&mut self, method: &str, workspace: String) {
        let of = if method == "POST" { &mut self.unknown } else { &mut self.releases };
        *of.entry(workspace).or_default() += 1;
    }
}

/// Which refusals are allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refusals {
    None,
    /// Whatever a disk with faults can cause.
    OfTheDisk,
}

/// Each client has workspaces of its own, so that it knows what must be there. Ends when the server is gone.
fn load(process: &Process, number: usize, refusals: Refusals, answers: &AtomicUsize) -> Told {
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
        let Ok(answer) = client.try_request(method, &path, &[], b"") else {
            told.count_unknown(method, workspace);
            return told;
        };
        answers.fetch_add(1, Ordering::SeqCst);
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
                *told.releases.entry(workspace).or_default() += 1;
            }
            (404, _) => {}
            (503, _) if refusals == Refusals::OfTheDisk => {
                told.count_unknown(method, workspace);
            }
            (500 | 507, _) if refusals == Refusals::OfTheDisk => {}
            _ => panic!("{}", answer.text()),
        }
    }
    told
}

/// The progress of the clients.
pub struct Progress<'l> {
    answers: &'l AtomicUsize,
}

impl Progress<'_> {
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::SeqCst)
    }

    /// Waits for this number of further answers, or until `so` is true.
    pub fn wait(&self, more: usize, so: impl Fn() -> bool) {
        let until = self.answers() + more;
        while self.answers() < until && !so() {
            std::thread::yield_now();
        }
    }
}

/// Lets clients work while `meanwhile` runs, then kills the server, and returns what they were told. The clients are
/// numbered from `first`.
pub fn killed_after(
    process: Process,
    first: usize,
    refusals: Refusals,
    meanwhile: impl FnOnce(&Process, &Progress<'_>),
) -> Vec<Told> {
    let answers = AtomicUsize::new(0);
    let told = std::thread::scope(|scope| {
        let clients: Vec<_> = (first..first + CLIENTS)
            .map(|number| {
                let (process, answers) = (&process, &answers);
                scope.spawn(move || load(process, number, refusals, answers))
            })
            .collect();
        // If it panics, the clients must end too.
        let went = catch_unwind(AssertUnwindSafe(|| meanwhile(&process, &Progress { answers: &answers })));
        Command::new("kill").args(["-KILL", &process.id().to_string()]).status().unwrap();
        let told = clients.into_iter().map(|client| client.join().unwrap()).collect();
        went.unwrap_or_else(|panic| resume_unwind(panic));
        told
    });
    // Its sockets are gone before it is.
    process.kill();
    told
}

/// Kills the server while clients work, after about so many answers, and returns what they were told. Each round has
/// clients of its own.
pub fn killed_under_load(process: Process, round: usize, answers: usize) -> Vec<Told> {
    let first = round * CLIENTS;
    killed_after(process, first, Refusals::None, |_, progress| progress.wait(answers, || false))
}

/// The greatest fence that a client received.
pub fn highest(told: &[Told]) -> i64 {
    told.iter().flat_map(|told| &told.fences).map(|(_, fence)| *fence).max().unwrap()
}

/// Acknowledged changes that are missing, and refused ones that are there. Changes with an unknown outcome may be there.
pub fn missing(database: &Path, told: &[Told]) -> Vec<String> {
    let process = Process::serve(database);
    let mut missing = Vec::new();
    let mut client = process.user("auditor");
    let workspaces = told.iter().flat_map(|told| {
        let names = told.leases.keys().chain(told.unknown.keys()).chain(told.releases.keys());
        names.collect::<BTreeSet<_>>().into_iter().map(move |workspace| (told, workspace))
    });
    for (told, workspace) in workspaces {
        let history = client.history(workspace);
        if let Some((fence, released)) = told.leases.get(workspace) {
            let live = client.lock(workspace)["fence"].as_i64();
            let ended = history.iter().any(|(event, of)| event != "lock.acquired" && of == fence);
            if live != Some(*fence) && !ended {
                missing.push(format!("{workspace}: lease {fence} is gone without a trace"));
            }
            if *released && !ended {
                missing.push(format!("{workspace}: the release of {fence} was acknowledged and forgotten"));
            }
        }
        let fences = told.fences.iter().filter(|(of, _)| of == workspace).map(|(_, fence)| *fence);
        let told_of: BTreeSet<i64> = fences.collect();
        let of_type = |event: &str| -> Vec<i64> {
            history.iter().filter(|(of, _)| of == event).map(|(_, fence)| *fence).collect()
        };
        let acquired: BTreeSet<i64> = of_type("lock.acquired").into_iter().collect();
        for fence in told_of.difference(&acquired) {
            missing.push(format!("{workspace}: no event for {fence}"));
        }
        let more = acquired.difference(&told_of).count();
        let unknown = told.unknown.get(workspace).copied().unwrap_or_default();
        if more > unknown {
            missing
                .push(format!("{workspace}: {more} leases that nobody was told of, {unknown} are unknown"));
        }
        let found = of_type("lock.released").len();
        let known = told.releases.get(workspace).copied().unwrap_or_default();
        if found > known {
            missing.push(format!("{workspace}: {found} releases, {known} are known or unknown"));
        }
    }
    let next = client.acquire("after", &serde_json::json!({})).expect(200)["lock"]["fence"].as_i64();
    if next <= told.iter().flat_map(|told| &told.fences).map(|(_, fence)| *fence).max() {
        missing.push(format!("the fence {next:?} is not above those before"));
    }
    client.delete("/api/v1/workspaces/after/lock").expect(200);
    drop(client);
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    missing
}

/// Defects of a database that no server has open: damage, and fences of two leases.
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
