//! Git LFS locks: the API, and the real `git lfs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "lfs/cli.rs"]
mod cli;
mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Answer, Client, Server};
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::domain::access::{Membership, Takeover};
use serde_json::{Value, json};

const LFS: &str = "application/vnd.git-lfs+json";
const LOCKS: &str = "/lfs/team/game.git/info/lfs/locks";
const DAY: u64 = 24 * 60 * 60 * 1_000;

/// A client that sends HTTP Basic credentials, as Git LFS does.
struct Lfs {
    client: Client,
    authorization: String,
}

impl Lfs {
    fn new(server: &Server, user: &str, password: &str) -> Self {
        let authorization = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Self { client: server.client(), authorization }
    }

    fn get(&mut self, path: &str) -> Answer {
        self.client.request("GET", path, &[("Authorization", &self.authorization), ("Accept", LFS)], b"")
    }

    fn post(&mut self, path: &str, body: &Value) -> Answer {
        let headers = [("Authorization", self.authorization.as_str()), ("Content-Type", LFS)];
        self.client.request("POST", path, &headers, body.to_string().as_bytes())
    }

    fn lock(&mut self, path: &str) -> Answer {
        self.post(LOCKS, &json!({ "path": path, "ref": { "name": "refs/heads/main" } }))
    }

    fn unlock(&mut self, id: &Value, force: bool) -> Answer {
        self.post(
            &format!("{LOCKS}/{}/unlock", id.as_str().unwrap()),
            &json!({ "force": force, "ref": null }),
        )
    }

    fn verify(&mut self) -> Value {
        self.post(&format!("{LOCKS}/verify"), &json!({ "ref": { "name": "refs/heads/main" } })).expect(200)
    }
}

fn paths(locks: &Value) -> Vec<&str> {
    locks.as_array().unwrap().iter().map(|lock| lock["path"].as_str().unwrap()).collect()
}

#[test]
fn a_file_is_locked_seen_and_unlocked() {
    let server = Server::start();
    let (mut alice, mut bob) = (Lfs::new(&server, "alice", ""), Lfs::new(&server, "bob", "x"));
    let lock = alice.lock("art/hero.psd").expect(201)["lock"].clone();
    assert_eq!((&lock["path"], &lock["owner"]["name"]), (&json!("art/hero.psd"), &json!("alice")));
    let fields: Vec<_> = lock.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["id", "locked_at", "owner", "path"]);
    let api = server.user("carol").lock("lfs%2Fteam%2Fgame%3Aart%2Fhero.psd");
    assert_eq!(
        (&api["kind"], api["fence"].to_string(), &api["ttl_ms"]),
        (&json!("lfs"), lock["id"].as_str().unwrap().to_owned(), &json!(90 * DAY))
    );
    for (client, says) in [(&mut alice, "You have locked"), (&mut bob, "alice has locked")] {
        let refused = client.lock("art/hero.psd").expect(409);
        assert_eq!(refused["lock"], lock, "{refused}");
        assert!(refused["message"].as_str().unwrap().starts_with(says), "{refused}");
    }
    let other = bob.lock("Ärger/naïve: 1.bin").expect(201)["lock"].clone();
    assert_eq!(paths(&bob.get(LOCKS).expect(200)["locks"]), ["art/hero.psd", "Ärger/naïve: 1.bin"]);
    for query in
        ["?path=art%2Fhero.psd&refspec=refs%2Fheads%2Fmain", &format!("?id={}", lock["id"].as_str().unwrap())]
    {
        let found = bob.get(&format!("{LOCKS}{query}")).expect(200);
        assert_eq!(found, json!({ "locks": [lock] }), "{query}");
    }
    for query in
        ["?path=art", "?path=..", "?id=7", "?id=x", &format!("?path=art&id={}", lock["id"].as_str().unwrap())]
    {
        assert_eq!(bob.get(&format!("{LOCKS}{query}")).expect(200), json!({ "locks": [] }), "{query}");
    }
    let verified = alice.verify();
    assert_eq!(
        (paths(&verified["ours"]), paths(&verified["theirs"])),
        (vec!["art/hero.psd"], vec!["Ärger/naïve: 1.bin"])
    );
    let refused = alice.unlock(&other["id"], false).expect(403);
    assert!(refused["message"].as_str().unwrap().starts_with("bob has locked this file."), "{refused}");
    assert_eq!(alice.unlock(&other["id"], true).expect(200)["lock"], other);
    assert_eq!(alice.unlock(&lock["id"], false).expect(200)["lock"], lock);
    assert_eq!(
        alice.unlock(&lock["id"], false).expect(404)["message"],
        format!("This repository has no lock with the id {}.", lock["id"].as_str().unwrap())
    );
    let mut history: Vec<_> =
        server.user("carol").history("lfs%2Fteam%2Fgame%3A%C3%84rger%2Fna%C3%AFve%3A%201.bin");
    history.reverse();
    assert_eq!(
        history.into_iter().map(|(event, _)| event).collect::<Vec<_>>(),
        ["lock.acquired", "lock.revoked"]
    );
}

