//! Libraries in C that are loaded between the real program and the system.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `tests/shims/{name}.c` into `directory`, for `LD_PRELOAD`. Prints that and returns `None` where there is no
/// C compiler. In CI it must be there.
pub fn compile(name: &str, directory: &Path) -> Option<PathBuf> {
    let library = directory.join(name).with_extension("so");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-pthread", "-o"])
        .arg(&library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shims").join(name).with_extension("c"))
        .output();
    match built {
        Ok(built) => {
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            Some(library)
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "no C compiler in CI: {error}");
            eprintln!("skipped: there is no C compiler: {error}");
            None
        }
    }
}
