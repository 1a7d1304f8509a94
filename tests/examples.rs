//! The examples: each is started with its one command, told its story by HTTP and in a browser, and stopped with Ctrl-C.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use common::Client;
use common::browser::{are_missing, install, runs};
use common::docs::blocks;
use common::process::{fine, lockhouse};
use serde_json::{Value, json};
use tempfile::TempDir;

const DOCUMENT: &str = "/documents/design-42";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// A free port, of those that the kernel does not give to anybody who asks for any.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 20_000).unwrap();
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Looks again and again until it is so, for at least ten minutes: the machine may have much else to do.
#[track_caller]
fn patiently(mut so: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if so() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    panic!("it does not happen");
}

/// `program` with nothing of this machine's settings, and the binary of this build.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in lockhouse().get_envs() {
        command.env_remove(name);
    }
    command.env("LOCKHOUSE_BIN", env!("CARGO_BIN_EXE_lockhouse")).stdin(Stdio::null());
    command
}

/// An example that runs. Its processes are one group, as those of a terminal are.
struct Example {
    child: Child,
    url: String,
    lockhouse: SocketAddr,
    data: TempDir,
}

impl Example {
    fn start(name: &str) -> Self {
        Self::start_until(name, |url| format!("Open {url}/?user=alice"))
    }

    /// Starts an example, and waits for the line that says what to do.
    fn start_until(name: &str, line: impl FnOnce(&str) -> String) -> Self {
        let (data, port) = (tempfile::tempdir().unwrap(), port());
        let log = File::create(data.path().join("log")).unwrap();
        let child = command(&examples().join(name).join("start"))
            .env("DATA", data.path())
            .env("PORT", port.to_string())
            .env("LOCKHOUSE_SERVER_LISTEN", "127.0.0.1:0")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let url = format!("http://localhost:{port}");
        let mut example = Self { child, url, lockhouse: ([127, 0, 0, 1], 0).into(), data };
        // It installs packages first.
        let open = line(&example.url);
        patiently(|| {
            let (has_ended, log) = (example.child.try_wait().unwrap().is_some(), example.log());
            assert!(!has_ended, "{name} has ended: {log}");
            log.contains(&open)
        });
        let log = example.log();
        let line = log.lines().find_map(|line| line.strip_prefix("lockhouse is listening on http://"));
        example.lockhouse = line.unwrap().parse().unwrap();
        example
    }

    fn log(&self) -> String {
        fs::read_to_string(self.data.path().join("log")).unwrap()
    }

    /// A request to the app; the status and the text of its answer.
    fn ask(&self, method: &str, path: &str, headers: &[String], body: &str) -> (u16, String) {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "60", "-w", "\n%{http_code}", "-X", method]);
        for header in headers {
            curl.args(["-H", header]);
        }
        if method == "PUT" {
            curl.args(["-H", "Content-Type: text/plain", "--data-raw", body]);
        }
        let output = curl.arg(format!("{}{path}", self.url)).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let (text, status) = output.rsplit_once('\n').unwrap();
        let status = status.parse().unwrap();
        assert!(status > 0 && status < 500, "{method} {path}: {status} {text}\n{}", self.log());
        (status, text.to_owned())
    }

    /// The stored text.
    fn stored(&self, headers: &[String]) -> String {
        let (status, text) = self.ask("GET", DOCUMENT, headers, "");
        assert_eq!(status, 200, "{text}");
        text
    }

    /// Two people in two windows.
    fn is_seen(&self) {
        runs("node", &["test/example-story.js", &self.url]);
    }

    fn signal(&self, signal: &str) -> bool {
        let group = format!("-{}", self.child.id());
        let kill = Command::new("kill").args(["-s", signal, "--", &group]).stderr(Stdio::null()).status();
        kill.unwrap().success()
    }

    /// Ctrl-C. Nothing is left.
    fn stop(mut self) {
        assert!(self.signal("INT"));
        patiently(|| self.child.try_wait().unwrap().is_some());
        // The script waits for its processes.
        assert!(!self.signal("0"), "processes are left: {}", self.log());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal("KILL");
            let _ = self.child.wait();
        }
    }
}

/// Acquires the lock of the document, by a takeover if somebody has it. Returns the fence.
fn take(person: &mut Client) -> i64 {
    person.acquire("design-42", &json!({ "force": true })).expect(200)["lock"]["fence"].as_i64().unwrap()
}

