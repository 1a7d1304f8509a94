//! The pages of `docs` match the code: commands of walkthroughs are run as written, and limits are compared.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::docs::read;
use common::process::lockhouse;
use lockhouse::domain::knocks::MAX_KNOCKS;
use lockhouse::domain::{
    ID_BYTES, LFS_BYTES, MESSAGE_BYTES, METADATA_BYTES, NAME_BYTES, NOTE_BYTES, SESSION_BYTES,
};

/// The address of the pages, where the server listens by default.
const SHOWN: &str = "127.0.0.1:7311";
const END: &str = "--- the end of a command ---";

/// `bash` in `directory`, with `lockhouse` on its path.
fn bash(directory: &Path) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_lockhouse")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let clean = lockhouse();
    let mut command = Command::new("bash");
    for (name, value) in clean.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(directory).env("PATH", path).stdout(Stdio::piped());
    command
}

/// A server as a block of a page starts it, but on a free port.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(directory: &Path, line: &str) -> Self {
        let log = directory.join("server.log");
        let mut child = bash(directory)
            .args(["-c", &line.replace("lockhouse serve", "exec lockhouse serve")])
            .env("LOCKHOUSE_SERVER_LISTEN", "127.0.0.1:0")
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let address = said.trim_end().strip_prefix("lockhouse is listening on http://").map(str::to_owned);
        let address =
            address.unwrap_or_else(|| panic!("{line}: {said} {}", fs::read_to_string(log).unwrap()));
        Self { child, address }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shell that runs one command after the other.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn start(directory: &Path) -> Self {
        let mut child = bash(directory).args(["--norc", "-s"]).stdin(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    fn run(&mut self, command: &str) -> String {
        write!(self.input, "{{ {command}\n}} </dev/null 2>&1\nprintf '\\n{END}\\n'\n").unwrap();
        let mut output = String::new();
        while !output.ends_with(&format!("\n{END}\n")) {
            assert!(
                self.output.read_line(&mut output).unwrap() > 0,
                "{command}: the shell has ended: {output}"
            );
        }
        output
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a section of a page, but for its builds. Returns how many promises were kept.
fn walk(section: &str) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let mut shell = Shell::start(directory.path());
    let (mut served, mut kept): (Option<Served>, usize) = (None, 0);
    for block in section.split("```sh\n").skip(1) {
        let block = block.split_once("```").unwrap().0;
        if block.lines().count() == 1 && block.contains("lockhouse serve") {
            // The one before has the database.
            drop(served.take());
            served = Some(Served::start(directory.path(), block.trim_end()));
            continue;
        }
        if block.starts_with("cargo ") {
            continue;
        }
        let mut output = String::new();
        for line in block.replace("\\\n", "").lines().filter(|line| !line.is_empty()) {
            if let Some(promise) = line.strip_prefix("# → ") {
                for part in promise.split(" … ") {
                    assert!(output.contains(part), "{part} is missing in the output: {output}");
                    kept += 1;
                }
            } else {
                let address = served.as_ref().map_or(SHOWN, |served| served.address.as_str());
                output = shell.run(&line.replace(SHOWN, address));
            }
        }
    }
    kept
}

/// The sections of a page that start a server, by their titles.
fn walks(page: &str) -> Vec<(String, String)> {
    let text = read(page);
    let sections = text.split("\n## ").skip(1).filter(|section| section.contains("lockhouse serve\n```"));
    sections.map(|section| (section.lines().next().unwrap().to_owned(), section.to_owned())).collect()
}

#[test]
fn the_walkthroughs_of_the_auth_modes_work() {
    let walks = walks("auth.md");
    let titles: Vec<_> = walks.iter().map(|(title, _)| title.as_str()).collect();
    assert_eq!(titles, ["Mode none", "Mode token", "Mode jwt", "Mode proxy"]);
    for (title, section) in &walks {
        let kept = walk(section);
        assert!(kept >= 3, "{title} promises only {kept} things");
    }
}

#[test]
fn the_walkthrough_of_the_start_page_works() {
    assert!(walk(&read("start.md")) >= 8);
}

#[test]
fn the_limits_page_matches_the_code() {
    let page = read("limits.md");
    let example = read("../config.example.toml");
    let mut settings = 0;
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let [setting, default] =
            row.split(" | ").map(|cell| cell.trim_matches('`')).take(2).collect::<Vec<_>>()[..]
        else {
            panic!("{row}")
        };
        let Some((section, name)) = setting.split_once('.') else { continue };
        let section = example.split(&format!("\n[{section}]\n")).nth(1).unwrap().split("\n[").next().unwrap();
        let line = format!("{name} = {default}");
        assert!(section.lines().any(|known| known == line), "{line} is not in {section}");
        settings += 1;
    }
    assert!(settings >= 15, "the table has only {settings} settings");
    assert_eq!(NOTE_BYTES, MESSAGE_BYTES);
    for row in [
        format!("| user id | {ID_BYTES} bytes |"),
        format!("| workspace id | {ID_BYTES} bytes; {LFS_BYTES} if it begins with `lfs/` |"),
        format!("| session id | {SESSION_BYTES} bytes |"),
        format!("| display name | {NAME_BYTES} bytes |"),
        format!("| note, message of a knock | {NOTE_BYTES} bytes |"),
        format!("| metadata | {METADATA_BYTES} bytes |"),
        format!("| knocks on a lock | {MAX_KNOCKS} |"),
    ] {
        assert!(page.lines().any(|line| line == row), "limits.md should have {row}");
    }
}
