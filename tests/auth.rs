//! Authentication by tokens, JWTs and proxies.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{Client, NOON, Raw, Server};
use lockhouse::auth::Scope;
use lockhouse::cli::serve;
use lockhouse::config::{self, AuthMode, Config, JwtAlgorithm, Sources};
use lockhouse::time::Clock;
use ring::hmac::HMAC_SHA512;
use serde_json::{Value, json};

const SECRET: &str = "a secret of at least thirty-two bytes";

fn with_tokens() -> Server {
    Server::with(|config| config.auth.mode = AuthMode::Token)
}

/// Who the server thinks is calling.
#[track_caller]
fn is(client: &mut Client, user: &str) {
    let lock = client.acquire("whoami", &json!({ "force": true })).expect(200)["lock"].clone();
    assert_eq!(lock["locked_by_user_id"], user);
}

#[track_caller]
fn is_unauthenticated(client: &mut Client) -> Value {
    let mut answer = client.get("/api/v1/locks");
    let mut problem = answer.refused(401, "unauthenticated");
    assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
    answer.headers.clear();
    problem.as_object_mut().unwrap().remove("request_id");
    problem
}

#[test]
fn a_token_identifies_its_user_until_expiry_or_revocation() {
    let server = with_tokens();
    let mut admin = server.with_token(Scope::Admin, Some("root"));
    let asked = json!({ "user_id": "alice", "name": "Alice Martin", "ttl_ms": 60_000 });
    let made = admin.post("/api/v1/tokens", &asked).expect(201);
    let secret = made["token"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("lh_") && secret.len() == 46, "{secret}");
    let mut alice = server.client().with_token(&secret);
    is(&mut alice, "alice");
    assert_eq!(alice.lock("whoami")["locked_by_name"], "Alice Martin");
    // She cannot use another user id or another name.
    server.user("bob").with_token(&secret).acquire("w", &json!({})).refused(403, "forbidden");
    is(&mut server.user("alice").with_token(&secret), "alice");
    alice.acquire("other", &json!({ "name": "Bob" })).expect(200);
    assert_eq!(alice.lock("other")["locked_by_name"], "Alice Martin");
    // The list has everything but the token.
    let page = admin.get("/api/v1/tokens").expect(200);
    assert!(!page.to_string().contains(&secret[3..]));
    let listed = page["tokens"].as_array().unwrap().iter().find(|token| token["user_id"] == "alice").unwrap();
    assert_eq!((&listed["scope"], &listed["token_id"]), (&json!("user"), &made["token_id"]));
    assert_eq!(listed["expires_at"], "2026-11-23T12:01:00.000Z");
    assert_eq!(listed["last_used_at"], "2026-11-23T12:00:00.000Z");
    server.pass(59_999);
    is(&mut alice, "alice");
    server.pass(1);
    let over = is_unauthenticated(&mut alice);
    // Neither does an unknown one say more, nor one that was revoked.
    assert_eq!(is_unauthenticated(&mut server.client().with_token("lh_unknown")), over);
    assert_eq!(is_unauthenticated(&mut server.client().with_token("no.such.jwt")), over);
    assert_eq!(is_unauthenticated(&mut server.client()), over);
    let made = admin.post("/api/v1/tokens", &json!({ "user_id": "bob" })).expect(201);
    let mut bob = server.client().with_token(made["token"].as_str().unwrap());
    is(&mut bob, "bob");
    let path = format!("/api/v1/tokens/{}", made["token_id"].as_str().unwrap());
    assert_eq!(admin.delete(&path).expect(200), json!({ "revoked": true }));
    assert_eq!(is_unauthenticated(&mut bob), over);
    assert_eq!(admin.delete(&path).expect(200), json!({ "revoked": false }));
}

#[test]
fn a_token_revoked_in_the_database_is_refused_within_a_second() {
    let server = with_tokens();
    let mut alice = server.with_token(Scope::User, Some("alice"));
    is(&mut alice, "alice");
    server.query("DELETE FROM tokens");
    server.pass(999);
    is(&mut alice, "alice");
    server.pass(1);
    is_unauthenticated(&mut alice);
}

