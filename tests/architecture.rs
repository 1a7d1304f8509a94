//! The walls of the house: who may use whom, and where SQL, sockets and the clock stay.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The modules in reading order, as `src/lib.rs` declares them.
fn modules() -> Vec<String> {
    std::fs::read_to_string(root().join("src/lib.rs"))
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned))
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below `folder`, by their path from there.
fn sources(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                found.insert(name, std::fs::read_to_string(path).unwrap());
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// The lines of a file that are code and belong to the program: not comments, not its tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
}

/// The modules of the crate that a line names: `crate::a::…`, `crate::{a, b}` is not written here.
fn used(line: &str) -> Vec<&str> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap())
        .collect()
}

#[test]
fn each_module_uses_only_those_above_it() {
    let modules = modules();
    assert_eq!(modules[..2], ["time", "error"]);
    let place = |name: &str| modules.iter().position(|module| module == name);
    for (file, text) in sources(&root().join("src")) {
        let own = file.split(['/', '.']).next().unwrap();
        let Some(own_place) = place(own) else {
            assert!(["lib", "main"].contains(&own), "src/{file} is in no module that src/lib.rs declares");
            continue;
        };
        for line in code(&text) {
            assert!(
                !line.contains("crate::{"),
                "src/{file}: one `use crate::module` a line, so that it can be read off: {line}"
            );
            for name in used(line) {
                let used_place = place(name);
                assert!(
                    used_place.is_some_and(|used| used <= own_place),
                    "src/{file} uses crate::{name}, which stands below {own}: {line}"
                );
            }
        }
    }
}

#[test]
fn sql_sockets_and_the_log_stay_where_they_belong() {
    for (crate_name, homes) in [
        ("rusqlite", &["store/sqlite/"][..]),
        ("r2d2", &["store/sqlite/"]),
        ("tiny_http", &["server/tiny.rs"]),
        ("mio::", &["server/"]),
        ("httparse", &["server/"]),
        ("std::net::Tcp", &["server/"]),
        ("UnixStream", &["server/"]),
        ("set_boxed_logger", &["ops/logging.rs"]),
        ("signal_hook", &["cli/serve.rs"]),
        ("clap", &["cli/"]),
        ("toml::", &["config/"]),
        ("prometheus_client", &["metrics.rs"]),
        ("SystemTime", &["time.rs"]),
        ("Instant", &["time.rs"]),
    ] {
        for (file, text) in sources(&root().join("src")) {
            let at_home = homes.iter().any(|home| file.starts_with(home));
            let uses = code(&text).find(|line| line.contains(crate_name));
            assert!(
                at_home || uses.is_none(),
                "src/{file} uses {crate_name}, which belongs to {homes:?}: {uses:?}"
            );
        }
    }
}

#[test]
fn the_domain_knows_no_sql_no_http_and_no_clock() {
    for (file, text) in sources(&root().join("src/domain")) {
        for line in code(&text) {
            for foreign in ["std::", "serde", "Clock", "chrono"] {
                assert!(!line.contains(foreign), "src/domain/{file} uses {foreign}: {line}");
            }
        }
    }
}

#[test]
fn the_server_knows_nothing_of_locks() {
    for (file, text) in sources(&root().join("src/server")) {
        for line in code(&text) {
            for foreign in ["crate::domain", "crate::store", "crate::app", "crate::auth"] {
                assert!(!line.contains(foreign), "src/server/{file} uses {foreign}: {line}");
            }
        }
    }
}

#[test]
fn every_file_is_small_enough_to_be_read() {
    for folder in ["src", "tests"] {
        for (file, text) in sources(&root().join(folder)) {
            let lines = text.lines().count();
            assert!(lines <= 500, "{folder}/{file} has {lines} lines; past 400 a file is usually two things");
        }
    }
}

#[test]
fn the_project_stands_alone() {
    let listed = std::process::Command::new("git").arg("ls-files").current_dir(root()).output();
    let Ok(listed) = listed else { return };
    for file in
        String::from_utf8_lossy(&listed.stdout).lines().filter(|file| *file != "tests/architecture.rs")
    {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else { continue };
        assert!(!text.contains("../shared"), "{file} refers to what only its authors have");
    }
}
