//! A real nginx.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use super::docs::block_with;
use super::eventually;

/// nginx, and all that it needs, in a directory of its own.
pub struct Nginx {
    child: Child,
    directory: PathBuf,
    pub port: u16,
}

/// Runs a program that must succeed.
fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

impl Nginx {
    /// Runs the server of the page before the socket that Lockhouse has in `directory`.
    pub fn start(directory: &Path) -> Self {
        let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let password = run("openssl", &["passwd", "-apr1", "secret"]);
        let password = String::from_utf8_lossy(&password.stdout);
        fs::write(at("users"), ["alice", "root", "Zoë"].map(|user| format!("{user}:{password}")).concat())
            .unwrap();
        Self::with_tls(directory, |port| {
            block_with(
                "operation.md",
                "nginx",
                &[
                    ("/run/lockhouse/lockhouse.sock", &at("lockhouse.sock")),
                    ("443", &format!("127.0.0.1:{port}")),
                    ("/etc/ssl/locks.example.crt", &at("certificate")),
                    ("/etc/ssl/locks.example.key", &at("key")),
                    ("/etc/nginx/lockhouse.htpasswd", &at("users")),
                ],
            )
        })
    }

    /// Runs with these settings of its `http` block, which are for a port, and a certificate of `locks.example`.
    pub fn with_tls(directory: &Path, settings: impl Fn(u16) -> String) -> Self {
        let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let (key, certificate) = (at("key"), at("certificate"));
        let what =
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=locks.example"];
        run("openssl", &[&what[..], &["-keyout", &key, "-out", &certificate]].concat());
        Self::run(directory, settings)
    }

    /// Runs with these settings of its `http` block, which are for a port. It cannot pick a port itself, and one that is free
    /// now may be taken before it listens.
    pub fn run(directory: &Path, settings: impl Fn(u16) -> String) -> Self {
        let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {};", at(name)))
            .join("\n");
        let (pid, errors) = (at("pid"), at("errors"));
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let settings = format!(
                "daemon off;\nuser root;\npid {pid};\nerror_log {errors} info;\nevents {{}}\n\
                 http {{\naccess_log off;\n{folders}\n{}}}\n",
                settings(port)
            );
            fs::write(at("nginx.conf"), settings).unwrap();
            let child = Command::new("nginx")
                .args(["-e", &at("errors"), "-p", &at(""), "-c", &at("nginx.conf")])
                .spawn()
                .unwrap();
            let mut nginx = Self { child, directory: directory.to_owned(), port };
            if nginx.is_up() {
                return nginx;
            }
        }
        panic!("nginx does not start: {}", fs::read_to_string(at("errors")).unwrap_or_default());
    }

    /// Waits until it listens or has ended. It writes its process id when it listens. A connection would not tell whose
    /// port it is.
    fn is_up(&mut self) -> bool {
        let (pid, own) = (self.directory.join("pid"), format!("{}\n", self.child.id()));
        let mut listens = false;
        eventually(|| {
            listens = fs::read_to_string(&pid).is_ok_and(|pid| pid == own);
            listens || self.child.try_wait().unwrap().is_some()
        });
        listens
    }

    /// curl, over TLS.
    pub fn curl(&self, arguments: &[&str], path: &str) -> Command {
        let mut command = Command::new("curl");
        let to = format!("locks.example:{}:127.0.0.1", self.port);
        command
            .args(["-sS", "--max-time", "20", "--cacert"])
            .arg(self.directory.join("certificate"))
            .args(["--resolve", &to])
            .args(arguments)
            .arg(format!("https://locks.example:{}{path}", self.port));
        command
    }

    /// The output of curl.
    pub fn ask(&self, arguments: &[&str], path: &str) -> String {
        String::from_utf8_lossy(&self.curl(arguments, path).output().unwrap().stdout).into_owned()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it, when it is asked and not killed.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