#[test]
fn only_the_hash_is_stored_and_the_sweeper_writes_the_last_use() {
    let mut server = with_tokens();
    let secret = server.token(Scope::User, Some("alice"));
    let mut alice = server.client().with_token(&secret);
    is(&mut alice, "alice");
    let used = |server: &Server| server.query("SELECT last_used_at FROM tokens");
    assert_eq!(used(&server), "", "not with the request");
    server.sweep();
    assert_eq!(used(&server), NOON.0.to_string());
    let id = server.query("SELECT token_id FROM tokens");
    server.stop();
    let database = server.database();
    let files = if server.is_on_postgres() {
        common::postgres::Cluster::of_this_process().directory()
    } else {
        database.parent().unwrap()
    };
    let stored = |text: &str| {
        let found = Command::new("grep").args(["-rqsF", "-e", text]).arg(files).status().unwrap();
        found.code() == Some(0)
    };
    assert!(stored(&id) && !stored(&secret[3..23]));
}

#[test]
fn a_service_acts_for_users_and_creates_only_user_tokens() {
    let server = with_tokens();
    let token = server.token(Scope::Service, None);
    let mut service = server.user("alice").with_token(&token);
    is(&mut service, "alice");
    is(&mut server.user("bob").with_token(&token), "bob");
    let mut unnamed = server.client().with_token(&token);
    let missing = unnamed.acquire("w", &json!({})).refused(400, "invalid_request");
    assert_eq!(missing["field"], "X-User-Id");
    unnamed.get("/api/v1/locks").expect(200);
    service.post("/api/v1/tokens", &json!({ "user_id": "alice", "ttl_ms": 1 })).expect(201);
    let mut made = |user: &str| {
        let made = service.post("/api/v1/tokens", &json!({ "user_id": user })).expect(201);
        (made["token"].as_str().unwrap().to_owned(), made["token_id"].as_str().unwrap().to_owned())
    };
    let (carols, id) = made("carol");
    let mut revoke =
        |id: &str| service.delete(&format!("/api/v1/tokens/{id}")).expect(200)["revoked"].clone();
    assert_eq!(revoke(&id), true);
    is_unauthenticated(&mut server.client().with_token(&carols));
    let root = server.token(Scope::Admin, Some("root"));
    let listed = server.client().with_token(&root).get("/api/v1/tokens").expect(200)["tokens"].clone();
    for other in listed.as_array().unwrap().iter().filter(|token| token["scope"] != "user") {
        assert_eq!(revoke(other["token_id"].as_str().unwrap()), false, "those of users only");
    }
    service.post("/api/v1/tokens", &json!({ "scope": "admin" })).refused(403, "forbidden");
    service.post("/api/v1/tokens", &json!({ "scope": "user" })).refused(400, "invalid_request");
    service.post("/api/v1/tokens", &json!({ "scope": "god" })).refused(400, "invalid_request");
    // Its users may be called as it says.
    let body = json!({ "name": "Zoë", "force": true });
    assert_eq!(service.acquire("w", &body).expect(200)["lock"]["locked_by_name"], "Zoë");
}

#[test]
fn an_admin_token_without_a_user_is_named_by_its_id() {
    let server = with_tokens();
    server.with_token(Scope::User, Some("alice")).acquire("w", &json!({})).expect(200);
    let mut admin = server.with_token(Scope::Admin, None);
    let body = json!({ "force": true, "reason": "She is on holiday." });
    admin.release("w", &body).expect(200);
    let revoked = admin.get("/api/v1/workspaces/w/history").expect(200)["events"][0].clone();
    assert_eq!(revoked["type"], "lock.revoked");
    assert!(revoked["by_user_id"].as_str().unwrap().starts_with("token:"), "{revoked}");
    assert_eq!(revoked["detail"], json!({ "reason": "She is on holiday." }));
}