fn release(person: &mut Client, fence: i64) {
    assert_eq!(person.release("design-42", &json!({ "fence": fence })).expect(200)["released"], true);
}

/// A back end that keeps the fence beside the text.
fn fences(name: &str) {
    let example = Example::start(name);
    let settings: Value = serde_json::from_str(&example.ask("GET", "/settings.json", &[], "").1).unwrap();
    assert_eq!(settings, json!({ "lockhouse": format!("http://{}", example.lockhouse) }));
    let by = |user: &str| format!("X-User: {user}");
    let [mut alice, mut bob] = ["alice", "bob"].map(|user| {
        let (status, token) = example.ask("POST", "/lock-token", &[by(user)], "");
        assert_eq!(status, 200, "{token}");
        Client::connect(example.lockhouse).with_token(&token)
    });
    let call = |method: &str, path: &str, user: &str, fence: i64, body: &str| {
        example.ask(method, path, &[by(user), format!("X-Lock-Fence: {fence}")], body)
    };
    let save = |user: &str, fence: i64, body: &str| call("PUT", DOCUMENT, user, fence, body);
    let begin = |user: &str, fence: i64| call("POST", &format!("{DOCUMENT}/open"), user, fence, "");
    let refused = (409, "Somebody else has begun to edit.".to_owned());
    let text = |text: &str| (200, text.to_owned());

    // Nobody saves without a fence, or with one that was made up.
    assert!([409, 422].contains(&example.ask("PUT", DOCUMENT, &[by("alice")], "no fence").0));
    assert_eq!(save("alice", 1 << 52, "made up"), refused);
    let first = take(&mut alice);
    assert_eq!(begin("alice", first + 1), refused);
    assert_eq!(begin("bob", first), refused);
    // Alice edits.
    assert_eq!(begin("alice", first), text("The workshop is on Thursday."));
    assert_eq!(save("alice", first, "It is on Friday."), text(""));
    // Bob takes over. From the moment when he begins, her late save is refused: also before he has saved.
    let second = take(&mut bob);
    assert_eq!(begin("bob", second), text("It is on Friday."));
    assert_eq!(save("alice", first, "late"), refused);
    assert_eq!(begin("alice", first), refused);
    assert_eq!(save("bob", second, "It is on “Monday”."), text(""));
    assert_eq!(example.stored(&[]), "It is on “Monday”.");
    release(&mut bob, second);
    assert_eq!(save("alice", second + 1, "made up"), refused);
    assert_eq!(
        example.ask("PUT", "/documents/other", &[by("alice"), format!("X-Lock-Fence: {first}")], "").0 / 100,
        4
    );

    example.is_seen();
    example.stop();
}

#[test]
fn the_example_of_node_refuses_late_saves() {
    if !are_missing(&[]) {
        install();
        fences("node");
    }
}

#[test]
fn the_example_of_react_is_typed_and_refuses_late_saves() {
    if !are_missing(&[]) {
        install();
        fences("react");
    }
}

#[test]
fn the_example_of_fastapi_refuses_late_saves() {
    if !are_missing(&["python3"]) {
        install();
        fences("fastapi");
    }
}

#[test]
fn the_example_of_django_refuses_late_saves() {
    if !are_missing(&["python3"]) {
        install();
        fences("django");
    }
}

