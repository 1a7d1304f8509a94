//! Webhooks, with real receivers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "webhooks/claims.rs"]
mod claims;
mod common;
#[path = "webhooks/documents.rs"]
mod documents;
#[path = "webhooks/failures.rs"]
mod failures;
#[path = "webhooks/processes.rs"]
mod processes;
#[path = "webhooks/settings.rs"]
mod settings;

use common::process::{fine, lockhouse};
use common::receiver::{Receiver, Reply, SECRET};
use common::{NOON, Server, eventually, metric};
use lockhouse::auth::Scope;
use lockhouse::config::{AuthMode, Webhook, WebhookSecret};
use lockhouse::domain::event::{Ending, EventType};
use serde_json::{Value, json};

/// The longest pause between two attempts (milliseconds).
const LONGEST_PAUSE: u64 = 5_000;

fn webhook(name: &str, receiver: &Receiver) -> Webhook {
    Webhook {
        name: name.to_owned(),
        url: receiver.url(),
        secret: WebhookSecret::parse(SECRET),
        ..Webhook::default()
    }
}

/// A server with these webhooks.
fn server(webhooks: Vec<Webhook>) -> Server {
    Server::with(|config| config.webhooks = webhooks)
}

/// A server with one webhook.
fn server_for(receiver: &Receiver) -> Server {
    server(vec![webhook("app", receiver)])
}

/// The status of a webhook.
fn status(server: &Server, name: &str) -> Value {
    let list = server.user("admin").get("/api/v1/webhooks").expect(200);
    let webhooks = list["webhooks"].as_array().unwrap();
    webhooks.iter().find(|webhook| webhook["name"] == name).unwrap().clone()
}

/// Acquires and releases: two events.
fn two_events(server: &Server, workspace: &str) {
    let mut alice = server.user("alice");
    alice.acquire(workspace, &json!({})).expect(200);
    alice.release(workspace, &json!({})).expect(200);
}

/// The history of all workspaces, oldest first.
fn history(server: &Server) -> Vec<Value> {
    let page = server.user("admin").get("/api/v1/history?limit=500").expect(200);
    page["events"].as_array().unwrap().iter().rev().cloned().collect()
}

/// Waits until this number of attempts has failed.
#[track_caller]
fn fails(server: &Server, name: &str, failures: u64) {
    eventually(|| status(server, name)["failures"].as_u64() >= Some(failures));
}

/// Waits until the receiver has everything.
#[track_caller]
fn is_up_to_date(server: &Server, name: &str) {
    eventually(|| {
        let status = status(server, name);
        status["state"] == "up_to_date" && status["lag"] == 0
    });
}

#[test]
fn every_event_is_posted_as_in_the_history_in_order_and_signed() {
    let receiver = Receiver::start(Reply::Status(200));
    let server = server_for(&receiver);
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    let fence = alice.acquire("design", &json!({})).expect(200)["lock"]["fence"].clone();
    bob.post("/api/v1/workspaces/design/lock/knock", &json!({ "message": "please" })).expect(202);
    let answer = json!({ "fence": fence, "to_user_id": "bob" });
    alice.post("/api/v1/workspaces/design/lock/handover", &answer).expect(200);
    server.pass(20_000);
    let expired = |event: &Value| event["type"] == "lock.expired";
    eventually(|| history(&server).iter().any(expired));
    let delivered = receiver.wait_for(4);
    let bodies: Vec<_> = delivered.iter().map(common::receiver::Delivered::json).collect();
    assert_eq!(bodies, history(&server));
    assert_eq!(bodies[0]["workspace_id"], "design");
    for one in &delivered {
        assert!(one.is_signed(), "{one:?}");
        assert_eq!(one.path, "/hook?key=1");
        assert_eq!(one.header("content-type"), "application/json");
        assert_eq!(one.header("user-agent"), concat!("lockhouse/", env!("CARGO_PKG_VERSION")));
        let timestamp: i64 = one.header("webhook-timestamp").parse().unwrap();
        assert!((NOON.0 / 1_000..NOON.0 / 1_000 + 60).contains(&timestamp), "{timestamp}");
    }
    let ids: std::collections::BTreeSet<_> = delivered.iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!(ids.len(), 4, "each event has its id");
}

#[test]
fn a_filter_by_type_and_prefix_sends_only_what_is_wanted() {
    let (all, some) = (Receiver::start(Reply::Status(204)), Receiver::start(Reply::Status(200)));
    let filtered = Webhook {
        events: vec![EventType::Ended(Ending::Released)],
        workspace_prefix: "team/".to_owned(),
        ..webhook("some", &some)
    };
    let server = server(vec![webhook("all", &all), filtered]);
    for workspace in ["team%2Fa", "teams", "other%2Fteam%2Fa", "team%2Fb"] {
        two_events(&server, workspace);
    }
    assert_eq!(all.wait_for(8).len(), 8);
    let found: Vec<_> = some.wait_for(2).iter().map(common::receiver::Delivered::json).collect();
    let shown = |event: &Value| (event["type"].clone(), event["workspace_id"].clone());
    let released = |workspace: &str| (json!("lock.released"), json!(workspace));
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), [released("team/a"), released("team/b")]);
    is_up_to_date(&server, "some");
    two_events(&server, "not-wanted");
    eventually(|| status(&server, "some")["position"] == 10);
    assert_eq!(some.received().len(), 2);
}