#[test]
fn a_beacon_is_authenticated_by_the_token_in_its_body() {
    let server = with_tokens();
    let token = server.token(Scope::User, Some("alice"));
    server.client().with_token(&token).acquire("w", &json!({})).expect(200);
    let release = |body: &Value| {
        let path = "/api/v1/workspaces/w/lock/release";
        server.client().request("POST", path, &[("Content-Type", "text/plain")], body.to_string().as_bytes())
    };
    release(&json!({ "access_token": "lh_other" })).refused(401, "unauthenticated");
    assert_eq!(release(&json!({ "access_token": token })).expect(200), json!({ "released": true }));
}

fn jwt_server(set: impl FnOnce(&mut config::AuthConfig)) -> Server {
    Server::with(|config| {
        config.auth.mode = AuthMode::Jwt;
        config.auth.admins = vec!["root".to_owned()];
        config.auth.jwt_secret = vec![SECRET.into()];
        config.auth.jwt_issuer = Some("https://app.example".to_owned());
        config.auth.jwt_audience = Some("lockhouse".to_owned());
        set(&mut config.auth);
    })
}

/// Noon, in seconds.
const NOW: i64 = NOON.0 / 1_000;

fn claims() -> Value {
    json!({
        "sub": "alice", "name": "Alice Martin", "iss": "https://app.example", "aud": "lockhouse",
        "exp": NOW + 300, "nbf": NOW,
    })
}

fn hs256(claims: &Value) -> String {
    common::jwt::hs256(claims, SECRET)
}

#[test]
fn a_jwt_identifies_its_user_while_it_is_valid() {
    let server = jwt_server(|_| {});
    let mut alice = server.client().with_token(&hs256(&claims()));
    is(&mut alice, "alice");
    assert_eq!(alice.lock("whoami")["locked_by_name"], "Alice Martin");
    alice.get("/metrics").refused(403, "forbidden");
    // `exp` and `nbf` are looked at with a leeway of half a minute.
    server.pass(329_999);
    is(&mut alice, "alice");
    server.pass(1);
    is_unauthenticated(&mut alice);
    // Who administers is a matter of the settings, or of a claim.
    let mut root = claims();
    root["sub"] = json!("root");
    root["exp"] = json!(NOW + 900);
    server.client().with_token(&hs256(&root)).get("/metrics");
    let mut lead = root.clone();
    lead["sub"] = json!("lead");
    server.client().with_token(&hs256(&lead)).get("/api/v1/tokens").refused(403, "forbidden");
    for role in [json!("admin"), json!(["editor", "admin"])] {
        lead["lockhouse_role"] = role;
        server.client().with_token(&hs256(&lead)).get("/api/v1/tokens").expect(200);
    }
    server.client().with_token(&hs256(&root)).get("/api/v1/tokens").expect(200);
    // Tokens work beside.
    is(&mut server.with_token(Scope::User, Some("bob")), "bob");
}

#[test]
fn an_event_stream_ends_with_its_credentials() {
    let server = jwt_server(|_| {});
    let follow = |token: &str| {
        let mut stream = Raw::connect(server.address());
        stream.send(format!("GET /api/v1/events HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n"));
        stream.read_until(": still here\n");
        stream
    };
    let mut by_jwt = follow(&hs256(&claims()));
    let mut stays = follow(&server.token(Scope::User, Some("bob")));
    let mut admin = server.with_token(Scope::Admin, None);
    let made = admin.post("/api/v1/tokens", &json!({ "user_id": "alice" })).expect(201);
    let mut by_token = follow(made["token"].as_str().unwrap());
    // Each keep-alive is read before the next is sent, so that none is left for the check at the end.
    server.pass(15_000);
    by_token.read_until(": still here\n");
    by_jwt.read_until(": still here\n");
    admin.delete(&format!("/api/v1/tokens/{}", made["token_id"].as_str().unwrap())).expect(200);
    server.pass(15_000);
    assert!(!String::from_utf8_lossy(by_token.read_all()).contains("still here"));
    by_jwt.read_until(": still here\n");
    // Until `exp`, and the leeway.
    server.pass(300_000);
    assert!(!String::from_utf8_lossy(by_jwt.read_all()).contains("still here"));
    stays.read_until(": still here\n");
}

