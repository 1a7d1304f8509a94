//! The program with webhooks in its settings file: restarts, `kill -9`, TLS, and what is shown.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lockhouse::config::Secret;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::postgres::{new_database, new_database_if_asked};
use super::common::process::{Process, is_missing, lockhouse};
use super::common::receiver::{Delivered, Receiver, Reply, SECRET, TELLTALE};
use super::common::{Client, eventually};

/// A directory with a settings file of one webhook, whose secret is in a file. And a database.
struct Home {
    directory: TempDir,
    database: Option<Secret>,
}

impl Home {
    fn of(url: &str) -> Self {
        let home = Self { directory: tempfile::tempdir().unwrap(), database: new_database_if_asked() };
        fs::write(home.at("secret"), format!("{SECRET}\n")).unwrap();
        let text = format!(
            "[[webhooks]]\nname = \"app\"\nurl = \"{url}\"\nsecret_file = \"{}\"\n",
            home.at("secret").display()
        );
        fs::write(home.at("lockhouse.toml"), text).unwrap();
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&self, command: &mut Command) -> Process {
        command.arg("serve").arg("--config").arg(self.at("lockhouse.toml"));
        if let Some(url) = &self.database {
            command.env("LOCKHOUSE_DATABASE_URL", url.as_str());
        }
        Process::start_with(command, &self.at("lockhouse.db"))
    }
}

/// Logs everything.
fn traced() -> Command {
    let mut command = lockhouse();
    command.env("LOCKHOUSE_LOG_LEVEL", "trace");
    command
}

fn status(address: SocketAddr) -> Value {
    Client::connect(address).by("admin").get("/api/v1/webhooks").expect(200)["webhooks"][0].clone()
}

/// The revisions of what was delivered.
fn revisions(delivered: &[Delivered]) -> Vec<i64> {
    delivered.iter().map(|one| one.json()["revision"].as_i64().unwrap()).collect()
}

#[test]
fn nothing_is_missing_after_kill_9() {
    let receiver = Receiver::start(Reply::Status(200));
    let home = Home::of(&receiver.url());
    let mut events = 0;
    // On PostgreSQL each killed server leaves a claim that is good for 15 s.
    for round in 0..if home.database.is_some() { 2 } else { 4 } {
        let process = home.start(&mut traced());
        let mut alice = process.user("alice");
        for number in 0..10 {
            alice.acquire(&format!("w{round}-{number}"), &json!({})).expect(200);
            events += 1;
        }
        // Killed at another point of the deliveries each time.
        receiver.wait_for(receiver.received().len().max(round * 8));
        process.kill();
    }
    let process = home.start(&mut traced());
    eventually(|| status(process.address)["lag"] == 0 && revisions(&receiver.received()).contains(&events));
    let delivered = receiver.received();
    assert!(delivered.iter().all(Delivered::is_signed));
    let mut next = 1;
    for revision in revisions(&delivered) {
        assert!(revision <= next, "{revision} comes before {next}: {:?}", revisions(&delivered));
        next = next.max(revision + 1);
    }
    assert_eq!(next, events + 1, "none is missing");
}

#[test]
fn when_the_server_that_sends_is_killed_another_goes_on() {
    let receiver = Receiver::start(Reply::Status(200));
    // Servers share only a PostgreSQL.
    let home = Home { database: Some(new_database()), ..Home::of(&receiver.url()) };
    let start = || home.start(&mut traced());
    let (first, second) = (start(), start());
    assert_eq!(status(second.address)["state"], "elsewhere");
    let acquire = |process: &Process, workspace: &str| {
        process.user("alice").acquire(workspace, &json!({})).expect(200);
    };
    acquire(&second, "by-another-server");
    receiver.wait_for(1);
    first.kill();
    acquire(&second, "while-nobody-sends");
    // A claim is good for 15 s. The machine may be slow.
    (0..4).find(|_| {
        (0..6_000).any(|_| {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
            revisions(&receiver.received()).contains(&2)
        })
    });
    acquire(&second, "after-it");
    // The first may have been killed before it wrote down what it had sent.
    eventually(|| revisions(&receiver.received()).contains(&3));
    let mut found = revisions(&receiver.received());
    found.dedup();
    assert_eq!(found, [1, 2, 3]);
}

