//! The real program on a system that gives it too few threads.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::process::lockhouse;
use common::{eventually, shim};

/// Waits for the end. A process that does not end is killed, and has no code.
fn code(child: &mut Child) -> Option<i32> {
    let mut waits = 0;
    eventually(|| {
        waits += 1;
        if waits == 5_000 {
            child.kill().unwrap();
        }
        child.try_wait().unwrap().is_some()
    });
    child.wait().unwrap().code()
}

/// Starts with so many threads; if it listens, sends it requests and tells it to stop. Returns its code and its log.
fn start(library: &Path, threads: usize) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut child = lockhouse()
        .env("LD_PRELOAD", library)
        .env("SHIM_THREADS", threads.to_string())
        .args(["serve", "--listen", "127.0.0.1:0", "--database"])
        .arg(directory.path().join("lockhouse.db"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        log
    });
    let (told, listens) = std::sync::mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        told.send(line).unwrap();
    });
    let mut line = None;
    let mut waits = 0;
    eventually(|| {
        waits += 1;
        if waits == 5_000 {
            // It hangs before it listens. Its end closes its standard output.
            child.kill().unwrap();
        }
        line = listens.try_recv().ok();
        line.is_some()
    });
    reader.join().unwrap();
    if let Some(address) = line.unwrap().trim_end().strip_prefix("lockhouse is listening on http://") {
        ask(address);
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
    }
    (code(&mut child), log.join().unwrap())
}

/// Sends requests, whatever becomes of them.
fn ask(address: &str) {
    for path in ["/healthz", "/readyz", "/api/v1/workspaces/w/lock"] {
        let Ok(mut stream) = TcpStream::connect(address) else { return };
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: t\r\nX-User-Id: alice\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn with_too_few_threads_it_exits_with_a_message_or_works() {
    let directory = tempfile::tempdir().unwrap();
    let Some(library) = shim::compile("threads", directory.path()) else { return };
    let mut starts: Vec<(usize, Option<i32>, String, String)> = Vec::new();
    // Up to the first number that is enough, and one more. That number depends on the order in which threads start.
    while starts.iter().filter(|(_, code, ..)| *code == Some(0)).count() < 2 {
        let threads = starts.len();
        assert!(threads < 100, "it never starts: {starts:?}");
        let (code, log) = start(&library, threads);
        let last = log.lines().last().unwrap_or_default().to_owned();
        eprintln!("{threads} threads: {code:?} {last}");
        starts.push((threads, code, last, log));
    }
    for (threads, code, _, log) in &starts {
        // A thread of a library may tell of its own failure afterwards.
        let says_why =
            log.lines().any(|line| line.starts_with("lockhouse: ") && line.contains("gives no more threads"));
        assert!(*code == Some(0) || *code == Some(1) && says_why, "{threads} threads: {code:?} {log}");
    }
    assert_eq!(starts[0].1, Some(1), "{starts:?}");
}
