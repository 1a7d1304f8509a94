//! The tests of `clients/js` in a real browser, against this server. They need Node.js, npm and Chromium, and Python 3 for
//! the back end of the documentation; without them they are skipped, but not in CI.

mod common;

use common::browser::{are_missing, install, runs};

#[test]
fn the_client_is_typed_and_works_in_a_browser() {
    if are_missing(&["python3"]) {
        return;
    }
    install();
    runs("npm", &["run", "check"]);
    runs("npm", &["run", "types"]);
    runs("npm", &["test"]);
}
