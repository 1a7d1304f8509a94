//! `examples/agents`: a scripted agent with the hook before each write, and the back end that refuses its saves.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::process::{is_missing, lockhouse};
use common::{Client, eventually};
use serde_json::json;
use tempfile::TempDir;

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/agents").join(file)
}

/// The example, with its processes in one group.
struct Example {
    child: Child,
    data: TempDir,
    project: TempDir,
    settings: Vec<(String, String)>,
    lockhouse: SocketAddr,
}

impl Example {
    fn start() -> Self {
        let (data, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log = File::create(data.path().join("log")).unwrap();
        let child = command(&example("start"))
            .env("DATA", data.path())
            .env("PORT", "0")
            .env("LOCKHOUSE_SERVER_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let lockhouse = ([127, 0, 0, 1], 0).into();
        let mut example = Self { child, data, project, settings: Vec::new(), lockhouse };
        eventually(|| {
            let log = fs::read_to_string(example.data.path().join("log")).unwrap();
            assert!(example.child.try_wait().unwrap().is_none(), "{log}");
            log.contains("Ctrl-C stops everything")
        });
        let settings = example.read("agent");
        let words = settings.split_whitespace().filter_map(|word| word.split_once('='));
        example.settings = words.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        example.lockhouse =
            example.setting("LOCKHOUSE_URL").strip_prefix("http://").unwrap().parse().unwrap();
        example
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.data.path().join(file)).unwrap().trim().to_owned()
    }

    fn setting(&self, name: &str) -> String {
        self.settings.iter().find(|(known, _)| known == name).unwrap().1.clone()
    }

    /// A program of the example in the project, with the settings of the agent.
    fn program(&self, program: &Path) -> Command {
        let mut command = command(program);
        command.envs(self.settings.iter().cloned()).current_dir(self.project.path());
        command
    }

    fn agent(&self) -> Child {
        self.program(Path::new("python3"))
            .arg(example("agent.py"))
            .args(["scripted", "plan.txt", "It is on Friday."])
            .stdin(Stdio::piped())
            .stdout(File::create(self.data.path().join("said")).unwrap())
            .spawn()
            .unwrap()
    }

    /// What the hook says about a write.
    fn hook(&self, input: &str, variables: &[(&str, &str)]) -> Output {
        let mut hook = self.program(&example("hook"));
        hook.envs(variables.iter().copied()).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut hook = hook.spawn().unwrap();
        hook.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        hook.wait_with_output().unwrap()
    }

    fn stored(&self) -> String {
        let url = format!("{}/documents/plan.txt", self.setting("BACK_END"));
        let stored = Command::new("curl").args(["-sS", "--max-time", "60", &url]).output().unwrap();
        String::from_utf8(stored.stdout).unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-s", "INT", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// A program without the settings of this machine.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in lockhouse().get_envs() {
        command.env_remove(name);
    }
    command.env("LOCKHOUSE_BIN", env!("CARGO_BIN_EXE_lockhouse"));
    command
}

#[test]
fn an_agent_writes_and_saves_only_while_it_has_the_lock() {
    if is_missing("python3") || is_missing("curl") {
        return;
    }
    let example = Example::start();
    let mut alice = Client::connect(example.lockhouse).with_token(&example.read("alice"));
    let file = example.project.path().join("plan.txt");

    // Alice is editing: the careless agent is refused each time.
    let fence = alice.acquire("plan.txt", &json!({})).expect(200)["lock"]["fence"].clone();
    let mut agent = example.agent();
    assert!(agent.wait().unwrap().success());
    let said = example.read("said");
    assert_eq!(said.matches("Alice is editing plan.txt. Do not write to it.").count(), 2, "{said}");
    assert!(
        said.contains("lock_acquire: Alice is editing plan.txt, active ") && said.contains("save: 409"),
        "{said}"
    );
    assert!(!file.exists() && example.stored().is_empty());
    alice.release("plan.txt", &json!({ "fence": fence })).expect(200);

    // It gets the lock, until Alice takes over.
    let mut agent = example.agent();
    eventually(|| example.read("said").contains("holds it"));
    let said = example.read("said");
    assert!(said.contains("call lock_acquire for plan.txt first"), "{said}");
    assert!(said.contains("write plan.txt: written") && said.contains("save: 204"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "It is on Friday.");
    assert_eq!(example.stored(), "It is on Friday.");
    let agent_of_carol = json!({ "name": "Claude", "for_user_id": "carol", "for_name": null });
    assert_eq!(alice.lock("plan.txt")["agent"], agent_of_carol);
    let taken = alice.acquire("plan.txt", &json!({})).expect(200);
    assert_eq!(taken["outcome"], "taken_over", "agents yield to people");
    assert_eq!(taken["lock"]["locked_by_user_id"], "alice");
    agent.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(agent.wait().unwrap().success());
    let said = example.read("said");
    assert_eq!(said.matches("plan.txt: written").count(), 1, "{said}");
    assert!(said.contains("lost the lock of plan.txt"), "{said}");
    assert_eq!(said.matches("save: 409").count(), 1, "{said}");
    assert_eq!(example.stored(), "It is on Friday.");
    assert_eq!(alice.lock("plan.txt")["fence"], taken["lock"]["fence"], "her lock is let be");
}

#[test]
fn the_hook_lets_nothing_pass_that_it_cannot_check() {
    if is_missing("python3") {
        return;
    }
    let example = Example::start();
    let write = |path: &str| json!({ "tool_input": { "file_path": path } }).to_string();
    let away = [("LOCKHOUSE_URL", "http://127.0.0.1:1")];
    let bad = [("LOCKHOUSE_TOKEN", "lh_bad")];
    for (input, variables) in [
        ("nonsense", &[][..]),
        ("{}", &[]),
        (&write("a.txt"), &[]),
        (&write("a.txt"), &away),
        (&write("a.txt"), &bad),
    ] {
        let refused = example.hook(input, variables);
        assert_eq!(refused.status.code(), Some(2), "{input} {variables:?}");
        assert!(!refused.stderr.is_empty());
    }
    // What is no write of a file of the project.
    for input in [json!({ "tool_input": {} }).to_string(), write("/elsewhere/a.txt")] {
        assert_eq!(example.hook(&input, &[]).status.code(), Some(0), "{input}");
    }
}
