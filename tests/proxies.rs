//! What docs/operation.md, docs/gate.md and docs/back-end.md say, with a real nginx.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::unnecessary_wraps,
    reason = "a test may panic"
)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::Server;
use common::docs::{block_with, blocks, with};
use common::nginx::Nginx;
use common::process::{is_missing, lockhouse};
use lockhouse::api::exchange::Response;
use lockhouse::api::operation::{Answer, Call, Route};
use lockhouse::api::problem::Problem;
use lockhouse::api::responder::{Responder, Stream};
use lockhouse::app::Service;
use lockhouse::auth::Scope;
use lockhouse::config::{self, AuthMode, Listen, Sources};
use serde_json::{Value, json};

/// The settings of the page, for a socket in `directory`.
fn settings(page: &str, directory: &Path) -> PathBuf {
    let socket = directory.join("lockhouse.sock").to_string_lossy().into_owned();
    let file = directory.join("lockhouse.toml");
    fs::write(&file, blocks(page, "toml").swap_remove(0).replace("/run/lockhouse/lockhouse.sock", &socket))
        .unwrap();
    file
}

#[test]
fn the_settings_of_the_operation_page_load() {
    let directory = tempfile::tempdir().unwrap();
    let file = Some(settings("operation.md", directory.path()));
    let loaded = config::load(&Sources { file, ..Sources::default() }).unwrap();
    assert_eq!(loaded.config.server.listen, Listen::Unix(directory.path().join("lockhouse.sock")));
    assert_eq!(loaded.config.server.trusted_proxies.len(), 1);
    assert_eq!(loaded.config.auth.mode, AuthMode::Proxy);
}

#[test]
fn the_nginx_page_gives_tls_http_2_and_the_client_address() {
    if is_missing("nginx") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = lockhouse()
        .arg("serve")
        .arg("--config")
        .arg(settings("operation.md", directory.path()))
        .arg("--database")
        .arg(directory.path().join("lockhouse.db"))
        // Requests that succeed are logged at this level.
        .env("LOCKHOUSE_LOG_LEVEL", "debug")
        .stdout(Stdio::piped())
        .stderr(Stdio::from(fs::File::create(directory.path().join("log")).unwrap()))
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("unix:"), "{line}");
    {
        let nginx = Nginx::start(directory.path());
        let alice = ["-u", "alice:secret"];
        let answer =
            nginx.ask(&["-i", "--http2", "-X", "POST", alice[0], alice[1]], "/api/v1/workspaces/w/lock");
        assert!(
            answer.starts_with("HTTP/2 200") && answer.contains("\"locked_by_user_id\":\"alice\""),
            "{answer}"
        );
        // Clients cannot forge the user, the name or the address.
        let forged = [
            "Remote-User: root",
            "Remote-Name: Root",
            "X-User-Id: root",
            "X-User-Name: Root",
            "X-Forwarded-For: 203.0.113.9",
            "X-Request-Id: forged",
        ]
        .map(|header| ["-H", header])
        .concat();
        let answer =
            nginx.ask(&[&alice[..], &forged[..], &["-X", "POST"]].concat(), "/api/v1/workspaces/v/lock");
        assert!(answer.contains("\"locked_by_user_id\":\"alice\",\"locked_by_name\":\"alice\""), "{answer}");
        // User names may have any letters. One user is an administrator.
        let answer = nginx.ask(&["-u", "Zoë:secret", "-X", "POST"], "/api/v1/workspaces/z/lock");
        assert!(answer.contains("\"locked_by_user_id\":\"Zoë\""), "{answer}");
        let token = ["--json", "{\"scope\": \"admin\"}", "-o", "/dev/null", "-w", "%{http_code}", "-u"];
        assert_eq!(nginx.ask(&[&token[..], &["alice:secret"]].concat(), "/api/v1/tokens"), "403");
        assert_eq!(nginx.ask(&[&token[..], &["root:secret"]].concat(), "/api/v1/tokens"), "201");
        assert!(nginx.ask(&["-i"], "/api/v1/locks").contains("401"));
        assert!(
            nginx.ask(&["-i", alice[0], alice[1], "-d", &"x".repeat(70_000)], "/healthz").contains("413")
        );
        // The console's pages may call, and those of other hosts may not.
        let own = format!("Origin: https://locks.example:{}", nginx.port);
        for (origin, status) in [(own.as_str(), "200"), ("Origin: https://evil.example", "403")] {
            let page = [alice[0], alice[1], "-o", "/dev/null", "-w", "%{http_code}", "-H", origin];
            assert_eq!(nginx.ask(&page, "/api/v1/locks"), status, "{origin}");
        }
        for _ in 0..20 {
            assert!(nginx.ask(&alice, "/healthz").contains("\"up\""));
        }
    }
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let log = fs::read_to_string(directory.path().join("log")).unwrap();
    let forged = log.lines().find(|line| line.contains("forged") && line.contains(" POST ")).unwrap();
    assert!(forged.contains("127.0.0.1 POST") && !log.contains("203.0.113.9"), "{forged}");
}

