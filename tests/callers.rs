//! Identification of callers in unusual cases, and rate limits.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{Answer, Client, NOON, Raw, Server};
use lockhouse::auth::Scope;
use lockhouse::config::{self, AuthMode, Sources};
use ring::hmac::HMAC_SHA256;
use serde_json::{Value, json};

const SECRET: &str = "a secret of at least thirty-two bytes";

fn with_jwt() -> Server {
    Server::with(|config| {
        config.auth.mode = AuthMode::Jwt;
        config.auth.jwt_secret = vec![SECRET.into()];
    })
}

fn jwt(claims: &Value) -> String {
    let mut all = json!({ "sub": "alice", "exp": NOON.0 / 1_000 + 300 });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    common::jwt::hs256(&all, SECRET)
}

fn with_proxy() -> Server {
    Server::with(|config| {
        config.auth.mode = AuthMode::Proxy;
        config.auth.proxy_addresses = vec!["127.0.0.1".parse().unwrap()];
    })
}

#[test]
fn an_invalid_asserted_name_cannot_be_replaced_by_the_user() {
    let shown = |answer: Answer| answer.expect(200)["lock"]["locked_by_name"].clone();
    let boss = json!({ "name": "The Boss" });
    let server = with_jwt();
    let ask = |name: Value| {
        let mut client = server.client().with_token(&jwt(&json!({ "name": name, "sub": name.to_string() })));
        let workspace = name.to_string().len();
        shown(client.acquire(&format!("w{workspace}"), &json!({ "name": "The Boss", "force": true })))
    };
    for unusable in [json!("x".repeat(201)), json!(7), json!("a\nb"), json!(["a"])] {
        assert_eq!(ask(unusable.clone()), Value::Null, "{unusable}");
    }
    assert_eq!(ask(json!("Alice")), "Alice");
    // A user without an asserted name may give one.
    assert_eq!(ask(Value::Null), "The Boss");
    let server = with_proxy();
    let long = "x".repeat(201);
    let ask = |name: &str| {
        let headers = [("Remote-User", "alice"), ("Remote-Name", name), ("Content-Type", "application/json")];
        let path = format!("/api/v1/workspaces/{}/lock", name.len() + 1);
        shown(server.client().request("POST", &path, &headers, boss.to_string().as_bytes()))
    };
    assert_eq!((ask(&long), ask("Alice"), ask("")), (Value::Null, json!("Alice"), json!("The Boss")));
}

#[test]
fn user_ids_of_tokens_cannot_be_claimed() {
    let server = Server::with(|config| config.auth.mode = AuthMode::Token);
    let mut admin = server.with_token(Scope::Admin, None);
    let lock = admin.acquire("w", &json!({})).expect(200)["lock"].clone();
    let id = lock["locked_by_user_id"].as_str().unwrap();
    assert!(id.starts_with("token:"));
    for scope in [Scope::Service, Scope::Admin] {
        let mut other = server.client().by(id).with_token(&server.token(scope, None));
        let refused = other.delete("/api/v1/workspaces/w/lock").refused(400, "invalid_request");
        assert_eq!(refused["field"], "X-User-Id");
    }
    let made = admin.post("/api/v1/tokens", &json!({ "user_id": id })).refused(400, "invalid_request");
    assert_eq!(made["field"], "user_id");
    admin.release("w", &json!({})).expect(200);
    let claims = json!({ "sub": id });
    with_jwt().client().with_token(&jwt(&claims)).get("/api/v1/locks").refused(401, "unauthenticated");
    let named = [("Remote-User", id)];
    with_proxy().client().request("GET", "/api/v1/locks", &named, b"").refused(400, "invalid_request");
}

