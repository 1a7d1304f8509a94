//! What the tests of pages need: Node.js, npm and Chromium. Without them they are skipped, but not in CI.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use super::process::is_missing;

/// The browser.
pub fn chromium() -> String {
    std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned())
}

/// Whether one of the programs is not on this machine, with a line that says so.
pub fn are_missing(programs: &[&str]) -> bool {
    let chromium = chromium();
    ["node", "npm", &chromium].iter().chain(programs).any(|program| is_missing(program))
}

/// The folder of the browser client.
pub fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js")
}

/// Runs a command in the folder of the client, which must succeed.
#[track_caller]
pub fn runs(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(client())
        .env("LOCKHOUSE", env!("CARGO_BIN_EXE_lockhouse"))
        .env("CHROMIUM", chromium())
        .output()
        .unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}\n{out}\n{error}");
}

/// Installs what the tests of the client need, unless it is there.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install_once);
}

fn install_once() {
    let written = |file: &str| client().join(file).metadata().and_then(|file| file.modified());
    let asked = written("package-lock.json").unwrap();
    if !written("node_modules/.package-lock.json").is_ok_and(|there| there > asked) {
        // Nothing of what comes needs to run anything when it is installed.
        runs("npm", &["ci", "--ignore-scripts"]);
    }
}
