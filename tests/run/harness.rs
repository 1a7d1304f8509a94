//! A running `lockhouse run`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::common::process::lockhouse;
use super::common::{Server, eventually};

pub fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

/// A `lockhouse run` of user bob. The command works in `directory`.
pub struct Run {
    child: Child,
    pub directory: TempDir,
}

impl Run {
    pub fn of(server: &Server, workspace: &str, flags: &[&str], command: &[&str]) -> Self {
        Self::at(&url(server), workspace, flags, command)
    }

    pub fn at(url: &str, workspace: &str, flags: &[&str], command: &[&str]) -> Self {
        let mut run = with_default_signals(lockhouse().get_program());
        run.arg("run").args(flags).arg(workspace).arg("--").args(command);
        Self::start(run, tempfile::tempdir().unwrap(), url)
    }

    /// The same, where a shell executes the program: `"$0" "$@"`.
    pub fn in_shell(
        server: &Server,
        directory: TempDir,
        script: &str,
        workspace: &str,
        command: &[&str],
    ) -> Self {
        let mut shell = with_default_signals(OsStr::new("sh"));
        let program = env!("CARGO_BIN_EXE_lockhouse");
        shell.args(["-c", script, program, "run", workspace, "--"]).args(command);
        Self::start(shell, directory, &url(server))
    }

    fn start(mut command: Command, directory: TempDir, url: &str) -> Self {
        let child = command
            .current_dir(directory.path())
            .env("LOCKHOUSE_URL", url)
            .env("LOCKHOUSE_USER", "bob")
            .stdin(Stdio::piped())
            .stdout(File::create(directory.path().join("output")).unwrap())
            .stderr(File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, directory }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Waits until the command has written this file.
    #[track_caller]
    pub fn has(&self, file: &str) {
        eventually(|| self.path(file).exists());
    }

    pub fn write(&self, file: &str) {
        File::create(self.path(file)).unwrap();
    }

    /// Waits until it has said this on standard error.
    #[track_caller]
    pub fn says(&self, text: &str) {
        eventually(|| fs::read_to_string(self.path("log")).unwrap().contains(text));
    }

    pub fn close_stdin(&mut self, text: &str) {
        self.child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Sends a signal to `lockhouse run` alone.
    pub fn signal(&self, signal: &str) {
        send(signal, &self.child.id().to_string());
    }

    /// Waits for the end; exit code and standard error.
    pub fn finish(self) -> (i32, String) {
        let (_directory, code, log) = self.finish_in();
        (code, log)
    }

    /// The same, with the directory.
    pub fn finish_in(mut self) -> (TempDir, i32, String) {
        drop(self.child.stdin.take());
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let log = fs::read_to_string(self.path("log")).unwrap();
        (self.directory, code, log)
    }

    /// Waits for the end; exit code and standard output.
    pub fn finish_with_output(self) -> (i32, String) {
        let (directory, code, log) = self.finish_in();
        let mut output = String::new();
        File::open(directory.path().join("output")).unwrap().read_to_string(&mut output).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        (code, output)
    }
}

/// A command whose signals are not ignored, which they are after nohup or in the background of a script.
pub fn with_default_signals(program: &OsStr) -> Command {
    let mut command = Command::new("env");
    for (name, _) in lockhouse().get_envs() {
        command.env_remove(name);
    }
    command.arg("--default-signal=HUP,INT,QUIT,TERM").arg(program);
    command
}

pub fn send(signal: &str, process: &str) {
    let status = Command::new("kill").args(["-s", signal, "--", process]).status().unwrap();
    assert!(status.success(), "kill -s {signal} {process}");
}

/// Whether the process whose number is in the file lives. A zombie does not.
pub fn lives(file: &Path) -> bool {
    let number = fs::read_to_string(file).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", number.trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}
