//! Receivers that fail, in all ways, and come back.

use std::time::Duration;

use serde_json::{Value, json};

use super::common::receiver::{Delivered, Receiver, Reply, TELLTALE};
use super::common::{NOON, Server, eventually};
use super::{LONGEST_PAUSE, fails, history, is_up_to_date, server, server_for, status, two_events, webhook};
use lockhouse::config::Webhook;

#[test]
fn what_is_not_confirmed_is_sent_again_signed_anew_and_in_order() {
    let receiver = Receiver::start(Reply::Status(200));
    let refusals = [
        Reply::Status(500),
        Reply::Redirect(307),
        Reply::Redirect(302),
        Reply::Status(304),
        Reply::Status(404),
        Reply::Status(410),
        Reply::Status(429),
        Reply::Close,
        Reply::NoHttp,
        Reply::EndlessHead,
    ];
    receiver.plan(&refusals);
    let server = server_for(&receiver);
    two_events(&server, "w");
    let mut errors = Vec::new();
    for failed in 1..=refusals.len() {
        fails(&server, "app", u64::try_from(failed).unwrap());
        let shown = status(&server, "app");
        assert_eq!((&shown["state"], &shown["lag"]), (&json!("failing"), &json!(2)));
        assert!(shown["next_try_in_ms"].as_u64().unwrap() <= LONGEST_PAUSE, "{shown}");
        errors.push(shown["last_error"].as_str().unwrap().to_owned());
        assert_eq!(receiver.received().len(), failed, "the clock stands still");
        server.pass(LONGEST_PAUSE);
    }
    let delivered = receiver.wait_for(refusals.len() + 2);
    assert!(delivered.iter().all(|one| one.is_signed() && one.path == "/hook?key=1"), "{delivered:?}");
    let (first, rest) = delivered.split_at(refusals.len() + 1);
    let same = |name: &str| first.iter().all(|one| one.header(name) == first[0].header(name));
    assert!(same("webhook-id") && first.iter().all(|one| one.body == first[0].body));
    let times: Vec<i64> = first.iter().map(|one| one.header("webhook-timestamp").parse().unwrap()).collect();
    let expected: Vec<i64> = (0..).map(|number| NOON.0 / 1_000 + 5 * number).take(first.len()).collect();
    assert_eq!(times, expected);
    assert_eq!([&first[0], &rest[0]].map(Delivered::json).to_vec(), history(&server));
    is_up_to_date(&server, "app");
    assert_eq!(errors[..2], ["it answered 500", "it answered 307; redirects are not followed"]);
    let after = status(&server, "app");
    assert_eq!((&after["failures"], &after["failing_since"]), (&json!(0), &Value::Null));
    let said = format!("{errors:?} {after}");
    assert!(!said.contains(TELLTALE), "nothing of an answer is shown: {said}");
    assert!(after["last_error"].is_string(), "the last error stays");
}

#[test]
fn a_receiver_that_refuses_connections_is_tried_until_it_is_there() {
    // Nobody listens on this port.
    let nobody = Webhook {
        url: "http://127.0.0.1:1/".to_owned(),
        ..webhook("nobody", &Receiver::start(Reply::Close))
    };
    let unknown = Webhook {
        url: "http://lockhouse-test.invalid/".to_owned(),
        ..webhook("unknown", &Receiver::start(Reply::Close))
    };
    let server = server(vec![nobody, unknown]);
    two_events(&server, "w");
    for failures in 1..=3 {
        fails(&server, "nobody", failures);
        server.pass(LONGEST_PAUSE);
    }
    assert_eq!(status(&server, "nobody")["last_error"], "it refuses the connection");
    fails(&server, "unknown", 1);
}

#[test]
fn a_silent_receiver_holds_up_neither_others_nor_the_writer() {
    let (silent, other) = (Receiver::start(Reply::Silent), Receiver::start(Reply::Status(200)));
    let server = server(vec![webhook("silent", &silent), webhook("other", &other)]);
    two_events(&server, "first");
    silent.wait_for(1);
    for number in 0..20 {
        two_events(&server, &format!("w{number}"));
    }
    let delivered = other.wait_for(42);
    assert_eq!(delivered.iter().map(Delivered::json).collect::<Vec<_>>(), history(&server));
    assert_eq!(status(&server, "silent")["state"], "sending");
    assert_eq!(silent.received().len(), 1);
}

