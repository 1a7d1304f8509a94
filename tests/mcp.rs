//! `lockhouse mcp`: by the official client SDK, and message by message.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::process::lockhouse;
use common::{Server, eventually};
use serde_json::{Value, json};

/// A process of `lockhouse mcp`, for user carol.
struct Mcp {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Mcp {
    fn start(server: &Server) -> Self {
        // After nohup, or in the background of a script, some are ignored.
        let mut command = Command::new("env");
        for (name, _) in lockhouse().get_envs() {
            command.env_remove(name);
        }
        let mut child = command
            .args(["--default-signal=HUP,INT,TERM", env!("CARGO_BIN_EXE_lockhouse"), "mcp"])
            .env("LOCKHOUSE_URL", format!("http://{}", server.address()))
            .env("LOCKHOUSE_USER", "carol")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// With the handshake.
    fn connected(server: &Server) -> Self {
        let mut mcp = Self::start(server);
        mcp.ask(
            "initialize",
            &json!({ "protocolVersion": "2025-06-18", "clientInfo": { "name": "tester" } }),
        );
        mcp.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string());
        mcp
    }

    fn send(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string());
        self.next()
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.ask("tools/call", &json!({ "name": tool, "arguments": arguments }))["result"].clone()
    }

    fn acquire(&mut self, workspace: &str) {
        let result = self.call("lock_acquire", &json!({ "workspace": workspace }));
        assert_eq!(result["structuredContent"]["acquired"], true, "{result}");
    }
}

impl Drop for Mcp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn the_official_client_tells_the_story_of_an_agent() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/mcp/bin/python");
    if !python.exists() {
        assert!(std::env::var_os("CI").is_none(), "the SDK is missing in CI");
        eprintln!("skipped: python3 -m venv target/mcp && target/mcp/bin/pip install mcp");
        return;
    }
    let server = Server::start();
    let story = Command::new(python)
        .arg(root.join("tests/mcp/story.py"))
        .args([&format!("http://{}", server.address()), env!("CARGO_BIN_EXE_lockhouse")])
        .output()
        .unwrap();
    assert!(story.status.success(), "{}", String::from_utf8_lossy(&story.stderr));
}

#[test]
fn versions_are_negotiated() {
    let server = Server::start();
    for (asked, answered) in
        [("2025-06-18", "2025-06-18"), ("2025-11-25", "2025-11-25"), ("1999-01-01", "2025-11-25")]
    {
        let answer = Mcp::start(&server).ask("initialize", &json!({ "protocolVersion": asked }));
        let result = &answer["result"];
        assert_eq!(result["protocolVersion"], answered);
        assert_eq!(result["serverInfo"]["name"], "lockhouse");
        assert!(result["capabilities"]["tools"].is_object() && result["capabilities"]["logging"].is_object());
        assert!(result["resultType"].is_null());
    }
    let mut mcp = Mcp::start(&server);
    let meta = |version: &str| json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": version } });
    let answer = mcp.ask("server/discover", &meta("2026-07-28"));
    assert!(
        answer["result"]["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")),
        "{answer}"
    );
    assert_eq!(answer["result"]["resultType"], "complete");
    let answer = mcp.ask("tools/list", &meta("2026-07-28"));
    assert_eq!(
        (&answer["result"]["cacheScope"], &answer["result"]["resultType"]),
        (&json!("private"), &json!("complete"))
    );
    let answer = mcp.ask("tools/list", &meta("2030-01-01"));
    assert_eq!(code(&answer), -32_022);
    assert_eq!(answer["error"]["data"]["requested"], "2030-01-01");
}

