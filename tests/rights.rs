//! Rights: every operation, tried by every kind of caller, and compared with the matrix of `docs/auth.md`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fmt::Write as _;
use std::path::PathBuf;

use common::{Client, Server};
use lockhouse::api::dialect::Dialect;
use lockhouse::api::operation::Route;
use lockhouse::api::routes::ROUTES;
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::domain::access::{Membership, Takeover};
use serde_json::{Value, json};

const CALLERS: [&str; 9] =
    ["nobody", "stranger", "viewer", "editor", "holder", "workspace admin", "read", "service", "admin"];

/// A workspace with one member of each role, and a lock of the holder on which an editor has knocked.
struct Stage<'s> {
    server: &'s Server,
    service: String,
    workspaces: usize,
}

impl Stage<'_> {
    fn call(&self, method: &str, path: &str, user: &str, body: Option<&Value>) -> Value {
        let mut client = self.server.client().by(user).with_token(&self.service);
        let answer = client.call(method, path, body);
        assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
        answer.json()
    }

    /// A new one, for an operation; its id, and the fence of the lock.
    fn set(&mut self, route: &Route) -> (String, String) {
        self.workspaces += 1;
        let id = format!("w{}", self.workspaces);
        let (workspace, lock, body) = match Dialect::of(route.path) {
            Dialect::Lockhouse => (id.clone(), format!("/api/v1/workspaces/{id}/lock"), None),
            Dialect::Terraform => (id.clone(), format!("/terraform/{id}/lock"), Some(json!({ "ID": "one" }))),
            Dialect::Lfs => (format!("lfs%2F{id}"), format!("/lfs/{id}/locks"), Some(json!({ "path": "a" }))),
        };
        let path = format!("/api/v1/workspaces/{workspace}");
        self.call("PUT", &path, "app", Some(&json!({ "name": "A workspace" })));
        for (user, role) in [
            ("viewer", "viewer"),
            ("editor", "editor"),
            ("holder", "editor"),
            ("boss", "admin"),
            ("other", "editor"),
        ] {
            self.call("PUT", &format!("{path}/members/{user}"), "app", Some(&json!({ "role": role })));
        }
        let held = self.call("POST", &lock, "holder", body.as_ref());
        if Dialect::of(route.path) == Dialect::Lockhouse {
            self.call("POST", &format!("{lock}/knock"), "other", None);
        }
        let fence =
            held["lock"]["id"].as_str().map_or_else(|| held["lock"]["fence"].to_string(), str::to_owned);
        (id, fence)
    }
}

fn caller(server: &Server, name: &str, tokens: &[(&str, String)]) -> Client {
    let client = server.client();
    let Some((_, token)) = tokens.iter().find(|(known, _)| *known == name) else { return client };
    // A service acts for a user.
    if name == "service" { client.by("editor").with_token(token) } else { client.with_token(token) }
}

/// The body with which the operation makes sense, and more of its query.
fn sense(route: &Route, workspace: &str, fence: &str) -> (String, Option<Value>) {
    let body = match route.name {
        "renewLocks" => Some(json!({ "locks": [{ "workspace_id": workspace }] })),
        "handOverLock" => Some(json!({ "to_user_id": "editor" })),
        "putMember" => Some(json!({ "role": "editor" })),
        "createToken" => Some(json!({ "user_id": "editor" })),
        "lockFile" => Some(json!({ "path": "a" })),
        name if name.starts_with("lockState") || name.starts_with("unlockState") => {
            Some(json!({ "ID": "one" }))
        }
        _ => None,
    };
    let query = match route.name {
        "passStateGate" => "?ID=one".to_owned(),
        "passGate" => format!("?workspace_id={workspace}&fence={fence}"),
        _ => String::new(),
    };
    (query, body)
}

fn matrix() -> String {
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.workspaces.membership = Membership::Enforced;
        config.locks.takeover = Takeover::Admins;
    });
    let tokens: Vec<_> = [
        ("stranger", Scope::User, Some("stranger")),
        ("viewer", Scope::User, Some("viewer")),
        ("editor", Scope::User, Some("editor")),
        ("holder", Scope::User, Some("holder")),
        ("workspace admin", Scope::User, Some("boss")),
        ("read", Scope::Read, None),
        ("service", Scope::Service, None),
        ("admin", Scope::Admin, Some("root")),
    ]
    .into_iter()
    .map(|(name, scope, user)| (name, server.token(scope, user)))
    .collect();
    let service = tokens.iter().find(|(name, _)| *name == "service").unwrap().1.clone();
    let mut stage = Stage { server: &server, service, workspaces: 0 };
    // The operations by what the callers are answered.
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let extra = [("acquireLock", "force", " with `force`"), ("releaseLock", "force", " with `force`")];
    for route in ROUTES {
        let variants = [("", "")].into_iter().chain(
            extra.iter().filter(|(name, ..)| *name == route.name).map(|(_, field, shown)| (*field, *shown)),
        );
        for (field, shown) in variants {
            let mut cells = String::new();
            for name in CALLERS {
                let (workspace, fence) = stage.set(route);
                let (mut query, body) = sense(route, &workspace, &fence);
                if !field.is_empty() {
                    query = format!("?{field}=true");
                }
                let user = if route.name == "releaseLocksOfUser" { "holder" } else { "other" };
                let path = route.path.replace("{workspace_id}", &workspace).replace("{user_id}", user);
                let path = path
                    .replace("{token_id}", "unknown")
                    .replace("{repository}", &workspace)
                    .replace("{id}", &fence);
                let mut client = caller(&server, name, &tokens);
                let answer = client.call(route.method, &format!("{path}{query}"), body.as_ref());
                let status = match (route.name, answer.status) {
                    // Each of many has a status of its own.
                    ("renewLocks", 200) => answer.json()["results"][0]["status"].as_u64().unwrap(),
                    (_, status) => status.into(),
                };
                let _ = write!(cells, " {status} |");
            }
            let path = route.path.strip_prefix("/api/v1").unwrap_or(route.path);
            let path = path.replace("/workspaces/{workspace_id}", "…");
            let operation = format!("`{} {path}`{shown}", route.method);
            match rows.iter_mut().find(|(known, _)| *known == cells) {
                Some((_, operations)) => operations.push(operation),
                None => rows.push((cells, vec![operation])),
            }
        }
    }
    let head =
        format!("| operation | {} |\n| --- |{}\n", CALLERS.join(" | "), " --- |".repeat(CALLERS.len()));
    let rows = rows.iter().map(|(cells, operations)| format!("| {} |{cells}\n", operations.join(", ")));
    head + &rows.collect::<String>()
}

#[test]
fn the_rights_matrix_of_the_docs_matches_the_server() {
    let page =
        std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/auth.md")).unwrap();
    let matrix = matrix();
    for line in matrix.lines() {
        assert!(page.lines().any(|known| known == line), "docs/auth.md should have:\n{matrix}");
    }
    let section = page.split("\n## Rights\n").nth(1).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, matrix.lines().filter(|line| line.starts_with("| `")).count(), "and no other rows");
}