#[test]
fn jwts_with_a_crit_header_are_refused() {
    let server = with_jwt();
    let claims = json!({ "sub": "alice", "exp": NOON.0 / 1_000 + 300 }).to_string();
    let with_header = |header: &str| {
        let token = common::jwt::signed(header, &claims, common::jwt::mac(HMAC_SHA256, SECRET));
        server.client().with_token(&token).get("/api/v1/locks")
    };
    with_header(r#"{"alg":"HS256"}"#).expect(200);
    with_header(r#"{"alg":"HS256","crit":["exp"]}"#).refused(401, "unauthenticated");
    with_header(r#"{"alg":"HS256","crit":["b64"],"b64":true}"#).refused(401, "unauthenticated");
    with_header(r#"{"alg":"HS256","crit":null}"#).refused(401, "unauthenticated");
}

/// How many calls are answered before the first 429, of at most 50.
fn until_limited(mut call: impl FnMut() -> u16) -> usize {
    (0..50).take_while(|_| call() != 429).count()
}

#[test]
fn requests_are_limited_per_caller_including_refused_ones() {
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.limits.requests_per_second = Some(2);
    });
    let mut monitors = [0, 1].map(|_| server.with_token(Scope::Read, None));
    let mut nobody = server.client();
    for monitor in &mut monitors {
        assert_eq!(until_limited(|| monitor.get("/api/v1/locks").status), 20, "each for themselves");
    }
    assert_eq!(until_limited(|| nobody.get("/api/v1/locks").status), 20);
    assert_eq!(until_limited(|| nobody.get("/healthz").status), 20, "of their own");
    nobody.get("/readyz").refused(429, "rate_limited");
    nobody.get("/api/v1/openapi.json").refused(429, "rate_limited");
    assert_eq!(server.limited("requests_per_second"), 6);
    // None of these is free.
    let calls: [fn(&mut Client) -> Answer; 4] = [
        |client| client.try_request("GET", "/nowhere", &[], b"").unwrap(),
        |client| client.try_request("PATCH", "/api/v1/locks", &[], b"").unwrap(),
        |client| client.request("POST", "/api/v1/workspaces/w/lock/release", &[], b"{ malformed"),
        |client| client.request("GET", "/api/v1/locks", &[("X-User-Id", "a"), ("X-User-Id", "b")], b""),
    ];
    for call in calls {
        server.pass(60_000);
        assert_eq!(until_limited(|| call(&mut nobody).status), 20);
    }
    assert_eq!(nobody.request("OPTIONS", "/api/v1/locks", &[], b"").status, 204);
    let mut raw = Raw::connect(server.address());
    raw.send("GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert_eq!(raw.answers()[0].status, 429);
}

#[test]
fn proxies_covering_all_addresses_and_reserved_headers_are_refused() {
    let load = |addresses: &str, header: &str| {
        let pairs = [("MODE", "proxy"), ("PROXY_ADDRESSES", addresses), ("PROXY_USER_HEADER", header)];
        let environment =
            pairs.map(|(name, value)| (format!("LOCKHOUSE_AUTH_{name}"), value.to_owned())).to_vec();
        config::load(&Sources { environment, ..Sources::default() })
    };
    for addresses in
        ["0.0.0.0/0", "0.0.0.0/1,128.0.0.0/1", "::/1,10.0.0.1,8000::/2,c000::/2", "::ffff:0.0.0.0/96"]
    {
        let refused = load(addresses, "Remote-User").unwrap_err().to_string();
        assert!(refused.contains("must not cover all addresses"), "{addresses}: {refused}");
    }
    let addresses = load("0.0.0.0/1,10.0.0.0/8,::ffff:127.0.0.1", "X-Forwarded-User").unwrap();
    assert!(addresses.config.auth.proxy_addresses[2].covers([127, 0, 0, 1].into()));
    for meant in
        ["Authorization", "origin", "HOST", "X-Forwarded-For", "Content-Length", "Cookie", "Connection"]
    {
        let refused = load("127.0.0.1", meant).unwrap_err().to_string();
        assert!(refused.contains("proxy_user_header"), "{meant}: {refused}");
    }
}

/// The response of whoami to a request with this header.
fn said(server: &Server, header: &str, value: &str) -> Answer {
    server.client().request("GET", "/api/v1/whoami", &[(header, value)], b"")
}

#[test]
fn ids_are_strictly_percent_decoded_everywhere() {
    let server = Server::start();
    for (value, user) in [("a%25zz", "a%zz"), ("zo%C3%AB", "zoë"), ("a%2Cb", "a,b"), ("a%2Fb", "a/b")] {
        assert_eq!(said(&server, "X-User-Id", value).expect(200)["user_id"], user);
        let listed = server.user("alice").get(&format!("/api/v1/locks?user_id={value}"));
        listed.expect(200);
        server.user("alice").get(&format!("/api/v1/workspaces/{value}/lock")).expect(200);
    }
    for bad in ["a%zz", "a%", "%c3", "%ff", "%2", "."] {
        assert_eq!(said(&server, "X-User-Id", bad).refused(400, "invalid_request")["field"], "X-User-Id");
        let mut alice = server.user("alice");
        let mut field = |path: String| alice.get(&path).refused(400, "invalid_request")["field"].clone();
        let paths = [
            (format!("/api/v1/locks?user_id={bad}"), "user_id"),
            (format!("/api/v1/events?workspace_id={bad}"), "workspace_id"),
            (format!("/api/v1/workspaces/{bad}/lock"), "workspace_id"),
        ];
        let fields: Vec<_> = paths.map(|(path, expected)| (field(path), expected)).into();
        assert!(fields.iter().all(|(found, expected)| found == expected), "{bad}: {fields:?}");
        let gate = [("X-Lock-Workspace", bad), ("X-Lock-Fence", "1")];
        server.user("alice").request("GET", "/api/v1/gate", &gate, b"").refused(403, "not_holder");
    }
    let bad_name = [("X-User-Id", "alice"), ("X-User-Name", "100%")];
    let refused = server.client().request("GET", "/api/v1/whoami", &bad_name, b"");
    assert_eq!(refused.refused(400, "invalid_request")["field"], "X-User-Name");
}

#[test]
fn an_identity_header_with_two_values_is_refused() {
    let server = Server::start();
    for two in ["alice, bob", "alice,bob", "alice,", ","] {
        let refused = said(&server, "X-User-Id", two).refused(400, "invalid_request");
        assert_eq!(refused["field"], "X-User-Id");
        assert!(refused["detail"].as_str().unwrap().contains("%2C"), "{refused}");
        let refused = said(&with_proxy(), "Remote-User", two).refused(400, "invalid_request");
        assert_eq!(refused["field"], "Remote-User");
    }
    let lock = server.user("alice").acquire("a%2Cb", &json!({})).expect(200)["lock"].clone();
    let fence = lock["fence"].to_string();
    let gate = |workspace| {
        let about = [("X-Lock-Workspace", workspace), ("X-Lock-Fence", fence.as_str())];
        server.user("alice").request("GET", "/api/v1/gate", &about, b"").status
    };
    assert_eq!((gate("a%2Cb"), gate("a,b")), (204, 403));
}

#[test]
fn dot_segments_are_refused_as_ids_everywhere() {
    let server = Server::start();
    let mut alice = server.user("alice");
    for dots in [".", "..", "%2e", "%2E%2e", ".%2e"] {
        for path in [
            format!("/api/v1/workspaces/{dots}/lock"),
            format!("/api/v1/workspaces/{dots}"),
            format!("/api/v1/history?user_id={dots}"),
            format!("/api/v1/events?workspace_id={dots}"),
        ] {
            alice.get(&path).refused(400, "invalid_request");
        }
        alice.delete(&format!("/api/v1/users/{dots}/locks")).refused(400, "invalid_request");
        said(&server, "X-User-Id", dots).refused(400, "invalid_request");
    }
    alice.acquire("w", &json!({})).expect(200);
    let over = alice.post("/api/v1/workspaces/w/lock/handover", &json!({ "to_user_id": ".." }));
    assert_eq!(over.refused(400, "invalid_request")["field"], "to_user_id");
    let many = json!({ "locks": [{ "workspace_id": "." }] });
    let refused = alice.post("/api/v1/locks/heartbeat", &many).refused(400, "invalid_request");
    assert_eq!(refused["field"], "locks[0].workspace_id");
    alice.post("/api/v1/tokens", &json!({ "user_id": "." })).refused(400, "invalid_request");
    said(&with_proxy(), "Remote-User", "..").refused(400, "invalid_request");
    let jwt = jwt(&json!({ "sub": ".." }));
    with_jwt().client().with_token(&jwt).get("/api/v1/whoami").refused(401, "unauthenticated");
}

#[test]
fn lfs_workspace_ids_may_be_longer() {
    let server = Server::start();
    let mut alice = server.user("alice");
    let long = format!("lfs%2F{}", "x".repeat(1_096));
    let lock = alice.acquire(&long, &json!({})).expect(200)["lock"].clone();
    assert_eq!(lock["workspace_id"].as_str().unwrap().len(), 1_100);
    assert_eq!(alice.lock(&long), lock);
    alice.get(&format!("/api/v1/locks?prefix={long}")).expect(200);
    alice.get(&format!("/api/v1/locks?cursor={long}")).expect(200);
    alice.get(&format!("/api/v1/events?workspace_id={long}x")).refused(400, "invalid_request");
    alice.acquire(&format!("{long}x"), &json!({})).refused(400, "invalid_request");
    alice.acquire(&"x".repeat(256), &json!({})).refused(400, "invalid_request");
}

#[test]
fn invisible_names_are_dropped_and_bidi_controls_removed() {
    let shown = |lock: &Value| lock["locked_by_name"].clone();
    let server = Server::start();
    let mut service = server.user("app");
    for (name, expected) in [
        ("%20", Value::Null),
        ("%E2%80%8B", Value::Null),
        ("%CC%81", Value::Null),
        ("%E3%85%A4", Value::Null),
        ("%E2%80%AEecilA", json!("ecilA")),
        ("%20Alice%20", json!("Alice")),
    ] {
        let named = [("X-User-Id", "alice"), ("X-User-Name", name)];
        let mut alice = server.client();
        let lock = alice.request("POST", "/api/v1/workspaces/w/lock?force=true", &named, b"").expect(200);
        assert_eq!(shown(&lock["lock"]), expected, "{name}");
        alice.request("DELETE", "/api/v1/workspaces/w/lock", &named, b"").expect(200);
        // The same in a body, in a JWT, of a workspace and of a token.
        let plain = lockhouse::percent::decode(name).unwrap();
        let held = server.user("alice").acquire("v", &json!({ "name": plain })).expect(200)["lock"].clone();
        assert_eq!(shown(&held), expected, "{name}");
        server.user("alice").release("v", &json!({})).expect(200);
        let bearer = jwt(&json!({ "name": plain }));
        let who = with_jwt().client().with_token(&bearer).get("/api/v1/whoami").expect(200);
        assert_eq!(who["name"], expected, "{name}");
        let named = service.call("PUT", "/api/v1/workspaces/w", Some(&json!({ "name": plain })));
        assert_eq!(named.expect(200)["name"], expected, "{name}");
        let token = service.post("/api/v1/tokens", &json!({ "user_id": "alice", "name": plain }));
        assert_eq!(token.expect(201)["name"], expected, "{name}");
    }
    let asserted = |name| {
        let named = [("Remote-User", "alice"), ("Remote-Name", name)];
        with_proxy().client().request("GET", "/api/v1/whoami", &named, b"").expect(200)["name"].clone()
    };
    assert_eq!((asserted("\u{200B}"), asserted("\u{202E}ecilA")), (Value::Null, json!("ecilA")));
    // A user without a name is shown by their id.
    server.user("alice").acquire("w", &json!({ "name": " \u{200B}" })).expect(200);
    let held = server.user("bob").acquire("w", &json!({})).refused(409, "lock_held");
    assert!(held["detail"].as_str().unwrap().starts_with("alice has this workspace"), "{held}");
}

#[test]
fn jwt_claims_of_wrong_types_are_refused() {
    let with = |audience: Option<&str>| {
        Server::with(|config| {
            config.auth.mode = AuthMode::Jwt;
            config.auth.jwt_secret = vec![SECRET.into()];
            config.auth.jwt_issuer = Some("app".to_owned());
            config.auth.jwt_audience = audience.map(str::to_owned);
        })
    };
    let (any, own) = (with(None), with(Some("lockhouse")));
    let status = |server: &Server, claims: &Value| {
        server.client().with_token(&jwt(claims)).get("/api/v1/whoami").status
    };
    for (claims, expected) in [
        (json!({ "iss": "app" }), 200),
        (json!({ "iss": ["app"] }), 401),
        (json!({ "iss": ["app", "other"] }), 401),
        (json!({ "iss": [] }), 401),
        (json!({ "iss": "other" }), 401),
        (json!({ "iss": 7 }), 401),
        (json!({ "iss": null }), 401),
        (json!({}), 401),
        // Without a configured audience, a token with any audience, of any type, is refused.
        (json!({ "iss": "app", "aud": "other" }), 401),
        (json!({ "iss": "app", "aud": ["other"] }), 401),
        (json!({ "iss": "app", "aud": 7 }), 401),
        (json!({ "iss": "app", "aud": [7] }), 401),
        (json!({ "iss": "app", "aud": { "x": 1 } }), 401),
        (json!({ "iss": "app", "aud": [] }), 200),
        (json!({ "iss": "app", "sub": 7 }), 401),
        (json!({ "iss": "app", "sub": ["alice"] }), 401),
        (json!({ "iss": "app", "exp": "1795435500" }), 401),
        (json!({ "iss": "app", "exp": [NOON.0 / 1_000 + 300] }), 401),
        (json!({ "iss": "app", "nbf": "0" }), 401),
        (json!({ "iss": "app", "iat": "0" }), 401),
        (json!({ "iss": "app", "iat": 0, "nbf": 0.5 }), 200),
    ] {
        assert_eq!(status(&any, &claims), expected, "{claims}");
    }
    for (aud, expected) in [
        (json!("lockhouse"), 200),
        (json!(["other", "lockhouse"]), 200),
        (json!(["other"]), 401),
        (json!(["lockhouse", 7]), 401),
        (json!([["lockhouse"]]), 401),
        (json!([]), 401),
        (Value::Null, 401),
    ] {
        assert_eq!(status(&own, &json!({ "iss": "app", "aud": aud })), expected, "{aud}");
    }
}

#[test]
fn duplicate_jwt_members_are_refused() {
    let server = with_jwt();
    let with_header = |header: &str, claims: &str| {
        let token = common::jwt::signed(header, claims, common::jwt::mac(HMAC_SHA256, SECRET));
        server.client().with_token(&token).get("/api/v1/whoami").status
    };
    let status = |claims: &str| with_header(r#"{"alg":"HS256"}"#, claims);
    let end = NOON.0 / 1_000 + 300;
    assert_eq!(status(&format!(r#"{{"sub":"alice","exp":{end}}}"#)), 200);
    assert_eq!(status(&format!(r#"{{"sub":"bob","sub":"alice","exp":{end}}}"#)), 401);
    assert_eq!(status(&format!(r#"{{"sub":"alice","exp":1,"exp":{end}}}"#)), 401);
    let good = format!(r#"{{"sub":"alice","exp":{end}}}"#);
    assert_eq!(with_header(r#"{"alg":"none","alg":"HS256"}"#, &good), 401);
}
