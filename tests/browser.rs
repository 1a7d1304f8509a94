//! The tests of `clients/js` in a real browser, against this server. They need Node.js, npm,
//! Chromium, and Python 3 for the back end of the documentation; without them they are skipped, but not in CI.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Output};

fn chromium() -> String {
    std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned())
}

fn is_missing() -> bool {
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let missing = !(there("node") && there("npm") && there("python3") && Path::new(&chromium()).exists());
    assert!(
        !missing || std::env::var_os("CI").is_none(),
        "Node.js, npm, Python 3 or Chromium is missing in CI"
    );
    if missing {
        eprintln!(
            "skipped: Node.js, npm, Python 3 or Chromium (CHROMIUM=/usr/bin/chromium) is not installed"
        );
    }
    missing
}

fn npm(arguments: &[&str]) -> Output {
    Command::new("npm")
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js"))
        .env("LOCKHOUSE", env!("CARGO_BIN_EXE_lockhouse"))
        .env("CHROMIUM", chromium())
        .output()
        .unwrap()
}

#[track_caller]
fn runs(arguments: &[&str]) {
    let output = npm(arguments);
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "npm {arguments:?}\n{out}\n{error}");
}

#[test]
fn the_client_is_typed_and_works_in_a_browser() {
    if is_missing() {
        return;
    }
    // No package needs its install scripts.
    runs(&["ci", "--ignore-scripts"]);
    runs(&["run", "check"]);
    runs(&["run", "types"]);
    runs(&["test"]);
}
