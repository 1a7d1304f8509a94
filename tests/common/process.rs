//! The program as a separate process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::thread::JoinHandle;

use super::Client;

pub struct Process {
    child: Child,
    pub address: SocketAddr,
    log: Option<JoinHandle<String>>,
}

/// `lockhouse` without the settings of this machine's environment.
pub fn lockhouse() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockhouse"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOCKHOUSE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Whether a program is missing on this machine. Prints that. In CI no program may be missing: `.ci/run` installs them.
pub fn is_missing(program: &str) -> bool {
    let missing = Command::new(program).arg("--version").output().is_err();
    assert!(!missing || std::env::var_os("CI").is_none(), "{program} is missing in CI");
    if missing {
        eprintln!("skipped: {program} is not installed");
    }
    missing
}

/// libfaketime; prints that and returns `None` where it is not installed. In CI it must be there.
pub fn faketime_library() -> Option<String> {
    let files = "ls /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib/faketime/libfaketimeMT.so.1 2>/dev/null | head -n 1";
    let found = Command::new("sh").args(["-c", files]).output().ok()?;
    let path = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    if path.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "libfaketime is missing in CI");
        eprintln!("skipped: libfaketime is not installed");
        return None;
    }
    Some(path)
}

fn read_all(mut stderr: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    })
}

impl Process {
    /// Serves `database` on a free port.
    pub fn serve(database: &Path) -> Self {
        Self::start(&mut lockhouse(), database)
    }

    /// The same, with a command that was prepared.
    pub fn start(command: &mut Command, database: &Path) -> Self {
        Self::start_with(command.arg("serve"), database)
    }

    /// The same, where the command has flags of `serve` already.
    pub fn start_with(command: &mut Command, database: &Path) -> Self {
        // The flag would take precedence over an address of PostgreSQL.
        if !command.get_envs().any(|(name, _)| name.to_string_lossy().starts_with("LOCKHOUSE_DATABASE_URL")) {
            command.arg("--database").arg(database);
        }
        let mut child = command
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = read_all(child.stderr.take().unwrap());
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line
            .strip_prefix("lockhouse is listening on http://")
            .and_then(|address| address.trim_end().parse().ok());
        let Some(address) = address else {
            let _ = child.wait();
            panic!("it did not start: {line:?} {}", log.join().unwrap());
        };
        Self { child, address, log: Some(log) }
    }

    pub fn user(&self, user: &str) -> Client {
        Client::connect(self.address).by(user)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no destructor runs, nothing is flushed.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns the exit code and the log.
    pub fn terminate(self) -> (Option<i32>, String) {
        self.ask_to_stop();
        self.wait()
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        let killed = Command::new("kill").arg(self.id().to_string()).status().unwrap();
        assert!(killed.success());
    }

    /// Whether it has ended. Does not need the child mutably.
    pub fn is_over(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap().contains(") Z ")
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it ends; returns the exit code and the log.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        (code, self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output of a command that must have succeeded.
#[track_caller]
pub fn fine(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A command must have failed with a message that contains `says`.
#[track_caller]
pub fn refused(output: &Output, says: &str) {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(says), "{says:?} is missing in {message}");
}