#[test]
fn a_silent_receiver_is_given_up_and_tried_again() {
    let receiver = Receiver::start(Reply::Status(200));
    receiver.plan(&[Reply::Silent]);
    let impatient = Webhook { answer_within: Duration::from_millis(100), ..webhook("app", &receiver) };
    let server = server(vec![impatient]);
    two_events(&server, "w");
    fails(&server, "app", 1);
    assert_eq!(status(&server, "app")["last_error"], "it did not answer within 100ms");
    // On a slow machine it may fail again.
    eventually(|| {
        server.pass(LONGEST_PAUSE);
        status(&server, "app")["state"] == "up_to_date"
    });
}

#[test]
fn a_body_without_an_end_neither_holds_up_nor_matters() {
    let receiver = Receiver::start(Reply::EndlessBody);
    let server = server_for(&receiver);
    two_events(&server, "w");
    is_up_to_date(&server, "app");
    assert_eq!(receiver.received().len(), 2);
}

#[test]
fn a_try_now_does_not_wait_for_the_pause() {
    let receiver = Receiver::start(Reply::Close);
    let server = server_for(&receiver);
    two_events(&server, "w");
    fails(&server, "app", 1);
    receiver.usually(Reply::Status(200));
    let mut admin = server.user("admin");
    admin.call("POST", "/api/v1/webhooks/app/try", None).expect(200);
    // The clock has not moved.
    is_up_to_date(&server, "app");
    assert_eq!(receiver.received().len(), 3);
}

/// Loses the events that the server has.
fn lose_history(server: &Server) {
    server.pass(60_000);
    let lost = server.sweep().events;
    assert!(lost > 0);
}

#[test]
fn a_receiver_that_returns_after_the_history_was_lost_gets_one_reset() {
    let receiver = Receiver::start(Reply::Close);
    let server = Server::with(|config| {
        config.webhooks = vec![webhook("app", &receiver)];
        config.history.keep = Some(Duration::from_secs(30));
    });
    two_events(&server, "lost");
    fails(&server, "app", 1);
    lose_history(&server);
    fails(&server, "app", 2);
    receiver.plan(&[Reply::Status(500), Reply::Status(500)]);
    receiver.usually(Reply::Status(200));
    let before = receiver.received().len();
    eventually(|| {
        server.pass(LONGEST_PAUSE);
        status(&server, "app")["state"] == "up_to_date"
    });
    let resets = receiver.received().split_off(before);
    let [one, two, confirmed] = &resets[..] else { panic!("{resets:?}") };
    for reset in [one, two, confirmed] {
        assert!(reset.is_signed());
        assert_eq!(reset.json(), json!({ "type": "reset" }));
        assert_eq!(reset.header("webhook-id"), one.header("webhook-id"));
    }
    two_events(&server, "after");
    let after = receiver.wait_for(before + 5);
    assert_eq!(after[before + 3..].iter().map(Delivered::json).collect::<Vec<_>>(), history(&server));
}

#[test]
fn a_receiver_that_returns_while_the_history_is_kept_misses_nothing() {
    let receiver = Receiver::start(Reply::Close);
    let mut server = server_for(&receiver);
    two_events(&server, "a");
    fails(&server, "app", 1);
    server.restart();
    for number in 0..150 {
        two_events(&server, &format!("w{number}"));
    }
    let before = receiver.received().len();
    receiver.usually(Reply::Status(200));
    eventually(|| {
        server.pass(LONGEST_PAUSE);
        status(&server, "app")["lag"] == 0
    });
    let mut delivered = receiver.received();
    // An attempt that has just failed may be among them.
    let first = delivered.iter().skip(before).position(|one| one.json()["revision"] == 1).unwrap();
    delivered.drain(..before + first);
    assert_eq!(delivered.iter().map(Delivered::json).collect::<Vec<_>>(), history(&server));
}
