//! What docs/operation.md and docs/gate.md say of Caddy, with a real Caddy.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};

use common::docs::block_with;
use common::process::is_missing;
use common::{Raw, Server, eventually};
use lockhouse::auth::Scope;
use lockhouse::config::{AuthMode, Listen};
use serde_json::json;

/// What `caddy hash-password` makes of "secret".
const HASH: &str = "$2a$14$xGH.18ECfnxc3gdgaqZeE.edrq1c9gKKHRpCog5XdgwiS7Z8cRX3u";

struct Caddy {
    child: Child,
    port: u16,
}

impl Caddy {
    /// Runs with these settings, which are for two ports. Caddy cannot pick ports itself, and those that are free now may be
    /// taken before it listens.
    fn start(directory: &Path, settings: impl Fn(u16, u16) -> String) -> Self {
        let (file, log) = (directory.join("Caddyfile"), directory.join("log"));
        for _ in 0..20 {
            let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
            let [port, other] = listeners.map(|listener| listener.local_addr().unwrap().port());
            std::fs::write(&file, format!("{{\n\tadmin off\n}}\n{}", settings(port, other))).unwrap();
            let child = Command::new("caddy")
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(&file)
                .env("XDG_DATA_HOME", directory)
                .env("XDG_CONFIG_HOME", directory)
                .stderr(File::create(&log).unwrap())
                .spawn()
                .unwrap();
            let mut caddy = Self { child, port };
            // It says so when it listens. A connection would not tell whose port it is.
            let mut listens = false;
            eventually(|| {
                listens = std::fs::read_to_string(&log).unwrap().contains("serving initial configuration");
                listens || caddy.child.try_wait().unwrap().is_some()
            });
            if listens {
                return caddy;
            }
        }
        panic!("Caddy does not start: {}", std::fs::read_to_string(log).unwrap());
    }

    fn ask(&self, arguments: &[&str], path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let output =
            Command::new("curl").args(["-sS", "-i", "--max-time", "20"]).args(arguments).arg(url).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn caddy_overrides_identity_headers_of_the_client() {
    if is_missing("caddy") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lockhouse.sock");
    let _server = Server::with(|config| {
        config.server.listen = Listen::Unix(socket.clone());
        config.auth.mode = AuthMode::Proxy;
        config.auth.proxy_addresses = vec!["unix".parse().unwrap()];
        config.auth.admins = vec!["root".to_owned()];
    });
    let caddy = Caddy::start(directory.path(), |port, _| {
        let ours = [
            ("locks.example", format!("http://127.0.0.1:{port}")),
            ("/run/lockhouse/lockhouse.sock", socket.display().to_string()),
            ("$2a$14$REPLACE.THIS.WITH.THE.OUTPUT.OF.caddy.hash-password", HASH.to_owned()),
        ];
        let ours: Vec<_> = ours.iter().map(|(shown, ours)| (*shown, ours.as_str())).collect();
        block_with("operation.md", "caddyfile", &ours)
    });
    let forged =
        ["Remote-User: root", "Remote-Name: Root", "X-User-Id: root", "Origin: https://evil.example"];
    let [user, name, id, origin] = forged;
    let alice = ["-u", "alice:secret", "-X", "POST", "-H", user, "-H", name, "-H", id];
    let path = "/api/v1/workspaces/w/lock";
    let answer = caddy.ask(&alice, path);
    assert!(answer.contains("\"locked_by_user_id\":\"alice\",\"locked_by_name\":\"alice\""), "{answer}");
    assert!(caddy.ask(&[&alice[..], &["-H", origin]].concat(), path).starts_with("HTTP/1.1 403"));
    assert!(caddy.ask(&["-X", "POST", "-H", user], path).starts_with("HTTP/1.1 401"));
}

#[test]
fn the_caddy_gate_passes_only_writes_with_the_live_fence() {
    if is_missing("caddy") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Server::with(|config| config.auth.mode = AuthMode::Token);
    let tokens = ["alice", "bob"].map(|user| server.token(Scope::User, Some(user)));
    let [mut alice, mut bob] = tokens.each_ref().map(|token| server.client().with_token(token));
    let caddy = Caddy::start(directory.path(), |port, app| {
        let (port, app) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{app}"));
        let address = server.address().to_string();
        let ours =
            [("127.0.0.1:7311", address.as_str()), ("127.0.0.1:8000", &app), ("127.0.0.1:8080", &port)];
        let page = block_with("gate.md", "caddyfile", &ours);
        format!("{page}\nhttp://{app} {{\n\trespond \"the app {{path}}\"\n}}\n")
    });
    let alices = format!("Authorization: Bearer {}", tokens.first().unwrap());
    let put = |path: &str, more: &[&str]| {
        caddy.ask(&[&["-X", "PUT", "-d", "new", "-H", &alices], more].concat(), path)
    };
    let refused = put("/documents/design-42", &["-H", "X-Lock-Fence: 1"]);
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("\"code\":\"not_holder\""), "{refused}");
    let lock = alice.acquire("design-42", &json!({})).expect(200);
    let fence = format!("X-Lock-Fence: {}", lock["lock"]["fence"]);
    let passed = put("/documents/design-42", &["-H", &fence]);
    assert!(
        passed.starts_with("HTTP/1.1 200") && passed.contains("the app /documents/design-42"),
        "{passed}"
    );
    // Without a token, and for another workspace, with any header that the client sends.
    let nobody = caddy.ask(&["-X", "PUT", "-d", "new", "-H", &fence], "/documents/design-42");
    assert!(nobody.starts_with("HTTP/1.1 401"), "{nobody}");
    for path in ["/documents/design-43", "/documents/design-43?workspace_id=design-42", "/documents/a/b", "/"]
    {
        let refused = put(path, &["-H", &fence, "-H", "X-Lock-Workspace: design-42"]);
        assert!(refused.starts_with("HTTP/1.1 403"), "{path}: {refused}");
    }
    // After a takeover.
    bob.acquire("design-42", &json!({ "force": true })).expect(200);
    assert!(put("/documents/design-42", &["-H", &fence]).starts_with("HTTP/1.1 403"));
    // Reading takes no lock; other methods are refused.
    assert!(caddy.ask(&[], "/documents/design-42").starts_with("HTTP/1.1 200"));
    assert!(caddy.ask(&["-X", "DELETE"], "/documents/design-42").starts_with("HTTP/1.1 403"));
}

/// Terraform behind Caddy, which passes on an empty chunked body in chunks.
#[test]
fn terraform_locks_and_force_unlocks_behind_caddy() {
    if is_missing("caddy") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start();
    let caddy = Caddy::start(directory.path(), |port, _| {
        format!("http://127.0.0.1:{port} {{\n\treverse_proxy {}\n}}\n", server.address())
    });
    let lock = ["-X", "LOCK", "-u", "alice:x", "--json", "{\"ID\":\"one\"}"];
    let answer = caddy.ask(&lock, "/terraform/team%2Fprod");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"workspace_id\":\"team/prod\""),
        "{answer}"
    );
    let mut connection = Raw::connect(([127, 0, 0, 1], caddy.port).into());
    connection.send(
        "UNLOCK /terraform/team%2Fprod HTTP/1.1\r\nHost: 127.0.0.1\r\nX-User-Id: alice\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n0\r\n\r\n",
    );
    let answer = String::from_utf8_lossy(connection.read_all()).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"released\":true"), "{answer}");
}