#[test]
fn after_a_stop_nothing_is_sent_twice() {
    let receiver = Receiver::start(Reply::Status(200));
    let home = Home::of(&receiver.url());
    for round in 1..=3 {
        let process = home.start(&mut traced());
        process.user("alice").acquire(&format!("w{round}"), &json!({})).expect(200);
        receiver.wait_for(round);
        eventually(|| status(process.address)["lag"] == 0);
        assert_eq!(process.terminate().0, Some(0));
    }
    assert_eq!(revisions(&receiver.received()), [1, 2, 3]);
}

#[test]
fn the_log_has_one_line_per_change_and_no_secret() {
    let receiver = Receiver::start(Reply::Status(500));
    let home = Home::of(&receiver.url());
    let process = home.start(&mut traced());
    process.user("alice").acquire("w", &json!({})).expect(200);
    eventually(|| status(process.address)["failures"].as_u64() >= Some(3));
    receiver.usually(Reply::Status(200));
    eventually(|| status(process.address)["state"] == "up_to_date");
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    let count = |text: &str| log.matches(text).count();
    assert_eq!(count("[WARN] webhook app: http://"), 1, "{log}");
    assert_eq!(count(" has not confirmed an event: it answered 500; it is tried again"), 1, "{log}");
    assert_eq!(count(" confirms again, after "), 1, "{log}");
    assert!(log.contains("webhooks = [\"app\"]"), "{log}");
    let signature = receiver.received()[0].header("webhook-signature").to_owned();
    for secret in [&SECRET[6..], signature.trim_start_matches("v1,"), TELLTALE, "/hook", "key=1"] {
        assert!(!log.contains(secret), "{secret} is in {log}");
    }
}

#[test]
fn a_stop_does_not_wait_for_a_silent_receiver() {
    let receiver = Receiver::start(Reply::Silent);
    let home = Home::of(&receiver.url());
    let process = home.start(&mut traced());
    process.user("alice").acquire("w", &json!({})).expect(200);
    receiver.wait_for(1);
    // The receiver has 25 s; a test that waits for it takes longer than all other waits.
    process.ask_to_stop();
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("did not answer within"), "{log}");
    receiver.usually(Reply::Status(200));
    let process = home.start(&mut traced());
    eventually(|| status(process.address)["lag"] == 0);
    assert_eq!(revisions(&receiver.received()), [1, 1]);
}

/// A receiver with TLS that answers each connection with 200. Returns its port.
fn with_tls(directory: &Path) -> u16 {
    let made = super::common::tls::of_localhost(directory);
    let certificates =
        CertificateDer::pem_file_iter(&made.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&made.key).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
    let (listener, config) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(config));
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, tcp.unwrap());
            let mut head = [0; 4_096];
            if stream.read(&mut head).is_ok() {
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    port
}

#[test]
fn https_needs_a_certificate_that_the_machine_trusts() {
    if is_missing("openssl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let port = with_tls(directory.path());
    let home = Home::of(&format!("https://localhost:{port}/hook"));
    let certificate = directory.path().join("certificate");
    let other = tempfile::tempdir().unwrap();
    with_tls(other.path());
    for (trusted, state) in [(other.path().join("certificate"), "failing"), (certificate, "up_to_date")] {
        let mut command = traced();
        command.env("SSL_CERT_FILE", &trusted).env_remove("SSL_CERT_DIR");
        let process = home.start(&mut command);
        process.user("alice").acquire("w", &json!({})).expect(200);
        eventually(|| {
            let shown = status(process.address);
            shown["state"] == state && (shown["lag"] == 0) == (state == "up_to_date")
        });
        if state == "failing" {
            assert_eq!(status(process.address)["last_error"], "its certificate is not trusted");
        }
        process.kill();
    }
    let mut command = traced();
    let none = command.env("SSL_CERT_FILE", home.at("secret")).env_remove("SSL_CERT_DIR");
    let refused = none.args(["check", "--config"]).arg(home.at("lockhouse.toml")).output().unwrap();
    super::common::process::refused(&refused, "no certificates are found to check the receivers of webhooks");
}
