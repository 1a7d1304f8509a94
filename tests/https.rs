//! Commands that call a server behind a proxy with TLS.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::nginx::Nginx;
use common::process::{is_missing, lockhouse};
use common::{Server, eventually, tls};

/// nginx with TLS before a server.
struct Proxied {
    server: Server,
    nginx: Nginx,
    directory: tempfile::TempDir,
}

impl Proxied {
    fn start() -> Self {
        let (server, directory) = (Server::start(), tempfile::tempdir().unwrap());
        let made = tls::of_localhost(directory.path());
        let nginx = Nginx::run(directory.path(), |port| {
            format!(
                "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {};\n\
                 location / {{ proxy_pass http://{}; proxy_buffering off; proxy_read_timeout 2m; }} }}",
                made.certificate.display(),
                made.key.display(),
                server.address()
            )
        });
        Self { server, nginx, directory }
    }

    /// A command, which trusts the certificates in `trusted`.
    fn command(&self, host: &str, trusted: &Path, arguments: &[&str]) -> Command {
        let mut command = lockhouse();
        command
            .args(arguments)
            .env("LOCKHOUSE_URL", format!("https://{host}:{}", self.nginx.port))
            .env("LOCKHOUSE_USER", "alice")
            .env("SSL_CERT_FILE", trusted)
            .env_remove("SSL_CERT_DIR");
        command
    }

    fn trusting(&self, arguments: &[&str]) -> Command {
        self.command("localhost", &self.directory.path().join("certificate"), arguments)
    }
}

/// The exit code, the output, and what was said.
fn finished(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn commands_work_over_https() {
    if is_missing("nginx") || is_missing("openssl") {
        return;
    }
    let proxied = Proxied::start();
    let (code, output, log) = finished(&proxied.trusting(&["health"]).output().unwrap());
    assert_eq!(
        (code, output),
        (Some(0), format!("https://localhost:{} is ready\n", proxied.nginx.port)),
        "{log}"
    );

    // Events come through while the command runs: it is told at once that the lock was ended.
    let mut run = proxied.trusting(&["run", "w", "--", "sleep", "600"]);
    let run = run.stderr(std::process::Stdio::piped()).spawn().unwrap();
    eventually(|| proxied.server.user("bob").lock("w")["kind"] == "run");
    let (code, output, log) = finished(&proxied.trusting(&["locks", "list"]).output().unwrap());
    assert_eq!((code, output.contains('w')), (Some(0), true), "{log}");
    proxied.server.user("bob").delete("/api/v1/workspaces/w/lock?force=true").expect(200);
    let (code, _, log) = finished(&run.wait_with_output().unwrap());
    assert_eq!((code, log.contains("revoked by bob")), (Some(76), true), "{log}");
}

#[test]
fn a_server_whose_certificate_is_not_trusted_gets_no_request() {
    if is_missing("nginx") || is_missing("openssl") {
        return;
    }
    let proxied = Proxied::start();
    let other = tempfile::tempdir().unwrap();
    let other = tls::of_localhost(other.path()).certificate;
    let own = proxied.directory.path().join("certificate");
    let nothing = proxied.directory.path().join("nothing");
    fs::write(&nothing, "").unwrap();
    for (host, trusted, says) in [
        ("localhost", other, "its certificate is refused"),
        ("127.0.0.1", own, "its certificate is refused"),
        ("localhost", nothing, "install ca-certificates"),
    ] {
        for (arguments, expected) in [(&["health"][..], 1), (&["run", "w", "--", "true"], 69)] {
            let (code, _, log) = finished(&proxied.command(host, &trusted, arguments).output().unwrap());
            assert_eq!((code, log.contains(says)), (Some(expected), true), "{host} {arguments:?}: {log}");
        }
    }
    assert!(proxied.server.user("bob").history("w").is_empty());
}
