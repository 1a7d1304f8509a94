//! The locks of Terraform states: the HTTP contract, and the real `terraform` with it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "terraform/cli.rs"]
mod cli;
mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Answer, Client, NOON, Raw, Server};
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::domain::access::{Membership, Takeover};
use serde_json::{Value, json};

const HOUR: u64 = 3_600_000;

/// How a state is locked and unlocked: methods and the end of the path.
const FORMS: [[(&str, &str); 2]; 3] = [
    [("LOCK", ""), ("UNLOCK", "")],
    [("POST", "/lock"), ("DELETE", "/lock")],
    [("PUT", "/lock"), ("DELETE", "/lock")],
];

/// What Terraform sends and reads.
fn info(id: &str) -> Value {
    json!({
        "ID": id, "Operation": "OperationTypeApply", "Info": "", "Who": "alice@laptop", "Version": "1.11.4",
        "Created": "2026-11-23T12:00:00.706639315Z", "Path": "",
    })
}

/// A client that sends HTTP Basic credentials, as Terraform does.
struct Terraform {
    client: Client,
    authorization: String,
}

impl Terraform {
    fn new(server: &Server, user: &str, password: &str) -> Self {
        let authorization = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Self { client: server.client(), authorization }
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let mut headers = vec![("Authorization", self.authorization.as_str())];
        if !body.is_empty() {
            headers.push(("Content-Type", "application/json"));
        }
        self.client.request(method, &format!("/terraform/{path}"), &headers, body.as_bytes())
    }

    fn lock(&mut self, workspace: &str, id: &str) -> Answer {
        self.send("LOCK", workspace, &info(id).to_string())
    }

    fn unlock(&mut self, workspace: &str, id: &str) -> Answer {
        self.send("UNLOCK", workspace, &info(id).to_string())
    }

    /// As `terraform force-unlock` does: without an id.
    fn force_unlock(&mut self, workspace: &str) -> Answer {
        self.send("UNLOCK", workspace, "")
    }

    fn gate(&mut self, workspace: &str, query: &str) -> u16 {
        self.send("GET", &format!("{workspace}/gate{query}"), "").status
    }
}

fn kinds_of_events(client: &mut Client, workspace: &str) -> Vec<String> {
    client.history(workspace).into_iter().map(|(event, _)| event).collect()
}

#[test]
fn a_state_is_locked_and_unlocked_in_each_form() {
    let server = Server::start();
    let mut carol = server.user("carol");
    for [(lock, at), (unlock, end)] in FORMS {
        let mut alice = Terraform::new(&server, "alice", "anything");
        let locked = alice.send(lock, &format!("team%2Fprod{at}"), &info("one").to_string()).expect(200);
        let held = carol.lock("team%2Fprod");
        assert_eq!(locked["lock"]["fence"], held["fence"]);
        let expected =
            json!(["team/prod", "terraform", "alice", "one", 24 * HOUR, { "terraform": info("one") }]);
        let names = ["workspace_id", "kind", "locked_by_user_id", "session_id", "ttl_ms", "metadata"];
        assert_eq!(json!(names.map(|name| &held[name])), expected);
        // Terraform sends the same request again if the answer was lost.
        let again = alice.send(lock, &format!("team%2Fprod{at}"), &info("one").to_string()).expect(200);
        assert_eq!(again["lock"]["fence"], held["fence"]);
        for released in [true, false] {
            let answer = alice.send(unlock, &format!("team%2Fprod{end}"), &info("one").to_string());
            assert_eq!(answer.expect(200), json!({ "released": released }));
        }
        assert_eq!(carol.lock("team%2Fprod"), Value::Null);
    }
    let events = kinds_of_events(&mut carol, "team%2Fprod");
    assert_eq!(events, ["lock.released", "lock.acquired"].repeat(3));
}