#[test]
fn invalid_jwts_are_refused() {
    let server = jwt_server(|_| {});
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        hs256(&claims)
    };
    let without = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        hs256(&claims)
    };
    let good = hs256(&claims());
    let parts: Vec<_> = good.split('.').collect();
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"; // {"alg":"none","typ":"JWT"}
    let forged = [
        ("expired", with("exp", json!(NOW - 31))),
        ("without an end", without("exp")),
        ("an end that is no number", with("exp", json!("tomorrow"))),
        ("an end that never comes", with("exp", json!(f64::MAX)).replace('.', "..")),
        ("not yet valid", with("nbf", json!(NOW + 31))),
        ("a beginning that is no number", with("nbf", json!("now"))),
        ("another issuer", with("iss", json!("https://evil.example"))),
        ("no issuer", without("iss")),
        ("another audience", with("aud", json!("another"))),
        ("no audience", without("aud")),
        ("no user", without("sub")),
        ("a user that cannot be", with("sub", json!(""))),
        ("a user that is no text", with("sub", json!(7))),
        ("alg: none", format!("{unsigned}.{}.", parts[1])),
        ("alg: none with a signature", format!("{unsigned}.{}.{}", parts[1], parts[2])),
        ("another key", common::jwt::hs256(&claims(), "another secret of thirty-two bytes")),
        (
            "another algorithm",
            common::jwt::signed(
                r#"{"alg":"HS512"}"#,
                &claims().to_string(),
                common::jwt::mac(HMAC_SHA512, SECRET),
            ),
        ),
        ("a broken signature", format!("{}.{}.{}A", parts[0], parts[1], parts[2])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        (
            "another payload",
            format!("{}.{}.{}", parts[0], with("sub", json!("root")).split('.').nth(1).unwrap(), parts[2]),
        ),
        ("huge", with("name", json!("x".repeat(9_000)))),
        ("nothing", "..".to_owned()),
    ];
    is(&mut server.client().with_token(&good), "alice");
    let expected = is_unauthenticated(&mut server.client());
    for (what, token) in forged {
        assert_eq!(is_unauthenticated(&mut server.client().with_token(&token)), expected, "{what}");
    }
}

fn key(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(key(name)).unwrap()
}

#[test]
fn every_public_key_algorithm_works_with_several_keys() {
    let names = [(JwtAlgorithm::Rs256, "rsa"), (JwtAlgorithm::Es256, "ec"), (JwtAlgorithm::EdDsa, "ed")];
    for (algorithm, name) in names {
        let public = format!("{name}.pub.pem");
        let server = jwt_server(|auth| {
            auth.jwt_algorithm = algorithm;
            auth.jwt_secret.clear();
            let other = format!("{name}2.pub.pem");
            auth.jwt_public_key_file = vec![key(&other), key(&public)];
        });
        // OpenSSL signed these claims with the private key beside.
        let token = String::from_utf8(read(&format!("{name}.jwt"))).unwrap();
        is(&mut server.client().with_token(&token), "alice");
        let signature = token.rsplit('.').next().unwrap();
        let changed = signature.chars().rev().collect::<String>();
        is_unauthenticated(&mut server.client().with_token(&token.replace(signature, &changed)));
        // The public key cannot be used for signing.
        let forged = common::jwt::hs256(&claims(), read(&public));
        is_unauthenticated(&mut server.client().with_token(&forged));
        is_unauthenticated(&mut server.client().with_token(&hs256(&claims())));
    }
}