static TICKET: Mutex<Option<Responder>> = Mutex::new(None);

fn hold(_: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    Ok(Answer::later(|reply| *TICKET.lock().unwrap() = Some(reply.park())))
}

static EVENTS: [Route; 1] = [Route::new("GET", "/api/v1/events", "test", hold)];

fn says(stream: &Stream, reader: &mut BufReader<ChildStdout>, event: &str) {
    assert!(stream.push(format!("data: {event}\n\n").as_bytes()));
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, format!("data: {event}\n"));
    reader.read_line(&mut line).unwrap();
}

#[test]
fn events_pass_nginx_without_buffering() {
    if is_missing("nginx") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lockhouse.sock");
    let _server = Server::with_routes(&EVENTS, |config| config.server.listen = Listen::Unix(socket));
    let nginx = Nginx::start(directory.path());
    let mut command = nginx.curl(&["-N", "-u", "alice:secret"], "/api/v1/events");
    let mut curl = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(curl.stdout.take().unwrap());
    let ticket = loop {
        assert!(curl.try_wait().unwrap().is_none(), "curl has ended");
        if let Some(ticket) = TICKET.lock().unwrap().take() {
            break ticket;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    };
    let stream = ticket.stream(Response::of(200, "text/event-stream", Vec::new()));
    // Each is read before the next is sent: none is buffered.
    for event in ["one", "two", "three"] {
        says(&stream, &mut reader, event);
    }
    // A disconnect of the client passes the proxy too.
    curl.kill().unwrap();
    curl.wait().unwrap();
    while !stream.client().is_gone() {
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn an_app_can_use_a_separate_host_or_a_path() {
    if is_missing("nginx") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let server = Server::with(|config| {
        config.server.listen = Listen::Unix(directory.path().join("lockhouse.sock"));
        config.server.cors_origins = vec!["https://app.example.com".to_owned()];
        config.auth.mode = AuthMode::Token;
    });
    let by = format!("Authorization: Bearer {}", server.token(Scope::User, Some("alice")));
    // Without the lines that the page says to leave out in this mode.
    let left_out = ["auth_basic", "Remote-", "Authorization"];
    let host: Vec<_> = blocks("operation.md", "nginx")
        .swap_remove(0)
        .lines()
        .filter(|line| !left_out.iter().any(|word| line.contains(word)))
        .map(str::to_owned)
        .collect();
    let at_path = blocks("back-end.md", "nginx");
    let socket = at("lockhouse.sock");
    let lockhouse = ("/run/lockhouse/lockhouse.sock", socket.as_str());
    {
        let nginx = Nginx::with_tls(directory.path(), |port| {
            let ours = [
                lockhouse,
                ("listen 443", &format!("listen 127.0.0.1:{port}")),
                ("/etc/ssl/locks.example.crt", &at("certificate")),
                ("/etc/ssl/locks.example.key", &at("key")),
            ];
            with(host.join("\n"), &ours)
        });
        // What a browser asks before it calls another host, without credentials; and what it asks then.
        let asks = ["-i", "-H", "Origin: https://app.example.com", "-H", &by];
        let preflight = ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: POST"];
        let path = "/api/v1/workspaces/design-42/lock";
        let answer = nginx.ask(&[&asks[..3], &preflight[..]].concat(), path);
        assert!(answer.starts_with("HTTP/2 204"), "{answer}");
        assert_eq!(
            answer.matches("access-control-allow-origin: https://app.example.com").count(),
            1,
            "{answer}"
        );
        let answer = nginx.ask(&[&asks[..], &["-X", "POST"]].concat(), path);
        assert!(
            answer.starts_with("HTTP/2 200") && answer.contains("access-control-allow-origin"),
            "{answer}"
        );
    }
    let nginx = Nginx::with_tls(directory.path(), |port| {
        let tls = format!("ssl_certificate {};\nssl_certificate_key {};", at("certificate"), at("key"));
        let http = with(at_path[0].clone(), &[lockhouse]);
        format!("{http}\nserver {{\nlisten 127.0.0.1:{port} ssl;\n{tls}\n{}}}\n", at_path[1])
    });
    let answer = nginx.ask(&["-X", "POST", "-H", &by], "/locks/api/v1/workspaces/team%2Fdesign/lock");
    assert!(answer.contains("\"workspace_id\":\"team/design\""), "{answer}");
    let answer = nginx.ask(&["-H", &by], "/locks/api/v1/locks?prefix=team&limit=1");
    assert!(answer.contains("team/design") && !answer.contains("design-42"), "{answer}");
    assert!(nginx.ask(&[], "/locks/client/index.js").contains("export"));
}

/// An app without locks, which accepts every write. Returns its port and the received requests.
fn app() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                match line.trim_end().to_ascii_lowercase().split_once(": ") {
                    Some(("content-length", value)) => length = value.parse().unwrap(),
                    Some(_) => {}
                    None => break,
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let (what, _) = first.rsplit_once(' ').unwrap();
            seen.lock()
                .unwrap()
                .push(format!("{what} {}", String::from_utf8_lossy(&body)).trim_end().to_owned());
            reader.get_mut().write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    (port, asked)
}

#[test]
fn the_nginx_gate_passes_only_writes_with_the_live_fence() {
    if is_missing("nginx") {
        return;
    }
    let server = Server::with(|config| config.auth.mode = AuthMode::Token);
    let (alices, bobs) = (server.token(Scope::User, Some("alice")), server.token(Scope::User, Some("bob")));
    let (mut alice, mut bob) = (server.client().with_token(&alices), server.client().with_token(&bobs));
    let (app, asked) = app();
    let directory = tempfile::tempdir().unwrap();
    let nginx = Nginx::run(directory.path(), |port| {
        block_with(
            "gate.md",
            "nginx",
            &[
                ("127.0.0.1:7311", &server.address().to_string()),
                ("127.0.0.1:8000", &format!("127.0.0.1:{app}")),
                ("127.0.0.1:8080", &format!("127.0.0.1:{port}")),
            ],
        )
    });
    // A write to `path`, with these headers; what came of it.
    let write = |path: &str, headers: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"]);
        command.args(["--path-as-is", "-X", "PUT", "-d", "new"]);
        for header in headers {
            command.args(["-H", header]);
        }
        let output = command.arg(format!("http://127.0.0.1:{}{path}", nginx.port)).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let by = |token: &str| format!("Authorization: Bearer {token}");
    let (alices, bobs) = (by(&alices), by(&bobs));
    let with = |fence: &Value| format!("X-Lock-Fence: {fence}");

    // Without a lock.
    assert_eq!(write("/documents/design-42", &[&alices, "X-Lock-Fence: 1"]), "403");
    // With the live fence.
    let fence = with(&alice.acquire("design-42", &json!({})).expect(200)["lock"]["fence"]);
    assert_eq!(write("/documents/design-42", &[&alices, &fence]), "200");
    // Without a fence, with a wrong one, by another user, without a token.
    assert_eq!(write("/documents/design-42", &[&alices]), "403");
    assert_eq!(write("/documents/design-42", &[&alices, "X-Lock-Fence: 7"]), "403");
    assert_eq!(write("/documents/design-42", &[&bobs, &fence]), "403");
    assert_eq!(write("/documents/design-42", &[&fence]), "401");
    // The lock of one workspace does not open another, whatever the client says.
    let other = "X-Lock-Workspace: design-42";
    assert_eq!(write("/documents/design-43", &[&alices, &fence, other]), "403");
    assert_eq!(write("/documents/design-43?workspace_id=design-42", &[&alices, &fence, other]), "403");
    // Other spellings of the path do not bypass the gate.
    for path in ["/documents/design-42/", "/documents/design%2f42", "/documents/", "/", "/gate"] {
        assert!(["403", "404"].contains(&write(path, &[&alices, &fence]).as_str()), "{path}");
    }
    for path in ["//documents/design-43", "/documents/x/../design-43", "/documents/%64esign-43"] {
        assert_eq!(write(path, &[&alices, &fence]), "403", "{path}");
    }
    // After a takeover.
    let newer = bob.acquire("design-42", &json!({ "force": true })).expect(200)["lock"]["fence"].clone();
    assert_eq!(write("/documents/design-42", &[&alices, &fence]), "403");
    assert_eq!(write("/documents/%64esign-42?draft=1", &[&bobs, &with(&newer)]), "200");
    // After its end.
    server.pass(600_000);
    assert_eq!(write("/documents/design-42", &[&bobs, &with(&newer)]), "403");
    // Reading takes no lock.
    assert!(nginx_get(nginx.port, "/documents/design-42") && nginx_get(nginx.port, "/"));
    let expected =
        ["PUT /documents/design-42 new", "PUT /documents/design-42 new", "GET /documents/design-42", "GET /"];
    assert_eq!(*asked.lock().unwrap(), expected);
}

fn nginx_get(port: u16, path: &str) -> bool {
    let url = format!("http://127.0.0.1:{port}{path}");
    Command::new("curl").args(["-sSf", "--max-time", "20", &url]).status().unwrap().success()
}

/// `terraform force-unlock` sends an empty chunked body. nginx reads it and sends none or, without buffering, passes it on.
#[test]
fn chunks_pass_nginx_only_if_they_are_empty_and_for_terraform() {
    if is_missing("nginx") {
        return;
    }
    let server = Server::start();
    for buffering in ["on", "off"] {
        let directory = tempfile::tempdir().unwrap();
        let nginx = Nginx::run(directory.path(), |port| {
            format!(
                "upstream lockhouse {{ server {}; keepalive 4; }}\nserver {{ listen 127.0.0.1:{port};\nlocation / {{\n\
                 proxy_pass http://lockhouse; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                 proxy_request_buffering {buffering}; }} }}",
                server.address()
            )
        });
        let lock = |client: &mut common::Client| {
            client.call("LOCK", "/terraform/w", Some(&json!({ "ID": "one" }))).expect(200);
        };
        let send = |target: &str, body: &str| {
            let mut connection = common::Raw::connect(([127, 0, 0, 1], nginx.port).into());
            let head = format!(
                "UNLOCK {target} HTTP/1.1\r\nHost: h\r\nX-User-Id: alice\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            );
            connection.send(format!("{head}{body}"));
            String::from_utf8_lossy(connection.read_all()).into_owned()
        };
        let mut alice = server.user("alice");
        lock(&mut alice);
        let answer = send("/terraform/w", "0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"released\":true"), "{answer}");
        // A request in a chunk. The chunk is a body, so this must not be carried out.
        lock(&mut alice);
        let smuggled = "DELETE /terraform/w/lock HTTP/1.1\r\nHost: h\r\nX-User-Id: alice\r\nX-Request-Id: smuggled\r\n\r\n";
        let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
        for target in ["/terraform/other", "/api/v1/locks"] {
            let answer = send(target, &chunk);
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
            assert!(answer.starts_with("HTTP/1.1 4") && !answer.contains("smuggled"), "{answer}");
        }
        assert_eq!(alice.lock("w")["session_id"], "one");
        // The connections between them still serve.
        assert!(nginx_get(nginx.port, "/healthz"));
        assert!(send("/terraform/w", "0\r\n\r\n").contains("\"released\":true"));
    }
}
