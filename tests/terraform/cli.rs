//! With the real `terraform`. It is installed by nobody but its vendor, so a machine may be without it, also in CI.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::domain::access::Takeover;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::common::docs::block_with;
use super::common::nginx::Nginx;
use super::common::process::is_missing;
use super::common::{Server, metric};
use super::kinds_of_events;

/// Whether there is no `terraform`. Prints that.
fn is_terraform_missing() -> bool {
    let missing = Command::new("terraform").arg("version").output().is_err();
    if missing {
        eprintln!("skipped: terraform is not installed");
    }
    missing
}

/// Waits until it is so, for at least five minutes: Terraform starts slowly where there is much else to do.
fn patiently(mut so: impl FnMut() -> bool) {
    for _ in 0..15_000 {
        if so() {
            return;
        }
        thread::park_timeout(Duration::from_millis(20));
    }
    panic!("it does not happen");
}

/// Reads a request: its first line, its headers and its body, as they were sent.
fn read_request(stream: &TcpStream) -> Option<(String, Vec<String>, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let length = lines.iter().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    let first = lines.remove(0);
    Some((first, lines, body))
}

/// Serves one request for each connection, each in a thread of its own.
fn serve(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || answer(stream.unwrap()));
        }
    });
    address
}

/// A store of states without locks.
fn store() -> SocketAddr {
    let states: Mutex<HashMap<String, Vec<u8>>> = Mutex::default();
    serve(move |mut stream| {
        let Some((first, _, body)) = read_request(&stream) else { return };
        let (method, rest) = first.split_once(' ').unwrap();
        let path = rest.split([' ', '?']).next().unwrap().to_owned();
        let (code, state) = {
            let mut states = states.lock().unwrap();
            if method == "POST" {
                states.insert(path.clone(), body);
            }
            match states.get(&path) {
                Some(state) => (200, state.clone()),
                None => (404, Vec::new()),
            }
        };
        let head =
            format!("HTTP/1.1 {code} -\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", state.len());
        let _ = stream.write_all(&[head.as_bytes(), &state].concat());
    })
}

/// A proxy that swallows the first answer to a request with each of these methods. Counts the requests.
fn swallowing(to: SocketAddr, methods: &[&'static str]) -> (SocketAddr, Arc<AtomicUsize>) {
    let swallowed = Mutex::new(methods.to_vec());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let address = serve(move |mut stream| {
        let Some((first, headers, body)) = read_request(&stream) else { return };
        counted.fetch_add(1, Ordering::SeqCst);
        let mut server = TcpStream::connect(to).unwrap();
        let head = format!("{first}\r\n{}\r\nConnection: close\r\n\r\n", headers.join("\r\n"));
        server.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).unwrap();
        let mut swallowed = swallowed.lock().unwrap();
        match swallowed.iter().position(|method| first.starts_with(&format!("{method} "))) {
            Some(place) => drop(swallowed.remove(place)),
            None => stream.write_all(&answer).unwrap(),
        }
    });
    (address, count)
}

/// A directory with a configuration. While `hold` is there, an apply waits and has made `held`.
struct Project {
    directory: TempDir,
    user: &'static str,
    password: String,
}

impl Project {
    /// A user's, with these settings of the backend, ready to apply.
    fn new(user: &'static str, password: &str, backend: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let configuration = format!(
            r#"
terraform {{
  backend "http" {{
    {backend}
  }}
}}
resource "terraform_data" "it" {{
  input = "{user}"
  provisioner "local-exec" {{
    command = "touch held; while [ -e hold ]; do sleep 0.05; done"
  }}
}}
"#
        );
        fs::write(directory.path().join("main.tf"), configuration).unwrap();
        fs::write(directory.path().join("rc"), "").unwrap();
        let project = Self { directory, user, password: password.to_owned() };
        let output = project.command(&["init", "-input=false"]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        project
    }

    /// The state `prod` in `store`, and its lock in the workspace `team/prod` of Lockhouse.
    fn of(user: &'static str, store: SocketAddr, locks: SocketAddr) -> Self {
        Self::new(user, "", &backend(store, locks))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("terraform");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TF_")) {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("TF_CLI_ARGS", "-no-color")
            .current_dir(&self.directory)
            .env("HOME", self.directory.path())
            .env("TF_CLI_CONFIG_FILE", self.at("rc"))
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_HTTP_USERNAME", self.user)
            .env("TF_HTTP_PASSWORD", &self.password)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn at(&self, file: &str) -> std::path::PathBuf {
        self.directory.path().join(file)
    }

    fn apply(&self, arguments: &[&str]) -> Output {
        self.command(&[&["apply", "-auto-approve", "-input=false"], arguments].concat()).output().unwrap()
    }

    /// Begins an apply, and waits until it has the lock.
    fn hold(&self) -> Held<'_> {
        fs::write(self.at("hold"), "").unwrap();
        let mut child = self.command(&["apply", "-auto-approve", "-input=false"]).spawn().unwrap();
        patiently(|| {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            self.at("held").exists()
        });
        Held { project: self, child: Some(child) }
    }

