//! Two nodes on one PostgreSQL behind nginx, as real processes with the settings in `packaging/`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::postgres::new_database;
use common::process::{Process, is_missing, lockhouse};
use common::{Client, eventually, told};
use lockhouse::config::Secret;
use serde_json::json;

/// nginx with `packaging/nginx.conf`, before these nodes. It ends when this is dropped.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    fn start(directory: &Path, nodes: [SocketAddr; 2]) -> Self {
        let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/nginx.conf")).unwrap();
        // Another process may take the port before nginx does.
        for _ in 0..10 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut settings =
                format!("daemon off;\nmaster_process off;\npid {}/pid;\n{text}", directory.display());
            let mut replace = |from: &str, to: String| {
                assert!(settings.contains(from), "{from}");
                settings = settings.replace(from, &to);
            };
            replace("lockhouse-1:7311", nodes[0].to_string());
            replace("lockhouse-2:7311", nodes[1].to_string());
            replace("listen 8080;", format!("listen {address};"));
            let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {}/{kind};", directory.display()))
                .concat();
            replace("http {", format!("http {{ access_log off; {paths}"));
            let file = directory.join("nginx.conf");
            fs::write(&file, settings).unwrap();
            let errors = directory.join("errors").display().to_string();
            let child = Command::new("nginx")
                .args(["-e", &errors, "-p"])
                .arg(directory)
                .arg("-c")
                .arg(&file)
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut nginx = Self { child, address };
            let mut has_ended = false;
            eventually(|| {
                has_ended = nginx.child.try_wait().unwrap().is_some();
                has_ended || TcpStream::connect(address).is_ok()
            });
            if !has_ended {
                return nginx;
            }
        }
        panic!("nginx does not start: {}", fs::read_to_string(directory.join("errors")).unwrap_or_default());
    }

    fn user(&self, user: &str) -> Client {
        Client::connect(self.address).by(user)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn node(url: &Secret) -> Process {
    let mut command = lockhouse();
    command.env("LOCKHOUSE_DATABASE_URL", url.as_str());
    Process::start(&mut command, Path::new("unused"))
}

#[test]
fn a_killed_node_is_not_noticed_behind_nginx() {
    if is_missing("nginx") {
        return;
    }
    let (directory, url) = (tempfile::tempdir().unwrap(), new_database());
    let (first, second) = (node(&url), node(&url));
    let nginx = Nginx::start(directory.path(), [first.address, second.address]);
    let mut alice = nginx.user("alice");
    let fence = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    for _ in 0..4 {
        alice.heartbeat("w", &json!({})).expect(200);
    }
    first.kill();
    // Each of them, on the connection that is there.
    for _ in 0..20 {
        alice.heartbeat("w", &json!({})).expect(200);
        assert_eq!(alice.acquire("w", &json!({})).expect(200)["lock"]["fence"], fence);
    }
    // A node that stops tells a request that waits to ask again, and nginx asks the other one.
    let third = node(&url);
    drop(nginx);
    let nginx = Nginx::start(directory.path(), [second.address, third.address]);
    let mut alice = nginx.user("alice");
    assert_eq!(second.terminate().0, Some(0));
    for _ in 0..20 {
        alice.heartbeat("w", &json!({})).expect(200);
    }
}

#[test]
fn streams_and_waits_pass_nginx_from_one_node_to_the_other() {
    if is_missing("nginx") {
        return;
    }
    let (directory, url) = (tempfile::tempdir().unwrap(), new_database());
    let (first, second) = (node(&url), node(&url));
    let nginx = Nginx::start(directory.path(), [first.address, second.address]);
    // Two of each, so that each node has one.
    let mut streams: Vec<_> = (0..2)
        .map(|_| {
            let mut client = nginx.user("watcher");
            client.send(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nX-User-Id: watcher\r\n\r\n");
            let mut events = BufReader::new(client.stream().try_clone().unwrap());
            // The comment that says that the stream is open.
            let mut line = String::new();
            while !line.starts_with(':') {
                line.clear();
                assert!(events.read_line(&mut line).unwrap() > 0);
            }
            events
        })
        .collect();
    let mut alice = first.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    let waits = std::thread::spawn({
        let mut bob = nginx.user("bob");
        move || bob.acquire("w", &json!({"wait_ms": 60_000}))
    });
    // The line is known to the node that has the connection.
    eventually(|| {
        [&first, &second].into_iter().any(|node| {
            let presence = node.user("alice").get("/api/v1/workspaces/w/presence").expect(200);
            presence["waiting"].as_array().is_some_and(|waiting| !waiting.is_empty())
        })
    });
    alice.release("w", &json!({})).expect(200);
    let granted = waits.join().unwrap().expect(200);
    assert_eq!(granted["lock"]["locked_by_user_id"], "bob");
    for events in &mut streams {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != "lock.released") {
            seen.push(told(events)["type"].as_str().unwrap().to_owned());
        }
        assert_eq!(seen[0], "lock.acquired", "{seen:?}");
    }
}
