//! Those who may not any more: what they hear, what they wait for, what they hold and what they have asked for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Client, Server};
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::lock::member::Membership;
use serde_json::{Value, json};

fn enforced() -> Server {
    Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.locks.rules.membership = Membership::Enforced;
    })
}

fn user(server: &Server, name: &str) -> Client {
    server.with_token(Scope::User, Some(name))
}

fn workspace(server: &Server, id: &str, members: &[(&str, &str)]) {
    let mut app = server.with_token(Scope::Service, None);
    app.call("PUT", &format!("/api/v1/workspaces/{id}"), None).expect(200);
    for (user, role) in members {
        let path = format!("/api/v1/workspaces/{id}/members/{user}");
        app.call("PUT", &path, Some(&json!({ "role": role }))).expect(200);
    }
}

/// A stream of events, with what it tells.
struct Stream(BufReader<TcpStream>);

impl Stream {
    /// Of what is told from now on, once it is heard.
    fn of(server: &Server, name: &str) -> Self {
        let token = server.token(Scope::User, Some(name));
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!("GET /api/v1/events HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut stream = Self(BufReader::new(stream));
        while stream.line() != ": still here" {}
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
        line.trim_end().to_owned()
    }

    /// The next event.
    fn next(&mut self) -> Value {
        loop {
            if let Some(data) = self.line().strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    fn next_is(&mut self, event: &str, workspace: &str) -> Value {
        let told = self.next();
        assert_eq!((&told["type"], &told["workspace_id"]), (&json!(event), &json!(workspace)), "{told}");
        told
    }
}

#[test]
fn every_member_who_follows_hears_that_the_workspace_is_deleted_and_nobody_else() {
    let server = enforced();
    for held in [true, false] {
        workspace(&server, "w", &[("alice", "editor"), ("bob", "viewer"), ("carol", "editor")]);
        workspace(&server, "end", &[("bob", "editor"), ("carol", "editor"), ("mallory", "editor")]);
        let mut streams = ["alice", "bob", "mallory"].map(|name| Stream::of(&server, name));
        if held {
            user(&server, "alice").acquire("w", &json!({})).expect(200);
            streams[0].next_is("lock.acquired", "w");
            streams[1].next_is("lock.acquired", "w");
        }
        server.with_token(Scope::Admin, Some("root")).delete("/api/v1/workspaces/w").expect(200);
        let [alice, bob, mallory] = &mut streams;
        for stream in [alice, bob] {
            assert_eq!(stream.next_is("workspace.deleted", "w")["by_user_id"], "root");
        }
        user(&server, "mallory").acquire("end", &json!({})).expect(200);
        mallory.next_is("lock.acquired", "end");
        user(&server, "mallory").release("end", &json!({})).expect(200);
    }
}