#[test]
fn the_example_of_the_gate_lets_no_late_save_through() {
    if are_missing(&["nginx"]) {
        return;
    }
    install();
    let example = Example::start("nginx-gate");
    let tokens = ["alice", "bob"].map(|user| {
        let (status, token) = example.ask("GET", &format!("/tokens/{user}"), &[], "");
        assert_eq!(status, 200, "{token}");
        token.trim_end().to_owned()
    });
    let [mut alice, mut bob] =
        tokens.each_ref().map(|token| Client::connect(example.lockhouse).with_token(token));
    let [alices, bobs] = tokens.map(|token| format!("Authorization: Bearer {token}"));
    let save = |by: &str, fence: i64, body: &str| {
        example.ask("PUT", DOCUMENT, &[by.to_owned(), format!("X-Lock-Fence: {fence}")], body)
    };
    let refused = (403, "You do not have the lock.".to_owned());

    assert_eq!(example.stored(&[]), "The workshop is on Thursday.\n");
    assert_eq!(save(&alices, 1, "no lock"), refused);
    let first = take(&mut alice);
    assert_eq!(save(&alices, first, "It is on Friday.").0, 204);
    // The fence of another lease, a fence that was never given, another document, and another method.
    assert_eq!(save(&bobs, first, "not his"), refused);
    assert_eq!(example.ask("PUT", DOCUMENT, &[format!("X-Lock-Fence: {first}")], "nobody").0, 401);
    let [fence, workspace] = [format!("X-Lock-Fence: {first}"), "X-Lock-Workspace: design-42".to_owned()];
    for path in ["/documents/other", "/index.html", "/tokens/alice", "/documents/design-42/"] {
        let (status, text) =
            example.ask("PUT", path, &[alices.clone(), fence.clone(), workspace.clone()], "other");
        assert!([403, 404, 405].contains(&status), "{path}: {status} {text}");
    }
    assert!([403, 405].contains(&example.ask("DELETE", DOCUMENT, &[alices.clone(), fence], "").0));
    let second = take(&mut bob);
    assert_eq!(save(&alices, first, "late"), refused);
    assert_eq!(save(&bobs, second, "It is on Monday.").0, 204);
    assert_eq!(example.stored(&[]), "It is on Monday.");
    release(&mut bob, second);
    assert_eq!(save(&bobs, second, "released"), refused);

    example.is_seen();
    example.stop();
}

/// The story of its README, with the real Git LFS.
#[test]
fn the_example_of_git_lfs_refuses_a_push_of_a_file_that_another_has_locked() {
    if are_missing(&["git-lfs", "python3"]) {
        return;
    }
    let example = Example::start_until("git-lfs", |_| "The clones are ".to_owned());
    let git = |user: &str, arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(example.data.path().join(user))
            .env("HOME", example.data.path())
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LOCKHOUSE_USER", user)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let works = |user: &str, arguments: &[&str]| {
        let (succeeded, said) = git(user, arguments);
        assert!(succeeded, "{user}: git {arguments:?}: {said}");
        said
    };
    works("alice", &["lfs", "lock", "hero.psd"]);
    assert!(works("bob", &["lfs", "locks"]).contains("alice"));
    let file = example.data.path().join("bob/hero.psd");
    fs::remove_file(&file).unwrap();
    fs::write(&file, "A villain.").unwrap();
    works("bob", &["commit", "-q", "-a", "-m", "A villain"]);
    let (pushed, said) = git("bob", &["push", "origin", "main"]);
    assert!(!pushed && said.contains("hero.psd"), "{said}");
    let (pushed, said) = git("bob", &["push", "--no-verify", "origin", "main"]);
    assert!(!pushed && said.contains("hero.psd is locked by alice."), "{said}");
    let (pushed, said) = git("bob", &["push", "--no-verify", "origin", "main:refs/heads/other"]);
    assert!(!pushed && said.contains("hero.psd is locked by alice."), "a new branch: {said}");
    works("alice", &["lfs", "unlock", "hero.psd"]);
    works("bob", &["push", "-q", "origin", "main"]);
    works("bob", &["push", "-q", "origin", "main:refs/heads/next"]);
    works("bob", &["push", "-q", "origin", ":refs/heads/next"]);
    example.stop();
}

