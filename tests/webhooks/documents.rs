//! What docs/webhooks.md shows verifies what is sent.

use std::process::Command;

use serde_json::json;

use super::common::docs::{blocks, read};
use super::common::process::is_missing;
use super::common::receiver::{Delivered, Receiver, Reply, SECRET};
use super::{server_for, two_events};

/// Whether the function of the page says that this is signed.
fn says(command: &mut Command, message: &Delivered, body: &str) -> bool {
    let headers: serde_json::Map<_, _> =
        message.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let message = json!({ "secret": SECRET, "headers": headers, "body": body });
    let output = command.arg(message.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().eq_ignore_ascii_case("true")
}

#[test]
fn the_functions_of_the_page_verify_what_is_sent() {
    let receiver = Receiver::start(Reply::Status(200));
    let server = server_for(&receiver);
    two_events(&server, "Zo%C3%AB");
    let delivered = receiver.wait_for(1).swap_remove(0);
    assert!(delivered.body.contains("Zoë"));
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    // The clock of the tests stands still at another time.
    let now = delivered.header("webhook-timestamp").to_owned();
    let js = blocks("webhooks.md", "js").swap_remove(0).replace("Date.now() / 1000", &now);
    std::fs::write(at("signed.mjs"), js).unwrap();
    let python = blocks("webhooks.md", "python").swap_remove(0).replace("time.time()", &now);
    std::fs::write(at("signed.py"), python).unwrap();
    let node = format!(
        "import {{ isSigned }} from '{}';\nconst {{ secret, headers, body }} = JSON.parse(process.argv[2]);\nconsole.log(isSigned(secret, headers, body));",
        at("signed.mjs")
    );
    std::fs::write(at("node.mjs"), node).unwrap();
    let python = "import json, sys\nfrom signed import is_signed\nm = json.loads(sys.argv[1])\nprint(is_signed(m['secret'], m['headers'], m['body'].encode()))";
    std::fs::write(at("main.py"), python).unwrap();
    for (program, script) in [("node", at("node.mjs")), ("python3", at("main.py"))] {
        if is_missing(program) {
            continue;
        }
        let run = |message: &Delivered, body: &str| says(Command::new(program).arg(&script), message, body);
        assert!(run(&delivered, &delivered.body), "{program}");
        assert!(!run(&delivered, &delivered.body.replace("alice", "bob")), "{program}: another body");
        let change = |name: &str, value: &str| {
            let mut changed = delivered.clone();
            for (known, kept) in &mut changed.headers {
                if known == name {
                    value.clone_into(kept);
                }
            }
            changed
        };
        let old = (now.parse::<i64>().unwrap() - 301).to_string();
        for changed in [
            change("webhook-id", "evt_9_9"),
            change("webhook-timestamp", &old),
            change("webhook-signature", "v1,AAAA"),
            change("webhook-signature", ""),
        ] {
            assert!(!run(&changed, &delivered.body), "{program}: {changed:?}");
        }
        let two = format!("v1,AAAA {}", delivered.header("webhook-signature"));
        assert!(run(&change("webhook-signature", &two), &delivered.body), "{program}: another secret, too");
    }
}

#[test]
fn the_event_on_the_page_has_the_fields_that_are_sent() {
    let receiver = Receiver::start(Reply::Status(200));
    let server = server_for(&receiver);
    two_events(&server, "team%2Fdesign");
    let sent = receiver.wait_for(1)[0].json();
    let page = read("webhooks.md");
    let shown = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let shown: serde_json::Value = serde_json::from_str(shown).unwrap();
    let names = |event: &serde_json::Value| event.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&shown), names(&sent));
    assert_eq!(shown["workspace_id"], sent["workspace_id"]);
}