#[test]
fn a_new_webhook_starts_at_now_and_a_known_one_where_it_was() {
    let [first, second] = [(); 2].map(|()| Receiver::start(Reply::Status(200)));
    let mut server = server(Vec::new());
    two_events(&server, "before");
    server.stop();
    server.config.webhooks = vec![webhook("first", &first)];
    server.start_again();
    two_events(&server, "with-one");
    first.wait_for(2);
    is_up_to_date(&server, "first");
    server.stop();
    server.config.webhooks = vec![webhook("first", &first), webhook("second", &second)];
    server.start_again();
    two_events(&server, "with-both");
    let workspaces = |receiver: &Receiver, count| -> Vec<Value> {
        receiver.wait_for(count).iter().map(|one| one.json()["workspace_id"].clone()).collect()
    };
    assert_eq!(workspaces(&first, 4), ["with-one", "with-one", "with-both", "with-both"]);
    assert_eq!(workspaces(&second, 2), ["with-both", "with-both"]);
}

#[test]
fn a_removed_webhook_keeps_its_position_for_a_week() {
    let day = 24 * 60 * 60 * 1_000;
    for (days, expected) in [(6, ["missed", "missed", "back", "back"].to_vec()), (8, vec!["back", "back"])] {
        let receiver = Receiver::start(Reply::Status(200));
        let mut server = server_for(&receiver);
        server.stop();
        let webhooks = std::mem::take(&mut server.config.webhooks);
        server.start_again();
        two_events(&server, "missed");
        server.stop();
        server.pass(days * day);
        // A start without it in between changes nothing.
        server.start_again();
        server.stop();
        server.config.webhooks = webhooks;
        server.start_again();
        two_events(&server, "back");
        let delivered = receiver.wait_for(expected.len());
        let found: Vec<_> = delivered.iter().map(|one| one.json()["workspace_id"].clone()).collect();
        assert_eq!(found, expected, "after {days} days");
    }
}

#[test]
fn a_restored_backup_is_told_by_a_reset() {
    if common::postgres::is_asked_for() {
        // PostgreSQL has its own backups.
        return;
    }
    let receiver = Receiver::start(Reply::Status(200));
    let mut server = server_for(&receiver);
    two_events(&server, "kept");
    let directory = tempfile::tempdir().unwrap();
    let backup = directory.path().join("backup.db");
    let run = |server: &Server, command: &str| {
        let output = lockhouse().arg(command).arg("--database").arg(server.database()).arg(&backup).output();
        fine(&output.unwrap());
    };
    run(&server, "backup");
    two_events(&server, "lost");
    receiver.wait_for(4);
    server.stop();
    run(&server, "restore");
    server.start_again();
    let delivered = receiver.wait_for(5);
    assert_eq!(delivered[4].json(), json!({ "type": "reset" }));
    assert!(delivered[4].is_signed());
    server.user("alice").acquire("after", &json!({})).expect(200);
    assert_eq!(receiver.wait_for(6)[5].json(), *history(&server).last().unwrap());
}

#[test]
fn only_administrators_see_webhooks_and_try_them() {
    let receiver = Receiver::start(Reply::Close);
    let server = Server::with(|config| {
        config.webhooks = vec![webhook("app", &receiver)];
        config.auth.mode = AuthMode::Token;
    });
    for scope in [Scope::User, Scope::Service, Scope::Read] {
        let mut client = server.with_token(scope, Some("alice"));
        client.get("/api/v1/webhooks").refused(403, "forbidden");
        client.call("POST", "/api/v1/webhooks/app/try", None).refused(403, "forbidden");
    }
    let mut admin = server.with_token(Scope::Admin, Some("admin"));
    let shown = admin.get("/api/v1/webhooks").expect(200)["webhooks"][0].clone();
    assert_eq!(
        shown,
        json!({
            "name": "app", "url": format!("http://{}", receiver.address), "state": "up_to_date", "position": 0, "lag": 0,
            "failures": 0, "failing_since": null, "next_try_in_ms": null, "last_error": null, "last_error_at": null,
            "last_delivered_at": null
        }),
        "without the path and the query"
    );
    let mut tried =
        |name: &str| admin.call("POST", &format!("/api/v1/webhooks/{name}/try"), None).expect(200);
    assert_eq!(tried("app"), json!({ "tried": true }));
    assert_eq!(tried("nobody"), json!({ "tried": false }));
}

#[test]
fn the_metrics_show_lag_failures_and_deliveries() {
    let receiver = Receiver::start(Reply::Status(200));
    receiver.plan(&[Reply::Status(500)]);
    let server = server_for(&receiver);
    let of = |line: &str| metric(&server, line);
    assert!((of("lockhouse_webhook_lag{webhook=\"app\"}") - 0.0).abs() < f64::EPSILON);
    two_events(&server, "w");
    fails(&server, "app", 1);
    assert!((of("lockhouse_webhook_lag{webhook=\"app\"}") - 2.0).abs() < f64::EPSILON);
    assert!((of("lockhouse_webhook_failing{webhook=\"app\"}") - 1.0).abs() < f64::EPSILON);
    server.pass(LONGEST_PAUSE);
    is_up_to_date(&server, "app");
    for (line, value) in [
        ("lockhouse_webhook_lag{webhook=\"app\"}", 0.0),
        ("lockhouse_webhook_failing{webhook=\"app\"}", 0.0),
        ("lockhouse_webhook_deliveries_total{webhook=\"app\",outcome=\"failed\"}", 1.0),
        ("lockhouse_webhook_deliveries_total{webhook=\"app\",outcome=\"delivered\"}", 2.0),
    ] {
        assert!((of(line) - value).abs() < f64::EPSILON, "{line} is {}", of(line));
    }
}
