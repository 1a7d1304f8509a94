//! The architecture: dependencies between modules, and where SQL, sockets and the clock are used.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
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

/// The lines of a file that are code of the program, without comments and tests.
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
fn modules_depend_only_on_modules_above_them() {
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
fn libraries_are_used_only_in_their_modules() {
    for (crate_name, homes) in [
        ("rusqlite", &["store/sqlite/"][..]),
        ("r2d2", &["store/sqlite/"]),
        ("tokio::", &["store/postgres/"]),
        ("tokio_postgres::", &["store/postgres/"]),
        ("tiny_http", &["server/tiny.rs"]),
        ("mio::", &["server/"]),
        ("httparse", &["server/", "cli/http.rs"]),
        ("std::net::Tcp", &["server/", "cli/socket.rs"]),
        ("UnixStream", &["server/", "cli/socket.rs"]),
        ("set_boxed_logger", &["ops/logging.rs"]),
        ("rustls_native_certs", &["tls.rs", "webhooks/"]),
        ("signal_hook", &["cli/"]),
        ("nix::sys", &["cli/run/terminal.rs"]),
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
fn the_domain_uses_no_sql_http_or_clock() {
    for (file, text) in sources(&root().join("src/domain")) {
        for line in code(&text) {
            for foreign in ["std::", "serde", "Clock", "chrono"] {
                assert!(!line.contains(foreign), "src/domain/{file} uses {foreign}: {line}");
            }
        }
    }
}

#[test]
fn the_server_does_not_depend_on_locks() {
    for (file, text) in sources(&root().join("src/server")) {
        for line in code(&text) {
            for foreign in ["crate::domain", "crate::store", "crate::app", "crate::auth"] {
                assert!(!line.contains(foreign), "src/server/{file} uses {foreign}: {line}");
            }
        }
    }
}

#[test]
fn source_files_have_at_most_500_lines() {
    for folder in ["src", "tests"] {
        for (file, text) in sources(&root().join(folder)) {
            let lines = text.lines().count();
            assert!(lines <= 500, "{folder}/{file} has {lines} lines; past 400 a file is usually two things");
        }
    }
}

#[test]
fn no_file_refers_to_the_authors_directories() {
    let listed = std::process::Command::new("git").arg("ls-files").current_dir(root()).output();
    let Ok(listed) = listed else { return };
    for file in
        String::from_utf8_lossy(&listed.stdout).lines().filter(|file| *file != "tests/architecture.rs")
    {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else { continue };
        assert!(!text.contains("../shared"), "{file} refers to what only its authors have");
    }
}

/// Types of the API that have the name of their schema in the OpenAPI document, which is that of what they show.
const SHARED_NAMES: &[&str] = &["Declined", "Follower", "Health", "Members", "Presence", "Violation"];

#[test]
fn type_names_are_unique() {
    let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // The arguments of a command are named after the command.
    let is_counted = |file: &String| !file.starts_with("cli/");
    for (file, text) in sources(&root().join("src")).into_iter().filter(|(file, _)| is_counted(file)) {
        for line in code(&text) {
            let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
            let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if ["struct", "enum", "trait", "type"].contains(&kind) && !line.starts_with(' ') {
                let name: String = name.chars().take_while(|letter| letter.is_alphanumeric()).collect();
                homes.entry(name).or_default().push(file.clone());
            }
        }
    }
    homes.retain(|_, files| files.len() > 1);
    let names: Vec<_> = homes.keys().map(String::as_str).collect();
    assert_eq!(names, SHARED_NAMES, "{homes:#?}");
}

/// Files that use each other: still to be undone. The list may only become shorter.
const CYCLES: &[&[&str]] = &[];

#[test]
fn dependency_cycles_are_only_the_known_ones() {
    let files = sources(&root().join("src"));
    let module = |file: &str| file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
    let modules: BTreeSet<String> = files.keys().map(|file| module(file)).collect();
    let uses: BTreeMap<String, BTreeSet<String>> = files
        .iter()
        .map(|(file, text)| (module(file), paths(&module(file), text)))
        .map(|(own, paths)| {
            let homes = paths.iter().filter_map(|path| home(path, &modules));
            let homes = homes.filter(|home| *home != own).collect();
            (own, homes)
        })
        .collect();
    let closure = |from: &str| {
        let (mut found, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(next) = open.pop() {
            open.extend(uses[&next].iter().filter(|used| found.insert((*used).clone())).cloned());
        }
        found
    };
    let reached: BTreeMap<_, _> = modules.iter().map(|module| (module, closure(module))).collect();
    let cycles: BTreeSet<Vec<&str>> = modules
        .iter()
        .filter(|module| reached[module].contains(*module))
        .map(|module| {
            let both = |other: &&String| reached[module].contains(*other) && reached[other].contains(module);
            modules.iter().filter(both).map(String::as_str).collect()
        })
        .collect();
    let known: BTreeSet<Vec<&str>> = CYCLES.iter().map(|cycle| cycle.to_vec()).collect();
    assert_eq!(cycles, known);
}

/// The paths inside the crate that a file names, from its root.
fn paths(own: &str, text: &str) -> BTreeSet<String> {
    let text = code(text).collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(root) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':') {
                continue;
            }
            let mut rest = &text[at..];
            let mut base: Vec<&str> = own.split("::").collect();
            if let Some(after) = rest.strip_prefix("crate::") {
                (base, rest) = (Vec::new(), after);
            } else if let Some(after) = rest.strip_prefix("self::") {
                rest = after;
            }
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
            let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
            let end = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
            let (path, after) = rest.split_at(end);
            let group = after.strip_prefix('{').and_then(|group| group.split('}').next());
            for item in group.unwrap_or_default().split(',') {
                let item = item.trim().split(' ').next().unwrap_or_default();
                let whole = [base.join("::"), path.to_owned(), item.to_owned()].join("::");
                found
                    .insert(whole.split("::").filter(|part| !part.is_empty()).collect::<Vec<_>>().join("::"));
            }
        }
    }
    found
}

/// The module in which a path ends.
fn home(path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let parts: Vec<_> = path.split("::").collect();
    (1..=parts.len()).rev().map(|count| parts[..count].join("::")).find(|path| modules.contains(path))
}
