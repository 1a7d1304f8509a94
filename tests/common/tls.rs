//! A certificate of `localhost`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The files of a certificate.
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Makes a certificate of `localhost` in `directory`, which is signed by itself.
pub fn of_localhost(directory: &Path) -> Certificate {
    let made = Certificate { certificate: directory.join("certificate"), key: directory.join("key") };
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&made.key)
        .arg("-out")
        .arg(&made.certificate)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    made
}