    fn force_unlock(&self, id: &str) -> Output {
        let mut command = self.command(&["force-unlock", "-force"]);
        command.arg(id).output().unwrap()
    }
}

/// An apply that has the lock.
struct Held<'p> {
    project: &'p Project,
    child: Option<Child>,
}

impl Held<'_> {
    /// Lets it go on.
    fn finish(mut self) -> Output {
        fs::remove_file(self.project.at("hold")).unwrap();
        self.child.take().unwrap().wait_with_output().unwrap()
    }

    fn signal(mut self, signal: &str) -> Output {
        let child = self.child.take().unwrap();
        let killed = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let output = child.wait_with_output().unwrap();
        let _ = fs::remove_file(self.project.at("hold"));
        output
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.project.at("hold"));
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn backend(store: SocketAddr, locks: SocketAddr) -> String {
    format!(
        "address = \"http://{store}/prod\"\n    lock_address = \"http://{locks}/terraform/team%2Fprod\"\n    \
         unlock_address = \"http://{locks}/terraform/team%2Fprod\""
    )
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn fine(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

#[track_caller]
fn refused(output: &Output, says: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    // It breaks lines.
    let words = said.replace(['│', '╷', '╵'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for says in says {
        assert!(words.contains(says), "{says:?} is missing in {said}");
    }
}

fn held_by(server: &Server) -> Value {
    server.user("watcher").lock("team%2Fprod")
}

#[test]
fn a_second_apply_is_refused_and_says_by_whom() {
    if is_terraform_missing() {
        return;
    }
    let (server, store) = (Server::start(), store());
    let [alice, bob] = ["alice", "bob"].map(|user| Project::of(user, store, server.address()));
    let held = alice.hold();
    let lock = held_by(&server);
    let id = lock["session_id"].as_str().unwrap().to_owned();
    assert_eq!((&lock["kind"], &lock["locked_by_user_id"]), (&json!("terraform"), &json!("alice")));
    let kept = &lock["metadata"]["terraform"];
    assert_eq!((&kept["Operation"], &kept["Version"]), (&json!("OperationTypeApply"), &json!(version())));
    refused(&bob.apply(&[]), &["Error acquiring the state lock", &format!("already locked: ID={id}")]);
    assert!(!bob.at("held").exists());
    fine(&held.finish());
    assert_eq!(held_by(&server), Value::Null);
    // A person who has the workspace in the console.
    let mut carol = server.user("carol");
    let fence = carol.acquire("team%2Fprod", &json!({})).expect(200)["lock"]["fence"].to_string();
    refused(&bob.apply(&[]), &[&format!("already locked: ID=carol-{fence}")]);
    refused(&bob.force_unlock(&format!("carol-{fence}")), &["409"]);
    carol.release("team%2Fprod", &json!({})).expect(200);
    fine(&bob.apply(&[]));
    let events = kinds_of_events(&mut carol, "team%2Fprod");
    assert_eq!(events, ["lock.released", "lock.acquired"].repeat(3));
}

/// The version of the installed `terraform`.
fn version() -> String {
    let output = Command::new("terraform").args(["version", "-json"]).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    json["terraform_version"].as_str().unwrap().to_owned()
}

#[test]
fn lock_timeout_waits_for_the_other_apply() {
    if is_terraform_missing() {
        return;
    }
    let (server, store) = (Server::start(), store());
    let [alice, bob] = ["alice", "bob"].map(|user| Project::of(user, store, server.address()));
    let held = alice.hold();
    let waiting =
        bob.command(&["apply", "-auto-approve", "-input=false", "-lock-timeout=120s"]).spawn().unwrap();
    let refusals = "lockhouse_acquisitions_total{outcome=\"held\"}";
    patiently(|| metric(&server, refusals) > 0.0);
    fine(&held.finish());
    fine(&waiting.wait_with_output().unwrap());
    assert_eq!(kinds_of_events(&mut server.user("watcher"), "team%2Fprod").len(), 4);
}

#[test]
fn lost_answers_do_no_harm() {
    if is_terraform_missing() {
        return;
    }
    let (server, store) = (Server::start(), store());
    for [lock, unlock] in [["LOCK", "UNLOCK"], ["PUT", "DELETE"]] {
        let (proxy, count) = swallowing(server.address(), &[lock, unlock]);
        let methods =
            format!("{}\n lock_method = \"{lock}\"\n unlock_method = \"{unlock}\"", backend(store, proxy));
        let methods =
            if lock == "LOCK" { methods } else { methods.replace("team%2Fprod", "team%2Fprod/lock") };
        fine(&Project::new("alice", "", &methods).apply(&[]));
        assert_eq!(count.load(Ordering::SeqCst), 4, "each was sent twice");
        assert_eq!(held_by(&server), Value::Null);
    }
    let events = kinds_of_events(&mut server.user("watcher"), "team%2Fprod");
    assert_eq!(events, ["lock.released", "lock.acquired"].repeat(2));
}

#[test]
fn ctrl_c_unlocks_and_kill_does_not() {
    if is_terraform_missing() {
        return;
    }
    let (server, store) = (Server::start(), store());
    let alice = Project::of("alice", store, server.address());
    refused(&alice.hold().signal("INT"), &["Interrupt received"]);
    assert_eq!(held_by(&server), Value::Null);

    fs::remove_file(alice.at("held")).unwrap();
    alice.hold().signal("KILL");
    let id = held_by(&server)["session_id"].as_str().unwrap().to_owned();
    refused(&alice.apply(&[]), &[&format!("already locked: ID={id}")]);
    fine(&alice.force_unlock(&id));
    assert_eq!(held_by(&server), Value::Null);
    fine(&alice.apply(&[]));
    let events = kinds_of_events(&mut server.user("watcher"), "team%2Fprod");
    assert_eq!(events, ["lock.released", "lock.acquired"].repeat(3));
}

#[test]
fn force_unlock_of_another_user_needs_the_right_to_take_over() {
    if is_terraform_missing() {
        return;
    }
    for (takeover, event) in [(Takeover::Admins, "lock.acquired"), (Takeover::Anyone, "lock.revoked")] {
        let server = Server::with(|config| {
            config.auth.mode = AuthMode::Token;
            config.locks.takeover = takeover;
        });
        let store = store();
        let project = |user| {
            let token = server.token(Scope::User, Some(user));
            Project::new(user, &token, &backend(store, server.address()))
        };
        let (alice, bob) = (project("alice"), project("bob"));
        alice.hold().signal("KILL");
        let mut admin = server.with_token(Scope::Admin, Some("root"));
        let id = admin.lock("team%2Fprod")["session_id"].as_str().unwrap().to_owned();
        let output = bob.force_unlock(&id);
        match takeover {
            Takeover::Anyone => fine(&output),
            Takeover::Admins | Takeover::Nobody => refused(&output, &["403"]),
        }
        assert_eq!(kinds_of_events(&mut admin, "team%2Fprod")[0], event);
    }
}

/// nginx as the page has it: it stores the states, and asks the gate before it writes one.
fn nginx(directory: &Path, lockhouse: SocketAddr) -> Nginx {
    let states = directory.join("states").to_string_lossy().into_owned();
    Nginx::run(directory, |port| {
        block_with(
            "terraform.md",
            "nginx",
            &[
                ("127.0.0.1:7311", &lockhouse.to_string()),
                ("127.0.0.1:8080", &format!("127.0.0.1:{port}")),
                ("/var/lib/terraform", &states),
            ],
        )
    })
}

#[test]
fn after_a_forced_end_the_gate_refuses_the_write_of_the_state() {
    if is_terraform_missing() || is_missing("nginx") {
        return;
    }
    let server = Server::with(|config| config.auth.mode = AuthMode::Token);
    let directory = tempfile::tempdir().unwrap();
    let nginx = nginx(directory.path(), server.address());
    let project = |user| {
        let ours = [("https://infra.example", format!("http://127.0.0.1:{}", nginx.port))];
        let ours: Vec<_> = ours.iter().map(|(shown, ours)| (*shown, ours.as_str())).collect();
        let page = block_with("terraform.md", "hcl", &ours);
        let settings: Vec<_> = page.lines().filter(|line| line.contains('=')).collect();
        Project::new(user, &server.token(Scope::User, Some(user)), &settings.join("\n"))
    };
    let (alice, bob) = (project("alice"), project("bob"));
    let mut admin = server.with_token(Scope::Admin, Some("root"));
    let held = alice.hold();
    assert_eq!(admin.lock("prod")["metadata"]["terraform"]["Operation"], "OperationTypeApply");
    admin.delete("/api/v1/workspaces/prod/lock?force=true").expect(200);
    fine(&bob.apply(&[]));
    let state = || fs::read_to_string(directory.path().join("states/state/prod")).unwrap();
    let bobs = state();
    assert!(bobs.contains("\"input\"") && bobs.contains("bob"), "{bobs}");
    refused(&held.finish(), &["Failed to save state", "403"]);
    assert_eq!(state(), bobs);
    assert!(alice.at("errored.tfstate").exists(), "Terraform keeps what it could not write");
    // force-unlock goes through nginx too, with its empty chunked body.
    fs::remove_file(bob.at("held")).unwrap();
    fs::remove_file(alice.at("held")).unwrap();
    alice.command(&["state", "rm", "terraform_data.it"]).output().map(|output| fine(&output)).unwrap();
    alice.hold().signal("KILL");
    let id = admin.lock("prod")["session_id"].as_str().unwrap().to_owned();
    fine(&bob.force_unlock(&id));
    fine(&bob.apply(&[]));
    assert_eq!(
        kinds_of_events(&mut admin, "prod")[..4],
        ["lock.released", "lock.acquired", "lock.revoked", "lock.acquired"]
    );
}