#[test]
fn the_example_of_terraform_locks_and_refuses_a_late_state() {
    if are_missing(&["nginx"]) {
        return;
    }
    let example = Example::start_until("terraform", |_| "in two terminals. Ctrl-C".to_owned());
    let env = |user: &str| fs::read_to_string(example.data.path().join(user).join("env")).unwrap();
    let by = |user: &str| {
        let token = env(user).trim_end().rsplit_once("TF_HTTP_PASSWORD=").unwrap().1.to_owned();
        [format!("Authorization: Bearer {token}"), "Content-Type: application/json".to_owned()]
    };
    let [alice, bob] = ["alice", "bob"].map(by);
    // What Terraform does.
    let lock = |user: &[String; 2], method: &str, id: &str| {
        let data = format!("{{\"ID\":\"{id}\"}}");
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "--max-time",
            "60",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            method,
            "-d",
            &data,
        ]);
        for header in user {
            curl.args(["-H", header]);
        }
        let output = curl.arg(format!("{}/terraform/prod", example.url)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let write = |user: &[String; 2], query: &str, state: &str| {
        example.ask("PUT", &format!("/state/prod{query}"), &user[..1], state).0
    };
    assert_eq!(write(&alice, "?ID=one", "no lock"), 403);
    assert_eq!(lock(&alice, "LOCK", "one"), "200");
    assert_eq!(lock(&bob, "LOCK", "two"), "423");
    assert_eq!(
        [write(&alice, "", "x"), write(&bob, "?ID=one", "x"), write(&alice, "?ID=one", "hers")],
        [403, 403, 201]
    );
    assert_eq!(lock(&bob, "UNLOCK", "one"), "200");
    assert_eq!(lock(&bob, "LOCK", "two"), "200");
    assert_eq!([write(&bob, "?ID=two", "his"), write(&alice, "?ID=one", "late")], [204, 403]);
    assert_eq!(example.ask("GET", "/state/prod", &[], "").1, "his");
    assert_eq!(lock(&bob, "UNLOCK", "two"), "200");

    if Command::new("terraform").arg("version").output().is_ok() {
        assert_eq!(lock(&bob, "LOCK", "two"), "200");
        assert_eq!(write(&bob, "?ID=two", ""), 204);
        assert_eq!(lock(&bob, "UNLOCK", "two"), "200");
        let script = ". ./env && terraform init && terraform apply -auto-approve && terraform plan";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(example.data.path().join("alice"));
        let output = shell.env("TF_VAR_seconds", "0").env("CHECKPOINT_DISABLE", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    } else {
        eprintln!("skipped: terraform is not installed");
    }
    example.stop();
}

#[test]
fn the_example_of_the_webhook_keeps_the_list_of_who_edits() {
    if are_missing(&[]) {
        return;
    }
    let example = Example::start("webhook");
    let database = example.data.path().join("lockhouse.db");
    let made = lockhouse()
        .args(["token", "create", "--scope", "admin", "--user", "alice", "--database"])
        .arg(database)
        .output()
        .unwrap();
    let mut alice = Client::connect(example.lockhouse).with_token(fine(&made).trim_end());
    let shows = |list: &str| patiently(|| example.ask("GET", "/", &[], "") == (200, list.to_owned()));
    let fence = take(&mut alice);
    shows("design-42: alice\n");
    alice.acquire("other", &json!({})).expect(200);
    shows("design-42: alice\nother: alice\n");
    release(&mut alice, fence);
    shows("other: alice\n");
    let forged = [("webhook-id", "evt_9_9"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,AAAA")];
    let forged = forged.map(|(name, value)| format!("{name}: {value}"));
    assert_eq!(example.ask("POST", "/lockhouse", &forged, "").0, 401);
    assert_eq!(example.ask("POST", "/lockhouse", &[], "").0, 401);
    example.stop();
}

#[test]
fn without_lockhouse_an_example_says_how_to_get_it() {
    let output = command(&examples().join("shared/with-lockhouse"))
        .arg("true")
        .env("LOCKHOUSE_BIN", "/nowhere/lockhouse")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("set LOCKHOUSE_BIN to the binary"));
}

#[test]
fn the_example_of_the_webhook_verifies_as_the_page_does() {
    let shown = blocks("webhooks.md", "js").swap_remove(0);
    assert_eq!(fs::read_to_string(examples().join("webhook/signed.js")).unwrap(), shown);
}

/// Each example has versions that cannot change, from no registry in particular.
#[test]
fn the_versions_of_what_an_example_installs_are_pinned() {
    for lock in ["node/package-lock.json", "react/package-lock.json"] {
        let lock = fs::read_to_string(examples().join(lock)).unwrap();
        assert!(lock.contains("\"integrity\"") && !lock.contains("\"resolved\": \"http"));
    }
    for requirements in ["fastapi/requirements.txt", "django/requirements.txt"] {
        let requirements = fs::read_to_string(examples().join(requirements)).unwrap();
        // Lockhouse's own client is the one of this commit.
        let mut others = requirements.lines().filter(|line| *line != "-e ../../clients/python");
        assert!(others.all(|line| line.contains("==")), "{requirements}");
    }
}