#[test]
fn unsafe_authentication_settings_are_refused_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let load = |text: &str| {
        let file = directory.path().join("lockhouse.toml");
        std::fs::write(&file, text).unwrap();
        let mut permissions = std::fs::metadata(&file).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        std::fs::set_permissions(&file, permissions).unwrap();
        config::load(&Sources { file: Some(file), ..Sources::default() })
    };
    for (text, says) in [
        ("[server]\nlisten = \"0.0.0.0:7311\"", "loopback"),
        ("[auth]\nmode = \"proxy\"", "needs auth.proxy_addresses"),
        ("[auth]\nmode = \"proxy\"\nproxy_addresses = [\"0.0.0.0/0\"]", "cover all addresses"),
        ("[auth]\nmode = \"proxy\"\nproxy_addresses = [\"::/0\"]", "cover all addresses"),
        (
            "[auth]\nmode = \"proxy\"\nproxy_addresses = [\"unix\"]\nproxy_name_header = \"remote-user\"",
            "two headers",
        ),
        ("[auth]\nproxy_user_header = \"X-Lockhouse-User\"", "header"),
        ("[auth]\nmode = \"jwt\"", "needs auth.jwt_secret"),
        ("[auth]\nmode = \"jwt\"\njwt_secret = [\"short\"]", "at least 32 bytes"),
        ("[auth]\nmode = \"jwt\"\njwt_algorithm = \"RS256\"", "needs auth.jwt_public_key_file"),
        ("[auth]\nmode = \"jwt\"\njwt_algorithm = \"none\"", "HS256"),
    ] {
        let refused = load(text).unwrap_err().to_string();
        assert!(refused.contains(says), "{text}: {refused}");
        assert!(!refused.contains("short"), "a secret is not shown: {refused}");
    }
    let with_key = |algorithm, file: &str| {
        let mut config = Config::default();
        config.server.listen.set_port(0);
        config.database.path = directory.path().join("lockhouse.db");
        config.auth.mode = AuthMode::Jwt;
        config.auth.jwt_algorithm = algorithm;
        config.auth.jwt_public_key_file = vec![key(file)];
        serve::start(&config, Clock::system()).err().map(|error| error.to_string())
    };
    for (algorithm, file, says) in [
        (JwtAlgorithm::Rs256, "rsa1024.pub.pem", "too short"),
        (JwtAlgorithm::Rs256, "rsa.pem", "private key"),
        (JwtAlgorithm::Rs256, "ec.pub.pem", "no public key"),
        (JwtAlgorithm::Es256, "ed.pub.pem", "no public key"),
        (JwtAlgorithm::EdDsa, "rsa.pub.pem", "no public key"),
        (JwtAlgorithm::EdDsa, "missing.pem", "cannot read"),
    ] {
        let refused = with_key(algorithm, file).unwrap_or_else(|| panic!("{file} was taken"));
        assert!(refused.contains(says), "{file}: {refused}");
    }
}

#[test]
fn secrets_are_not_shown_nor_read_from_public_files_or_flags() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lockhouse.toml");
    std::fs::write(&file, format!("[auth]\nmode = \"jwt\"\njwt_secret = [\"{SECRET}\"]\n")).unwrap();
    let mut permissions = std::fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&file, permissions.clone()).unwrap();
    let sources = Sources { file: Some(file.clone()), ..Sources::default() };
    let refused = config::load(&sources).unwrap_err().to_string();
    assert!(refused.contains("chmod 600") && !refused.contains(SECRET), "{refused}");
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&file, permissions).unwrap();
    let loaded = config::load(&sources).unwrap();
    assert!(!config::effective(&loaded.config).contains(SECRET));
    assert!(!format!("{:?}", loaded.config).contains(SECRET));
    let environment = vec![("LOCKHOUSE_AUTH_JWT_SECRET".to_owned(), format!("{SECRET},{SECRET} too"))];
    let loaded = config::load(&Sources { environment, ..Sources::default() }).unwrap();
    assert_eq!(loaded.config.auth.jwt_secret.len(), 2);
    let flags = vec![("--jwt-secret", SECRET.to_owned())];
    assert!(config::load(&Sources { flags, ..Sources::default() }).is_err());
}

