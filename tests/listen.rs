//! Where the real program listens: Unix sockets, sockets handed over, and as many connections as the system allows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::process::{Process, lockhouse};
use common::{Client, Raw};
use serde_json::json;

/// A child that is ended when it is dropped.
struct Serving {
    child: Child,
    line: String,
}

impl Serving {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, line: line.trim_end().to_owned() }
    }

    fn terminate(&mut self) -> Option<i32> {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn on(listen: &str, directory: &Path) -> Command {
    let mut command = lockhouse();
    command.args(["serve", "--listen", listen, "--database"]).arg(directory.join("lockhouse.db"));
    command.env("TMPDIR", directory);
    command
}

fn answers(path: &Path) -> bool {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("}\n")
}

#[test]
fn unix_sockets_have_their_mode_and_are_removed_at_exit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lockhouse.sock");
    let listen = format!("unix:{}", path.display());
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    let mut serving = Serving::start(&mut on(&listen, directory.path()));
    assert_eq!(serving.line, format!("lockhouse is listening on {listen}"));
    assert_eq!(mode(), 0o600);
    assert!(answers(&path));
    // A second one does not take it away.
    let other = tempfile::tempdir().unwrap();
    let refused = on(&listen, other.path()).output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && message.contains("another server listens on it"),
        "{message}"
    );
    assert!(answers(&path));
    // One that was killed leaves its socket, which does not keep the next one from it.
    serving.child.kill().unwrap();
    serving.child.wait().unwrap();
    assert!(path.exists());
    let mut serving =
        Serving::start(on(&listen, directory.path()).env("LOCKHOUSE_SERVER_SOCKET_MODE", "0660"));
    assert_eq!(mode(), 0o660);
    assert!(answers(&path));
    assert_eq!(serving.terminate(), Some(0));
    let mut left: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    // The one that was killed could not remove the directory of its inner socket; the next one did.
    assert_eq!(left, ["lockhouse.db", "lockhouse.db.lock"]);
}

#[test]
fn a_socket_path_taken_by_another_server_is_not_removed() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = one.path().join("lockhouse.sock");
    let listen = format!("unix:{}", path.display());
    let mut first = Serving::start(&mut on(&listen, one.path()));
    fs::remove_file(&path).unwrap();
    let mut second = Serving::start(&mut on(&listen, other.path()));
    assert_eq!(first.terminate(), Some(0));
    assert!(answers(&path));
    assert_eq!(second.terminate(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "precious").unwrap();
    let refused = on(&format!("unix:{}", path.display()), directory.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

/// Starts it as systemd does, with a socket that listens already as file 3 (`sd_listen_fds(3)`).
fn handed_over(socket: OwnedFd, directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@""#, "sh"])
        .arg(env!("CARGO_BIN_EXE_lockhouse"))
        .args(["serve", "--listen", "127.0.0.1:1", "--database"])
        .arg(directory.join("lockhouse.db"))
        .stdin(Stdio::from(socket));
    command
}

#[test]
fn systemd_sockets_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // Who comes before it is there waits, and is served.
    let mut early = Raw::connect(address);
    early.send("GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut serving = Serving::start(&mut handed_over(socket.into(), directory.path()));
    assert_eq!(serving.line, format!("lockhouse is listening on http://{address}"));
    assert_eq!(early.answers()[0].status, 200);
    assert_eq!(serving.terminate(), Some(0));

    let path = directory.path().join("by-systemd");
    let socket = UnixListener::bind(&path).unwrap();
    let mut serving = Serving::start(&mut handed_over(socket.into(), directory.path()));
    assert_eq!(serving.line, format!("lockhouse is listening on unix:{}", path.display()));
    assert!(answers(&path));
    assert_eq!(serving.terminate(), Some(0));
    assert!(path.exists(), "it is not ours to remove");
}

#[test]
fn mode_none_refuses_a_socket_on_a_public_address() {
    let directory = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("0.0.0.0:0").unwrap();
    let refused = handed_over(socket.into(), directory.path()).output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && message.contains("trusts every client"), "{message}");
}

fn with_file_limit(files: u32) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!(r#"ulimit -n {files} && exec "$@""#), "sh"])
        .arg(env!("CARGO_BIN_EXE_lockhouse"));
    command
}

#[test]
fn the_server_recovers_from_the_open_files_limit() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(&mut with_file_limit(64), &directory.path().join("lockhouse.db"));
    let mut good = process.user("alice");
    good.acquire("w", &json!({})).expect(200);
    for _ in 0..3 {
        let mut crowd: Vec<_> = (0..200).map(|_| Raw::connect(process.address)).collect();
        for connection in &mut crowd {
            let _ = connection.try_send(b"GET / HT");
        }
        // New clients are still served, although all connections are in use.
        for _ in 0..20 {
            let mut comes = Client::connect(process.address).by("alice");
            comes.acquire("w", &json!({})).expect(200);
        }
        drop(crowd);
    }
    process.user("alice").acquire("w", &json!({})).expect(200);
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.matches("WARN").count() < 50, "it does not fill the log: {log}");
}

#[test]
fn a_too_low_open_files_limit_is_refused_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let refused = with_file_limit(50)
        .args(["serve", "--listen", "127.0.0.1:0", "--database"])
        .arg(directory.path().join("lockhouse.db"))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && message.contains("ulimit -n"), "{message}");
}
