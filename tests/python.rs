//! The tests of `clients/python` against this server. They need Python 3 with `venv`, and packages from `PyPI`; without Python
//! they are skipped, but not in CI.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::process::is_missing;

fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python")
}

/// Runs a command in the folder of the client, which must succeed.
#[track_caller]
fn runs(program: &Path, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(client())
        .env("LOCKHOUSE", env!("CARGO_BIN_EXE_lockhouse"))
        .output()
        .unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {arguments:?}\n{out}\n{error}", program.display());
}

#[test]
fn the_python_client_is_typed_and_works() {
    if is_missing("python3") {
        return;
    }
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let program = |name: &str| environment.join("bin").join(name);
    let written = |file: PathBuf| file.metadata().and_then(|file| file.modified());
    let installed = environment.join("installed");
    let asked = ["requirements-test.txt", "pyproject.toml"].map(|file| written(client().join(file)).unwrap());
    if !written(installed.clone()).is_ok_and(|there| asked.iter().all(|asked| there > *asked)) {
        runs(Path::new("python3"), &["-m", "venv", "--clear", environment.to_str().unwrap()]);
        let pip = ["install", "--quiet", "--disable-pip-version-check"];
        runs(
            &program("pip"),
            &[&pip[..], &["--requirement", "requirements-test.txt", "--editable", "."]].concat(),
        );
        std::fs::write(installed, "").unwrap();
    }
    runs(&program("ruff"), &["check"]);
    runs(&program("ruff"), &["format", "--check"]);
    runs(&program("mypy"), &[]);
    // Three files at a time, because they mostly wait.
    runs(&program("pytest"), &["--numprocesses", "3"]);
}