#[test]
fn a_lock_of_another_repository_is_not_found() {
    let server = Server::start();
    let mut alice = Lfs::new(&server, "alice", "");
    let lock = alice.lock("a").expect(201)["lock"].clone();
    let id = lock["id"].as_str().unwrap();
    for repository in ["team", "team/game/x", "team/gam", "team/gameplay"] {
        alice.post(&format!("/lfs/{repository}/locks/{id}/unlock"), &json!({})).expect(404);
        assert_eq!(
            alice.get(&format!("/lfs/{repository}/locks?id={id}")).expect(200),
            json!({ "locks": [] })
        );
    }
    assert_eq!(paths(&alice.get("/lfs/team/game/locks").expect(200)["locks"]), ["a"]);
}

#[test]
fn bad_paths_bodies_and_other_requests_are_refused_with_a_message() {
    let server = Server::start();
    let mut alice = Lfs::new(&server, "alice", "");
    for path in ["", "/etc/passwd", "..", "a/../b", "a\nb", &"x".repeat(1_087)] {
        let refused = alice.lock(path).expect(422);
        assert!(!refused["message"].as_str().unwrap().is_empty(), "{refused}");
    }
    alice.post(LOCKS, &json!({})).expect(422);
    alice.lock(&"x".repeat(1_086)).expect(201);
    for repository in ["a%3Ab", "a//b", "a/..", "%2E", "a/"] {
        alice.post(&format!("/lfs/{repository}/locks"), &json!({ "path": "a" })).expect(422);
    }
    alice.post(LOCKS, &json!({ "path": 7 })).expect(400);
    let authorization = alice.authorization.clone();
    let mut send = |method: &str, path: &str, media: &str, body: &str| {
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", media)];
        let answer = alice.client.request(method, path, &headers, body.as_bytes());
        assert_eq!(answer.header("content-type"), Some(LFS), "{method} {path}");
        assert!(answer.status == 201 || !answer.json()["message"].as_str().unwrap().is_empty());
        answer.status
    };
    assert_eq!(send("POST", LOCKS, LFS, "{"), 400);
    assert_eq!(send("POST", LOCKS, "text/plain", "{}"), 415);
    assert_eq!(
        send("POST", LOCKS, "application/json; charset=utf-8", r#"{"path":"b","more":[1.5,null]}"#),
        201
    );
    assert_eq!(send("DELETE", LOCKS, LFS, ""), 405);
    assert_eq!(send("POST", "/lfs/team/game/objects/batch", LFS, "{}"), 404);
    assert_eq!(send("GET", &format!("{LOCKS}?cursor=!"), LFS, ""), 400);
}

#[test]
fn pages_follow_one_another_and_miss_nothing() {
    let server = Server::start();
    let mut alice = Lfs::new(&server, "alice", "");
    let mut expected: Vec<_> = (0..23).map(|number| format!("{}/{number}", number % 3)).collect();
    for path in &expected {
        alice.lock(path).expect(201);
    }
    expected.sort();
    let (mut listed, mut verified) = (Vec::new(), Vec::new());
    let mut cursor = String::new();
    loop {
        let page = alice.get(&format!("{LOCKS}?limit=5&cursor={cursor}")).expect(200);
        listed.extend(paths(&page["locks"]).into_iter().map(str::to_owned));
        let body = json!({ "limit": 5, "cursor": cursor });
        let same = alice.post(&format!("{LOCKS}/verify"), &body).expect(200);
        verified.extend(paths(&same["ours"]).into_iter().map(str::to_owned));
        assert_eq!(page["next_cursor"], same["next_cursor"]);
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!((&listed, &verified), (&expected, &expected));
    for limit in ["0", "1000000"] {
        assert_eq!(
            alice.get(&format!("{LOCKS}?limit={limit}")).expect(200)["locks"].as_array().unwrap().len(),
            23
        );
    }
}

#[test]
fn a_lease_of_90_days_is_renewed_when_it_is_used() {
    let server = Server::start();
    let (mut alice, mut bob) = (Lfs::new(&server, "alice", ""), Lfs::new(&server, "bob", ""));
    alice.lock("a").expect(201);
    let left = |server: &Server| {
        server.user("carol").lock("lfs%2Fteam%2Fgame%3Aa")["expires_in_ms"].as_u64().unwrap() / DAY
    };
    server.pass(29 * DAY);
    alice.verify();
    assert_eq!(left(&server), 61, "not yet");
    server.pass(2 * DAY);
    bob.verify();
    bob.lock("a").expect(409);
    alice.get(LOCKS).expect(200);
    assert_eq!(left(&server), 59, "by nobody else, and not by reading");
    alice.verify();
    assert_eq!(left(&server), 90);
    server.pass(31 * DAY);
    alice.lock("a").expect(409);
    assert_eq!(left(&server), 90);
    server.pass(90 * DAY);
    bob.lock("a").expect(201);
    assert_eq!(paths(&alice.verify()["theirs"]), ["a"]);
}

#[test]
fn credentials_are_a_name_and_a_token() {
    let server = Server::with(|config| config.auth.mode = AuthMode::Token);
    let alice = server.token(Scope::User, Some("alice"));
    let service = server.token(Scope::Service, None);
    let reads = server.token(Scope::Read, None);
    let lock = Lfs::new(&server, "any name", &alice).lock("a").expect(201)["lock"].clone();
    assert_eq!(lock["owner"]["name"], "alice");
    let lock = Lfs::new(&server, "Zoë", &service).lock("b").expect(201)["lock"].clone();
    assert_eq!(lock["owner"]["name"], "Zoë");
    Lfs::new(&server, "", &service).lock("c").expect(400);
    Lfs::new(&server, "bob", &reads).lock("c").expect(403);
    assert_eq!(Lfs::new(&server, "bob", &reads).get(LOCKS).expect(200)["locks"].as_array().unwrap().len(), 2);
    let refused = server.client().request("GET", LOCKS, &[], b"");
    refused.expect(401);
    assert_eq!(refused.header("lfs-authenticate"), Some("Basic realm=\"lockhouse\""));
    assert_eq!(refused.header("www-authenticate"), None, "a browser would ask for a password");
    // A page of another origin must not use what a browser remembers.
    let basic = format!("Basic {}", STANDARD.encode(format!("x:{alice}")));
    let headers = [("Authorization", basic.as_str()), ("Origin", "https://evil.example")];
    server.client().request("GET", LOCKS, &headers, b"").expect(403);
    server
        .client()
        .request("GET", "/api/v1/locks", &[("Authorization", &basic)], b"")
        .refused(401, "unauthenticated");
    let bearer = format!("Bearer {alice}");
    server.client().request("GET", LOCKS, &[("Authorization", &bearer)], b"").expect(200);
}

#[test]
fn without_credentials_every_request_is_asked_for_them() {
    let server = Server::start();
    for (method, path) in [("GET", ""), ("POST", ""), ("POST", "/verify"), ("POST", "/7/unlock")] {
        let refused = server.client().request(method, &format!("{LOCKS}{path}"), &[], b"");
        refused.expect(401);
        assert_eq!(refused.header("lfs-authenticate"), Some("Basic realm=\"lockhouse\""), "{path}");
    }
}

#[test]
fn the_same_wrong_password_is_refused_for_a_minute_after_ten_times() {
    let server = Server::with(|config| config.auth.mode = AuthMode::Token);
    let mut alice = Lfs::new(&server, "alice", "wrong");
    for _ in 0..10 {
        alice.get(LOCKS).expect(401);
    }
    let limited = alice.get(LOCKS);
    limited.expect(429);
    assert!(limited.header("retry-after").is_some());
    let token = server.token(Scope::User, Some("alice"));
    Lfs::new(&server, "alice", &token).get(LOCKS).expect(200);
    Lfs::new(&server, "alice", "otherwise wrong").get(LOCKS).expect(401);
    for _ in 0..20 {
        server.client().request("GET", LOCKS, &[], b"").expect(401);
    }
    server.pass(60_000);
    alice.get(LOCKS).expect(401);
}

#[test]
fn roles_on_the_repository_hold_for_its_files() {
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.workspaces.membership = Membership::Enforced;
        config.locks.takeover = Takeover::Admins;
    });
    let mut service = server.with_token(Scope::Service, None);
    service.call("PUT", "/api/v1/workspaces/lfs%2Fteam%2Fgame", Some(&json!({}))).expect(200);
    let mut person = |user: &str, role: Option<&str>| {
        if let Some(role) = role {
            let path = format!("/api/v1/workspaces/lfs%2Fteam%2Fgame/members/{user}");
            service.call("PUT", &path, Some(&json!({ "role": role }))).expect(200);
        }
        Lfs::new(&server, "", &server.token(Scope::User, Some(user)))
    };
    let (mut editor, mut other) = (person("editor", Some("editor")), person("other", Some("editor")));
    let (mut viewer, mut admin) = (person("viewer", Some("viewer")), person("admin", Some("admin")));
    let mut outsider = person("outsider", None);
    let lock = editor.lock("a").expect(201)["lock"].clone();
    viewer.lock("b").expect(403);
    assert_eq!(paths(&viewer.verify()["theirs"]), ["a"]);
    let mut owner = server.with_token(Scope::Admin, Some("owner"));
    // Members see the files among all locks that they may see, in the order of the ids; outsiders do not.
    for workspace in ["before", "lfs/team/other", "lfs/zoo", "zoo"] {
        let path = format!("/api/v1/workspaces/{}", workspace.replace('/', "%2F"));
        service.call("PUT", &path, Some(&json!({}))).expect(200);
        let members = ["owner", "viewer"].into_iter().take(if workspace == "lfs/zoo" { 1 } else { 2 });
        for member in members {
            let path = format!("{path}/members/{member}");
            service.call("PUT", &path, Some(&json!({ "role": "editor" }))).expect(200);
        }
        owner.call("POST", &format!("{path}/lock"), Some(&json!({}))).expect(200);
    }
    let listed = |user: &str, query: &str| -> Vec<String> {
        let token = server.token(Scope::User, Some(user));
        let page = server.client().with_token(&token).get(&format!("/api/v1/locks{query}")).expect(200);
        let ids = page["locks"].as_array().unwrap().iter().map(|lock| lock["workspace_id"].as_str().unwrap());
        ids.map(str::to_owned).collect()
    };
    assert_eq!(listed("viewer", ""), ["before", "lfs/team/game:a", "lfs/team/other", "zoo"]);
    assert_eq!(listed("viewer", "?kind=lfs"), ["lfs/team/game:a"]);
    assert_eq!(listed("viewer", "?prefix=lfs%2Fteam%2Fgame"), ["lfs/team/game:a"]);
    assert_eq!(listed("viewer", "?limit=2"), ["before", "lfs/team/game:a"]);
    assert_eq!(listed("editor", ""), ["lfs/team/game:a"]);
    assert_eq!(listed("outsider", ""), [""; 0]);
    for path in [LOCKS, "/lfs/team/unknown/locks"] {
        assert!(!outsider.get(path).expect(403)["message"].as_str().unwrap().is_empty());
        outsider.post(&format!("{path}/verify"), &json!({})).expect(403);
        outsider.post(path, &json!({ "path": "a" })).expect(403);
        outsider.post(&format!("{path}/{}/unlock", lock["id"].as_str().unwrap()), &json!({})).expect(403);
    }
    for refused in [&mut viewer, &mut other] {
        refused.unlock(&lock["id"], true).expect(403);
    }
    admin.unlock(&lock["id"], true).expect(200);
    // Who follows the repository follows its files, and so do its members.
    let token = server.token(Scope::User, Some("viewer"));
    let follow = |query: &str| {
        let mut stream = server.client().with_token(&token).stream().try_clone().unwrap();
        let request =
            format!("GET /api/v1/events{query} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        std::io::BufReader::new(stream)
    };
    let mut streams = [follow("?workspace_id=lfs%2Fteam%2Fgame&since=0"), follow("?since=0")];
    for stream in &mut streams {
        let mut line = String::new();
        while !line.contains("lock.acquired") {
            line.clear();
            assert!(std::io::BufRead::read_line(stream, &mut line).unwrap() > 0);
        }
    }
    // A removed member loses the files, too.
    editor.lock("a").expect(201);
    server
        .with_token(Scope::Service, None)
        .delete("/api/v1/workspaces/lfs%2Fteam%2Fgame/members/editor")
        .expect(200);
    server.pass(1_000);
    other.lock("a").expect(201);
}

#[test]
fn by_default_a_member_of_the_team_may_end_the_lock_of_another() {
    let server = Server::with(|config| config.auth.mode = AuthMode::Token);
    let mut alice = Lfs::new(&server, "", &server.token(Scope::User, Some("alice")));
    let mut bob = Lfs::new(&server, "", &server.token(Scope::User, Some("bob")));
    let lock = alice.lock("a").expect(201)["lock"].clone();
    bob.unlock(&lock["id"], true).expect(200);
    assert_eq!(alice.verify()["ours"], json!([]));
}