#[test]
fn only_the_id_is_needed_and_ttl_ms_is_in_the_query() {
    let server = Server::start();
    let (mut alice, mut carol) = (Terraform::new(&server, "alice", ""), server.user("carol"));
    alice.send("LOCK", "w?ttl_ms=3600000", r#"{"ID":"x"}"#).expect(200);
    assert_eq!(carol.lock("w")["ttl_ms"], json!(HOUR));
    assert_eq!(carol.lock("w")["metadata"], json!({ "terraform": { "ID": "x" } }));
    // The address to unlock has the same query, because both come from one setting of the job.
    alice.send("UNLOCK", "w?ttl_ms=3600000", r#"{"ID":"x"}"#).expect(200);
    for (ttl, expected) in [("1", 1_000), ("99999999999", 7 * 24 * HOUR)] {
        alice.send("LOCK", &format!("w?ttl_ms={ttl}"), r#"{"ID":"x"}"#).expect(200);
        assert_eq!(carol.lock("w")["ttl_ms"], json!(expected), "{ttl}");
        alice.send("UNLOCK", "w?ID=x", "").expect(200);
    }
    for query in ["tll_ms=5", "ttl_ms=x", "ttl_ms=0", "force=true"] {
        alice.send("LOCK", &format!("w?{query}"), r#"{"ID":"x"}"#).refused(400, "invalid_request");
    }
    // The lease ends by itself.
    alice.send("LOCK", "w", r#"{"ID":"x"}"#).expect(200);
    server.pass(24 * HOUR);
    alice.lock("w", "y").expect(200);
    assert_eq!(kinds_of_events(&mut carol, "w")[..2], ["lock.acquired", "lock.expired"]);
}

#[test]
fn unknown_fields_are_kept_as_far_as_they_have_room() {
    let server = Server::start();
    let (mut alice, mut bob) = (Terraform::new(&server, "alice", ""), Terraform::new(&server, "bob", ""));
    let sent = r#"{"Future": {"a": [1.50, null]}, "ID": "x", "Long": "LONG", "Who": "me", "Small": 12345678901234567890}"#;
    let sent = sent.replace("LONG", &"l".repeat(4_096));
    alice.send("LOCK", "w", &sent).expect(200);
    let kept = r#"{"ID":"x","Who":"me","Future":{"a":[1.50,null]},"Small":12345678901234567890}"#;
    let shown = server.user("carol").get("/api/v1/workspaces/w/lock");
    assert!(shown.text().contains(&format!(r#""metadata":{{"terraform":{kept}}}"#)), "{}", shown.text());
    let held = bob.lock("w", "y");
    assert!(held.text().contains("12345678901234567890"), "{}", held.text());
    let held = held.expect(423);
    assert_eq!((&held["Who"], &held["Future"]), (&json!("me"), &json!({ "a": [1.5, null] })));
    // Long texts of Terraform itself have no room, either.
    let long = json!({ "ID": "long", "Info": "i".repeat(5_000), "Version": "1" });
    alice.send("LOCK", "v", &long.to_string()).expect(200);
    let held = bob.lock("v", "y").expect(423);
    assert_eq!((&held["ID"], &held["Info"], &held["Version"]), (&json!("long"), &json!(""), &json!("1")));
}

#[test]
fn a_locked_state_is_423_with_seven_texts() {
    let server = Server::start();
    let (mut alice, mut bob) = (Terraform::new(&server, "alice", ""), Terraform::new(&server, "bob", ""));
    let full = |id: &str, path: &str| {
        let mut info = info(id);
        info["Path"] = path.into();
        info
    };
    // A lock of Terraform: what its holder sent.
    alice.lock("team%2Fprod", "one").expect(200);
    for [(lock, at), (unlock, end)] in FORMS {
        for client in [&mut alice, &mut bob] {
            let sent = info("two").to_string();
            let held = client.send(lock, &format!("team%2Fprod{at}"), &sent);
            assert_eq!(held.header("content-type"), Some("application/json"));
            assert_eq!(held.expect(423), full("one", "team/prod"));
            let held = client.send(unlock, &format!("team%2Fprod{end}"), &sent);
            assert_eq!(held.header("content-type"), Some("application/json"));
            assert_eq!(held.expect(409), full("one", "team/prod"));
        }
        // A user cannot use the id of another.
        bob.send(lock, &format!("team%2Fprod{at}"), &info("one").to_string()).expect(423);
    }
    // The answer can be read for each body that the holder may have sent.
    for (created, shown) in [
        (r#""2026-11-23T13:00:00+01:00""#, "2026-11-23T13:00:00+01:00"),
        (r#""yesterday""#, "2026-11-23T12:00:00.000Z"),
        (r#""2026-11-23t12:00:00z""#, "2026-11-23T12:00:00.000Z"),
        ("7", "2026-11-23T12:00:00.000Z"),
        ("null", "2026-11-23T12:00:00.000Z"),
    ] {
        alice
            .send("LOCK", "odd", &format!(r#"{{"ID":"x","Created":{created},"Version":7,"Who":null}}"#))
            .expect(200);
        let expected = json!({
            "ID": "x", "Operation": "", "Info": "", "Who": "", "Version": "7", "Created": shown, "Path": "odd",
        });
        assert_eq!(bob.lock("odd", "y").expect(423), expected);
        alice.unlock("odd", "x").expect(200);
    }
    // A person.
    let name = [("X-User-Name", "Carol%20Martin"), ("Content-Type", "application/json")];
    let path = "/api/v1/workspaces/edited/lock";
    let lock =
        server.user("carol").request("POST", path, &name, br#"{"note":"moving the subnet"}"#).expect(200);
    let fence = lock["lock"]["fence"].to_string();
    let held = Terraform::new(&server, "carol", "").lock("edited", "one").expect(423);
    let expected = json!({
        "ID": format!("carol-{fence}"), "Operation": "edit", "Who": "Carol Martin (carol)", "Version": "",
        "Created": "2026-11-23T12:00:00.000Z", "Path": "edited",
        "Info": "moving the subnet — until 2026-11-23T12:10:00.000Z, or longer if it is renewed",
    });
    assert_eq!(held, expected);
    assert_eq!(bob.unlock("edited", &format!("carol-{fence}")).expect(409), expected);
    assert_eq!(bob.force_unlock("edited").expect(409), expected);
    server.user("dan").acquire("dans", &json!({})).expect(200);
    let held = bob.lock("dans", "one").expect(423);
    assert_eq!(held["Who"], "dan");
    assert_eq!(held["Info"], "until 2026-11-23T12:10:00.000Z, or longer if it is renewed");
}

#[test]
fn a_state_is_unlocked_by_its_user_or_by_who_may_take_over() {
    let server = Server::start();
    let (mut alice, mut bob) = (Terraform::new(&server, "alice", ""), Terraform::new(&server, "bob", ""));
    let mut carol = server.user("carol");
    for (query, body) in
        [("", r#"{"ID":"one"}"#), ("?ID=one", ""), ("?ID=two", r#"{"ID":"one"}"#), ("", ""), ("?ID=", "{}")]
    {
        for (client, event) in [(0, "lock.released"), (1, "lock.revoked")] {
            alice.lock("w", "one").expect(200);
            let client = if client == 0 { &mut alice } else { &mut bob };
            let answer = client.send("UNLOCK", &format!("w{query}"), body);
            assert_eq!(answer.expect(200), json!({ "released": true }), "{query} {body}");
            assert_eq!(kinds_of_events(&mut carol, "w")[0], event);
        }
    }
    let history = carol.get("/api/v1/workspaces/w/history").expect(200);
    assert_eq!(
        (&history["events"][0]["user_id"], &history["events"][0]["by_user_id"]),
        (&json!("alice"), &json!("bob"))
    );

    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.locks.takeover = Takeover::Admins;
    });
    let client = |user: &str| Terraform::new(&server, "ignored", &server.token(Scope::User, Some(user)));
    let (mut alice, mut bob) = (client("alice"), client("bob"));
    alice.lock("w", "one").expect(200);
    bob.unlock("w", "one").refused(403, "takeover_forbidden");
    bob.force_unlock("w").refused(403, "takeover_forbidden");
    bob.unlock("w", "two").expect(409);
    Terraform::new(&server, "root", &server.token(Scope::Admin, None)).unlock("w", "one").expect(200);
    alice.lock("w", "one").expect(200);
    alice.force_unlock("w").expect(200);
    bob.force_unlock("w").expect(200);
}

#[test]
fn a_lock_of_terraform_is_not_taken_over_but_revoked() {
    let server = Server::start();
    let (mut alice, mut carol) = (Terraform::new(&server, "alice", ""), server.user("carol"));
    alice.lock("w", "one").expect(200);
    carol.acquire("w", &json!({ "force": true })).refused(403, "takeover_forbidden");
    assert_eq!(carol.acquire("w", &json!({})).refused(409, "lock_held")["takeover_allowed"], false);
    carol.acquire("w", &json!({ "kind": "terraform" })).refused(400, "invalid_request");
    carol.delete("/api/v1/workspaces/w/lock?force=true").expect(200);
    assert_eq!(kinds_of_events(&mut carol, "w")[0], "lock.revoked");
    // The next holder's lock stays.
    carol.acquire("w", &json!({})).expect(200);
    alice.unlock("w", "one").expect(409);
    assert_eq!(carol.lock("w")["locked_by_user_id"], "carol");
}

#[test]
fn bodies_and_paths_that_cannot_be_meant_are_refused() {
    let server = Server::start();
    let mut alice = Terraform::new(&server, "alice", "");
    for body in
        ["{}", r#"{"ID":""}"#, r#"{"ID":7}"#, r#"{"ID":null}"#, "[]", "{", r#"{"ID":"x","ID":"y"}"#, ""]
    {
        for [(lock, at), _] in FORMS {
            alice.send(lock, &format!("w{at}"), body).refused(400, "invalid_request");
        }
    }
    alice.lock("w", &"x".repeat(129)).refused(400, "invalid_request");
    alice.lock("w", &"x".repeat(128)).expect(200);
    // A page of another origin could send a body without a media type, or one of a form.
    let authorization = alice.authorization.clone();
    for headers in
        [&[][..], &[("Content-Type", "text/plain")], &[("Content-Type", "application/x-www-form-urlencoded")]]
    {
        let headers = [&[("Authorization", authorization.as_str())], headers].concat();
        for [(lock, at), (unlock, end)] in FORMS {
            for (method, at) in [(lock, at), (unlock, end)] {
                let answer =
                    alice.client.request(method, &format!("/terraform/v{at}"), &headers, br#"{"ID":"x"}"#);
                answer.refused(415, "unsupported_media_type");
            }
        }
    }
    // 404 and 204 mean that there is no state yet: Terraform would create everything once more.
    for (method, path) in
        [("GET", "w"), ("POST", "w"), ("HEAD", "w"), ("DELETE", "w"), ("PUT", "w"), ("GET", "w/lock")]
    {
        let answer = alice.send(method, path, "");
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(answer.header("allow").is_some_and(|allow| allow.contains(if path == "w" {
            "LOCK"
        } else {
            "PUT"
        })));
    }
    assert_eq!(alice.send("POST", "w", &info("x").to_string()).status, 405);
    for path in ["team/prod", "", "w/", "w/state", "w/lock/"] {
        alice.send("GET", path, "").refused(400, "invalid_request");
        alice.send("LOCK", path, &info("x").to_string()).refused(400, "invalid_request");
    }
    alice.lock("a%zz", "x").refused(400, "invalid_request");
}

#[test]
fn force_unlock_sends_an_empty_chunked_body() {
    let server = Server::start();
    let (mut alice, mut carol) = (Terraform::new(&server, "alice", ""), server.user("carol"));
    for [_, (unlock, end)] in FORMS {
        for pieces in [1, 5] {
            alice.lock("w", "one").expect(200);
            let head = format!(
                "{unlock} /terraform/w{end} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nAuthorization: {}\r\n\
                 Content-Type: application/json\r\n\r\n",
                alice.authorization
            );
            let mut connection = Raw::connect(server.address());
            connection.send(head);
            for piece in b"0\r\n\r\n".chunks(5 / pieces) {
                connection.send(piece);
            }
            connection.send("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
            connection.finish();
            let answers = connection.answers();
            assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200]);
            assert_eq!(answers[0].json(), json!({ "released": true }));
            assert_eq!(carol.lock("w"), Value::Null);
        }
    }
    let mut connection = Raw::connect(server.address());
    connection.send("LOCK /terraform/w HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nX-User-Id: alice\r\n\r\n0\r\n\r\n");
    connection.finish();
    connection.answers()[0].refused(400, "invalid_request");
}

#[test]
fn the_gate_passes_the_holder_with_the_id() {
    let server = Server::start();
    let (mut alice, mut bob) = (Terraform::new(&server, "alice", ""), Terraform::new(&server, "bob", ""));
    assert_eq!(alice.gate("team%2Fprod", "?ID=one"), 403);
    alice.lock("team%2Fprod", "one").expect(200);
    assert_eq!(alice.gate("team%2Fprod", "?ID=one"), 204);
    for query in
        ["?ID=two", "?ID=", "", "?ID=one&ID=one", "?ID=%ff", "?id=one", &format!("?ID={}", "x".repeat(200))]
    {
        assert_eq!(alice.gate("team%2Fprod", query), 403, "{query}");
    }
    assert_eq!(bob.gate("team%2Fprod", "?ID=one"), 403);
    assert_eq!(alice.gate("team", "?ID=one"), 403);
    assert_eq!(server.client().get("/terraform/team%2Fprod/gate?ID=one").status, 401);
    server.user("carol").delete("/api/v1/workspaces/team%2Fprod/lock?force=true").expect(200);
    assert_eq!(alice.gate("team%2Fprod", "?ID=one"), 403);
    // A lock of another kind, also with the same session.
    server.user("alice").acquire("edited", &json!({ "session_id": "one" })).expect(200);
    assert_eq!(alice.gate("edited", "?ID=one"), 403);
    // A lease that has ended.
    alice.lock("w", "one").expect(200);
    server.pass(24 * HOUR);
    assert_eq!(alice.gate("w", "?ID=one"), 403);
}

#[test]
fn who_may_not_lock_is_told_403_and_never_404() {
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.workspaces.membership = Membership::Enforced;
    });
    let mut service = server.with_token(Scope::Service, None);
    service.call("PUT", "/api/v1/workspaces/w", None).expect(200);
    for (user, role) in [("alice", "editor"), ("vera", "viewer"), ("boss", "admin")] {
        let path = format!("/api/v1/workspaces/w/members/{user}");
        service.call("PUT", &path, Some(&json!({ "role": role }))).expect(200);
    }
    let client = |user: &str| Terraform::new(&server, "x", &server.token(Scope::User, Some(user)));
    let [mut alice, mut vera, mut sam, mut boss] = ["alice", "vera", "sam", "boss"].map(client);
    let read = server.token(Scope::Read, None);
    let mut read = Terraform::new(&server, "alice", &read);
    for client in [&mut vera, &mut sam, &mut read] {
        client.lock("w", "one").expect(403);
    }
    sam.lock("nothing", "one").expect(403);
    alice.lock("w", "one").expect(200);
    for client in [&mut sam, &mut vera, &mut read] {
        client.unlock("w", "one").expect(403);
        client.force_unlock("w").expect(403);
        assert_eq!(client.gate("w", "?ID=one"), 403);
    }
    assert_eq!(alice.gate("w", "?ID=one"), 204);
    boss.unlock("w", "one").expect(200);

    // No and bad credentials, and a page that uses what its browser remembers.
    for [(lock, at), (unlock, end)] in FORMS {
        for (method, at) in [(lock, at), (unlock, end)] {
            for authorization in [None, Some("Basic eDp5"), Some("Basic !"), Some("Bearer x")] {
                let given: Vec<_> = authorization.map(|given| ("Authorization", given)).into_iter().collect();
                let headers = [&given[..], &[("Content-Type", "application/json")]].concat();
                let body = info("one").to_string();
                let refused =
                    server.client().request(method, &format!("/terraform/w{at}"), &headers, body.as_bytes());
                refused.refused(401, "unauthenticated");
                assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"lockhouse\""));
            }
            let headers = [
                ("Authorization", alice.authorization.as_str()),
                ("Content-Type", "application/json"),
                ("Origin", "https://evil.example"),
            ];
            let body = info("one").to_string();
            server
                .client()
                .request(method, &format!("/terraform/w{at}"), &headers, body.as_bytes())
                .expect(403);
        }
    }
}

#[test]
fn the_user_is_the_owner_of_the_token_or_who_a_service_names() {
    let server = Server::with(|config| config.auth.mode = AuthMode::Token);
    let (user, service) = (server.token(Scope::User, Some("alice")), server.token(Scope::Service, None));
    for (name, password, expected) in [("ci", &user, "alice"), ("", &user, "alice"), ("Zoë", &service, "Zoë")]
    {
        let mut client = Terraform::new(&server, name, password);
        let lock = client.lock("w", "one").expect(200);
        assert_eq!(lock["lock"]["locked_by_user_id"], expected, "{name}");
        client.unlock("w", "one").expect(200);
    }
    // A JWT, and a trusted proxy, whose user wins: the credentials of the browser are for the proxy.
    let jwts = Server::with(|config| {
        config.auth.mode = AuthMode::Jwt;
        config.auth.jwt_secret = vec!["a secret of at least 32 bytes, for this test".into()];
    });
    let claims = json!({ "sub": "jane", "exp": NOON.0 / 1_000 + 300 });
    let jwt = common::jwt::hs256(&claims, "a secret of at least 32 bytes, for this test");
    let lock = Terraform::new(&jwts, "ignored", &jwt).lock("w", "one").expect(200);
    assert_eq!(lock["lock"]["locked_by_user_id"], "jane");
    let behind = Server::with(|config| {
        config.auth.mode = AuthMode::Proxy;
        config.auth.proxy_addresses = vec!["127.0.0.1".parse().unwrap()];
    });
    let basic = Terraform::new(&behind, "mallory", "x").authorization;
    let headers = [("Remote-User", "pat"), ("Authorization", &basic), ("Content-Type", "application/json")];
    let lock = behind.client().request("LOCK", "/terraform/w", &headers, info("one").to_string().as_bytes());
    assert_eq!(lock.expect(200)["lock"]["locked_by_user_id"], "pat");
    Terraform::new(&behind, "mallory", "x").lock("w", "one").refused(401, "unauthenticated");
    let token = behind.token(Scope::Service, None);
    assert_eq!(
        Terraform::new(&behind, "ci", &token).lock("v", "one").expect(200)["lock"]["locked_by_user_id"],
        "ci"
    );
    // Basic credentials open nothing else.
    let mut alice = Terraform::new(&server, "x", &user);
    let headers = [("Authorization", alice.authorization.as_str())];
    alice.client.request("GET", "/api/v1/locks", &headers, b"").refused(401, "unauthenticated");
}