#[test]
fn proxy_headers_are_trusted_from_its_address_only() {
    let with = |address: &str| {
        let address = address.parse().unwrap();
        Server::with(|config| {
            config.auth.mode = AuthMode::Proxy;
            config.auth.proxy_addresses = vec![address];
            config.auth.admins = vec!["zoë".to_owned()];
        })
    };
    let ask = |server: &Server, headers: &[(&str, &str)]| {
        server.client().request("POST", "/api/v1/workspaces/w/lock?force=true", headers, b"")
    };
    let server = with("127.0.0.1");
    let signed_in = [("Remote-User", "zoë"), ("Remote-Name", "Zoë V")];
    let lock = ask(&server, &signed_in).expect(200)["lock"].clone();
    assert_eq!((&lock["locked_by_user_id"], &lock["locked_by_name"]), (&json!("zoë"), &json!("Zoë V")));
    server.client().request("GET", "/api/v1/tokens", &signed_in, b"").expect(200);
    // What a client says itself counts for nothing.
    ask(&server, &[("X-User-Id", "mallory")]).refused(401, "unauthenticated");
    ask(&server, &[("X-Lockhouse-User", "mallory")]).refused(401, "unauthenticated");
    let both = [("Remote-User", "alice"), ("X-User-Id", "mallory"), ("X-Lockhouse-User", "mallory")];
    assert_eq!(ask(&server, &both).expect(200)["lock"]["locked_by_user_id"], "alice");
    ask(&server, &[("Remote-User", "alice"), ("remote-user", "mallory")]).refused(400, "invalid_request");
    ask(&server, &[("Remote-User", "")]).refused(401, "unauthenticated");
    ask(&server, &[("Remote-User", "alice"), ("X-Forwarded-For", "192.0.2.1")]).expect(200);
    // The rule for escapes is that of every header. No escaped name is taken for alice.
    for (value, user) in [("zo%C3%AB", "zoë"), ("50%25 alice", "50% alice"), ("a%2561", "a%61")] {
        let lock = ask(&server, &[("Remote-User", value), ("Remote-Name", "")]).expect(200)["lock"].clone();
        assert_eq!((&lock["locked_by_user_id"], &lock["locked_by_name"]), (&json!(user), &Value::Null));
    }
    for value in ["a%zz", "50%", "%61lice", "alice%40example.com", "%2e", "%FF"] {
        ask(&server, &[("Remote-User", value)]).refused(400, "invalid_request");
    }
    // What the browser says to the proxy is not for us; a token of ours is.
    let basic = [("Remote-User", "alice"), ("Authorization", "Basic YWxpY2U6eA==")];
    assert_eq!(ask(&server, &basic).expect(200)["lock"]["locked_by_user_id"], "alice");
    let token = format!("Bearer {}", server.token(Scope::User, Some("bob")));
    let both = [("Remote-User", "alice"), ("Authorization", token.as_str())];
    assert_eq!(ask(&server, &both).expect(200)["lock"]["locked_by_user_id"], "bob");
    ask(&server, &[("Remote-User", "alice"), ("Authorization", "Bearer lh_unknown")])
        .refused(401, "unauthenticated");
    // The proxy knows the browser whatever page it is that asks: only those of the app's own may.
    let from = |origin| [("Remote-User", "alice"), ("Origin", origin)];
    ask(&server, &from("https://evil.example")).refused(403, "forbidden");
    ask(&server, &from("http://localhost:3000")).refused(403, "forbidden");
    ask(&server, &from("null")).refused(403, "forbidden");
    ask(&server, &from("https://test")).expect(200);
    // From elsewhere the headers are ignored, whatever they are called.
    let elsewhere = with("192.0.2.7");
    ask(&elsewhere, &signed_in).refused(401, "unauthenticated");
    ask(&elsewhere, &[("Remote-User", "alice"), ("X-Forwarded-For", "192.0.2.7")])
        .refused(401, "unauthenticated");
    is(&mut elsewhere.with_token(Scope::User, Some("bob")), "bob");
    // Where no proxy is asked, none is believed.
    ask(&with_tokens(), &signed_in).refused(401, "unauthenticated");
}
