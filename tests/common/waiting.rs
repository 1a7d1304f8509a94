//! Requests that wait for the lock of the workspace `w`, and its line.

use serde_json::Value;

use super::{Client, Server, eventually};

/// Sends an acquire request without reading the answer.
pub fn ask(server: &Server, user: &str, body: &Value) -> Client {
    let mut client = server.client();
    let body = body.to_string();
    client.send(
        format!(
            "POST /api/v1/workspaces/w/lock HTTP/1.1\r\nHost: test\r\nX-User-Id: {user}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    client
}

/// The users in the line, in order.
pub fn line(server: &Server) -> Vec<String> {
    let presence = server.client().get("/api/v1/workspaces/w/presence").expect(200);
    let waiting = presence["waiting"].as_array().unwrap();
    waiting.iter().map(|person| person["user_id"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
pub fn line_becomes(server: &Server, users: &[&str]) {
    eventually(|| line(server) == users);
}
