//! The documentation matches the code: example configuration, settings, stories, links, API reference.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;
#[path = "documents/links.rs"]
mod links;
#[path = "documents/reference.rs"]
mod reference;

use std::path::PathBuf;

use common::{Answer, Server};
use lockhouse::config::{self, Config, SETTINGS, Sources};

fn read(name: &str) -> String {
    std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Holds a file that is made from the code against it. `WRITE_DOCUMENTS=1 cargo test --test documents` writes it.
fn is_up_to_date(name: &str, expected: &str) {
    if std::env::var_os("WRITE_DOCUMENTS").is_some() {
        std::fs::write(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name), expected).unwrap();
    }
    assert!(
        read(name) == expected,
        "{name} is out of date: WRITE_DOCUMENTS=1 cargo test --test documents writes it"
    );
}

#[test]
fn the_example_configuration_lists_every_default() {
    is_up_to_date("config.example.toml", &config::example());
    let file = Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config.example.toml"));
    let loaded = config::load(&Sources { file, ..Sources::default() }).unwrap();
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn the_settings_page_lists_default_variable_and_flag_of_each() {
    is_up_to_date("docs/settings.md", &config::page());
    let page = config::page();
    for setting in SETTINGS.iter() {
        let about = page.split(&format!("\n### `{}`\n", setting.key())).nth(1).unwrap();
        let about = about.split("\n#").next().unwrap();
        let shown = format!("Default: `{}`.", setting.show(&Config::default()));
        assert!(about.contains(&shown) && about.contains(&format!("`{}`", setting.variable())), "{about}");
        assert!(setting.flag.is_none_or(|flag| about.contains(flag)), "{about}");
    }
}

#[test]
fn ci_runs_the_test_command_of_the_readme() {
    assert!(read("README.md").lines().any(|line| line == "cargo test"));
    assert!(read(".ci/run").contains("grep -m 1 '^cargo test' README.md"));
}

/// Each target has one line: it runs on both engines, or it says why it does not.
#[test]
fn ci_runs_the_tests_of_the_store_and_of_the_api_on_both_engines() {
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").exists() {
            targets.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    targets.sort();
    let listed = read("tests/engines.txt");
    let listed: Vec<_> = listed
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line}")))
        .collect();
    assert_eq!(listed.iter().map(|(target, _)| *target).collect::<Vec<_>>(), targets);
    for (target, engines) in listed {
        let reason = engines.strip_prefix("sqlite, because ");
        assert!(engines == "both" || reason.is_some_and(|reason| !reason.is_empty()), "{target}: {engines}");
    }
    let selected = r"$(sed -n 's/^\(.*\): both$/--test \1/p' tests/engines.txt)";
    let command = format!("\nCI=true LH_STORE=postgres cargo test --locked {selected}\n");
    assert!(read(".ci/run").contains(&command), "{command}");
}

/// The words of a line of shell, as far as the README goes: spaces and single quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for letter in line.chars() {
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            _ => word.push(letter),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// What `curl` would do.
fn curl(server: &Server, words: &[String]) -> Answer {
    let (mut method, mut headers, mut body, mut url) = ("GET".to_owned(), Vec::new(), String::new(), None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-s" | "-i" => {}
            "-X" => method.clone_from(words.next().unwrap()),
            "-H" => headers.push(words.next().unwrap().split_once(": ").unwrap()),
            "-d" => {
                body.clone_from(words.next().unwrap());
                if method == "GET" {
                    "POST".clone_into(&mut method);
                }
            }
            _ => {
                assert!(!word.starts_with('-') && url.is_none(), "the test does not know curl's {word}");
                url = Some(word.clone());
            }
        }
    }
    if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "Content-Type") {
        headers.push(("Content-Type", "application/x-www-form-urlencoded"));
    }
    let url = url.unwrap();
    let path = url.strip_prefix("http://127.0.0.1:7311").unwrap_or_else(|| panic!("{url}"));
    server.client().request(&method, path, &headers, body.as_bytes())
}

/// Each command of the stories is carried out, `sleep` by moving the clock, and the comment that follows it says what must
/// be in the answer.
#[test]
fn the_commands_of_the_stories_give_the_documented_output() {
    let section =
        |page, title: &str| read(page).split(title).nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let stories =
        [section("README.md", "\n## Two stories"), section("docs/waiting-and-events.md", "\n## Knock")]
            .concat();
    let server = Server::start();
    let mut last: Option<Answer> = None;
    let (mut commands, mut promises, mut in_code) = (0, 0, false);
    let lines = stories.replace("\\\n", " ");
    for line in lines.lines() {
        if line.starts_with("```") {
            in_code = !in_code && line == "```sh";
        } else if !in_code || line.trim().is_empty() {
        } else if let Some(promise) = line.strip_prefix("# → ") {
            let answer = last.as_ref().unwrap_or_else(|| panic!("nothing was asked before {line}"));
            let (status, parts) = promise.split_once(' ').unwrap();
            assert_eq!(answer.status.to_string(), status, "{line}\n{}", answer.text());
            for part in parts.split(" … ") {
                assert!(answer.text().contains(part.trim()), "{part} is missing in {}", answer.text());
            }
            promises += 1;
        } else if let Some(seconds) = line.strip_prefix("sleep ") {
            server.pass(seconds.trim().parse::<u64>().unwrap() * 1_000);
        } else {
            let words = words(line);
            assert_eq!(words[0], "curl", "{line}");
            last = Some(curl(&server, &words[1..]));
            commands += 1;
        }
    }
    assert!(commands >= 13 && promises == commands, "{commands} commands, {promises} promises");
}

#[test]
fn the_readme_has_fewer_than_1200_words() {
    let words = read("README.md").split_whitespace().count();
    assert!(words < 1_200, "{words} words");
}

#[test]
fn the_changelog_has_the_current_version() {
    assert!(read("CHANGELOG.md").contains(&format!("## {}", env!("CARGO_PKG_VERSION"))));
}