#[test]
fn invalid_messages_are_refused_and_the_session_goes_on() {
    let server = Server::start();
    let mut mcp = Mcp::connected(&server);
    for (line, expected) in [
        ("nonsense", -32_700),
        ("[]", -32_600),
        ("{\"id\":1}", -32_600),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}", -32_600),
        ("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}", -32_600),
        ("{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"resources/list\"}", -32_601),
        ("{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"tools/call\"}", -32_602),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"tools/call\",\"params\":{\"name\":\"rm\"}}",
            -32_602,
        ),
    ] {
        mcp.send(line);
        assert_eq!(code(&mcp.next()), expected, "{line}");
    }
    for (tool, arguments) in [
        ("lock_acquire", json!({})),
        ("lock_acquire", json!({ "workspace": "w", "wiat": 3 })),
        ("lock_acquire", json!({ "workspace": "w", "wait": -1 })),
        ("lock_status", json!({ "workspace": 7 })),
        ("lock_list", json!({ "workspace": "w" })),
    ] {
        let answer = mcp.ask("tools/call", &json!({ "name": tool, "arguments": arguments }));
        assert_eq!(code(&answer), -32_602, "{tool} {arguments}");
    }
    mcp.send("");
    mcp.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/unknown\"}");
    mcp.send("{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{}}");
    assert_eq!(mcp.ask("ping", &json!({}))["result"], json!({}));
    assert!(server.user("bob").lock("w").is_null());
}

#[test]
fn all_locks_are_released_at_the_end() {
    let server = Server::start();
    let is_free = |workspace: &str| server.user("bob").lock(workspace).is_null();
    for signal in ["TERM", "INT", "HUP"] {
        let mut mcp = Mcp::connected(&server);
        mcp.acquire("a");
        mcp.acquire("b");
        let kill = Command::new("kill").args(["-s", signal, &mcp.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        assert_eq!(mcp.child.wait().unwrap().code(), Some(0), "{signal}");
        assert!(is_free("a") && is_free("b"), "{signal}");
    }
    let mut mcp = Mcp::connected(&server);
    mcp.acquire("a");
    drop(mcp.input.take());
    assert_eq!(mcp.child.wait().unwrap().code(), Some(0));
    assert!(is_free("a"));
}

#[test]
fn what_is_held_is_renewed_and_a_call_that_was_cancelled_leaves_no_lock() {
    let server = Server::start();
    let mut mcp = Mcp::connected(&server);
    mcp.acquire("w");
    let mut alice = server.user("alice");
    let acquired = alice.lock("w")["expires_at"].clone();
    server.pass(60_000);
    eventually(|| alice.lock("w")["expires_at"] != acquired);

    let fence = alice.acquire("v", &json!({})).expect(200)["lock"]["fence"].clone();
    let call = json!({ "name": "lock_acquire", "arguments": { "workspace": "v", "wait": 60 } });
    mcp.send(&json!({ "jsonrpc": "2.0", "id": "waits", "method": "tools/call", "params": call }).to_string());
    let waiting = || {
        let presence = server.user("alice").get("/api/v1/workspaces/v/presence").expect(200);
        presence["waiting"].as_array().unwrap().len()
    };
    eventually(|| waiting() == 1);
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "waits" } });
    mcp.send(&cancel.to_string());
    assert_eq!(mcp.ask("ping", &json!({}))["result"], json!({}));
    alice.release("v", &json!({ "fence": fence })).expect(200);
    let history = |alice: &mut common::Client| {
        alice.history("v").into_iter().map(|(event, _)| event).collect::<Vec<_>>()
    };
    eventually(|| history(&mut alice).len() == 4);
    assert_eq!(history(&mut alice), ["lock.released", "lock.acquired", "lock.released", "lock.acquired"]);
}

#[test]
fn without_a_server_the_agent_is_told_not_to_write() {
    let mut server = Server::start();
    let mut mcp = Mcp::connected(&server);
    server.stop();
    let result = mcp.call("lock_acquire", &json!({ "workspace": "w" }));
    let text = result["content"][0]["text"].as_str().unwrap();
    assert!(result["isError"] == true && text.contains("Do not write"), "{result}");
}
