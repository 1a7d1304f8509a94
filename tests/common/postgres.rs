//! A real PostgreSQL for the tests: one for each test binary, with a database for each server.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, OnceLock};

use lockhouse::config::Secret;

use super::eventually;

/// Whether the tests run on PostgreSQL: `LH_STORE=postgres`.
pub fn is_asked_for() -> bool {
    match std::env::var("LH_STORE").as_deref() {
        Ok("postgres") => true,
        Ok("sqlite") | Err(_) => false,
        Ok(other) => panic!("LH_STORE is sqlite or postgres, not {other}"),
    }
}

/// The address of an empty database, if the tests run on PostgreSQL.
pub fn new_database_if_asked() -> Option<Secret> {
    is_asked_for().then(new_database)
}

/// The address of an empty database.
pub fn new_database() -> Secret {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::SeqCst));
    let cluster = Cluster::of_this_process();
    cluster.sql("postgres", &format!("CREATE DATABASE {name}"));
    cluster.url(&name)
}

/// Lets a command serve an empty database, if the tests run on PostgreSQL.
pub fn use_if_asked(command: &mut Command) {
    if let Some(url) = new_database_if_asked() {
        command.env("LOCKHOUSE_DATABASE_URL", url.as_str());
    }
}

/// A database that has what `database` has now. Its nodes were last seen long ago.
pub fn copy_of(database: &Secret) -> Secret {
    let (cluster, copy) = (Cluster::of_this_process(), new_database());
    let mut dump = Command::new("pg_dump")
        .args(["-U", "lockhouse", "-d", name_in(database), "-h"])
        .arg(cluster.directory())
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_dump must be installed");
    let mut load = cluster.psql(name_in(&copy));
    assert!(load.stdin(dump.stdout.take().unwrap()).stdout(Stdio::null()).status().unwrap().success());
    assert!(dump.wait().unwrap().success());
    cluster.sql(name_in(&copy), "UPDATE nodes SET seen_at = 0");
    copy
}

/// The name of the database in an address.
pub fn name_in(url: &Secret) -> &str {
    url.as_str().rsplit('/').next().unwrap()
}

/// The programs of the newest PostgreSQL of this machine. `psql` in the path is a script that takes longer.
fn programs() -> &'static Path {
    static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
        let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let versions = installed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let newest = versions.max().expect("PostgreSQL must be installed: apt install postgresql");
        format!("/usr/lib/postgresql/{newest}/bin").into()
    });
    &PROGRAMS
}

/// Makes the files of a new cluster. They are copied: `initdb` takes most of the time of a short test.
const NEW: &str = concat!(
    "made=",
    env!("CARGO_TARGET_TMPDIR"),
    r#"/postgres$(echo "$bin" | tr / -)-$(id -u)
    if [ ! -d "$made" ]; then
      $as "$bin/initdb" -U lockhouse -A trust -E UTF8 --locale=C --no-sync -D new >/dev/null
      cp -a new "$made.$$"
      mv -T "$made.$$" "$made" 2>/dev/null || rm -rf "$made.$$"
    fi
    cp -a "$made" data"#
);

/// A PostgreSQL with a directory and a socket of its own. It ends when this is dropped, and with this process, however
/// that ends.
pub struct Cluster {
    directory: PathBuf,
    /// The shell that stops it when its input ends.
    shell: Child,
}

impl Cluster {
    /// The one that the tests of this process share.
    pub fn of_this_process() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(|| Self::start(""))
    }

    /// Starts one with further settings, such as `-c wal_level=logical`. They are words of a shell, in which `$dir`
    /// is its directory and `$as` runs a command as its user.
    pub fn start(settings: &str) -> Self {
        Self::start_as(NEW, "", settings)
    }

    /// Starts a standby, which follows this one.
    pub fn standby(&self) -> Self {
        let copy = format!(
            r#"$as "$bin/pg_basebackup" -D data -h {} -U lockhouse -R -X stream --checkpoint=fast --no-sync"#,
            self.directory.display()
        );
        Self::start_as(&copy, "", "")
    }

    /// Starts one with a clock that can be set by [`Self::set_clock`]. `library` is libfaketime.
    pub fn with_clock(library: &str) -> Self {
        let environment = format!(
            "LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE=$PWD/clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1"
        );
        Self::start_as(NEW, &environment, "")
    }

    /// Sets the clock to the real time and this much.
    pub fn set_clock(&self, by: &str) {
        let new = self.directory.join("clock.new");
        std::fs::write(&new, by).unwrap();
        std::fs::rename(new, self.directory.join("clock")).unwrap();
    }

    /// Kills it, as if the machine lost its power. It flushes nothing.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().to_owned();
        assert!(Command::new("kill").args(["-QUIT", &pid]).status().unwrap().success());
        eventually(|| self.try_sql("postgres", "SELECT 1").is_none());
    }

    /// `make` makes the files in `data`.
    fn start_as(make: &str, environment: &str, settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap().keep();
        let (shown, bin) = (directory.display(), programs().display());
        // PostgreSQL refuses to run as root. The shell stops it when this process ends, which closes the pipe.
        let script = format!(
            r#"set -e
            dir={shown}
            chmod 0777 {shown}
            cd {shown}
            echo +0 >clock
            bin={bin}
            as=
            if [ "$(id -u)" = 0 ]; then as="setpriv --reuid postgres --regid postgres --clear-groups"; fi
            {make}
            $as env {environment} "$bin/postgres" -D {shown}/data -k {shown} -c listen_addresses= -c fsync=off -c max_connections=400 \
              -c shared_buffers=64MB -c max_wal_size=1GB {settings} >{shown}/log 2>&1 &
            pid=$!
            cat >/dev/null || true
            kill -QUIT $pid 2>/dev/null || true
            wait $pid 2>/dev/null || true
            cd /
            rm -rf {shown}"#
        );
        let shell = Command::new("bash")
            .args(["-c", &script])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut cluster = Self { directory, shell };
        eventually(|| {
            assert!(cluster.shell.try_wait().unwrap().is_none(), "PostgreSQL does not start");
            let status = std::fs::read_to_string(cluster.directory.join("data/postmaster.pid"));
            let status = status.unwrap_or_default().lines().nth(7).unwrap_or_default().trim().to_owned();
            ["ready", "standby"].contains(&status.as_str())
        });
        cluster
    }

    /// The address of a database.
    pub fn url(&self, database: &str) -> Secret {
        Secret::from(format!("postgres://lockhouse@{}/{database}", self.host()).as_str())
    }

    /// Its socket as part of an address.
    pub fn host(&self) -> String {
        self.directory.display().to_string().replace('/', "%2F")
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs statements. Returns the rows as text.
    #[track_caller]
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let asked = self.ask(database, sql);
        assert!(asked.status.success(), "{sql}: {}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8(asked.stdout).unwrap()
    }

    /// Runs statements in a transaction, and leaves it open.
    pub fn hold(&self, database: &str, sql: &str) -> Held {
        let mut psql = Command::new(programs().join("psql"))
            .args(["-qAt", "-h", self.directory.to_str().unwrap(), "-U", "lockhouse", "-d", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(psql.stdin.as_mut().unwrap(), "BEGIN;\n{sql};\nSELECT 'held';").unwrap();
        let lines = BufReader::new(psql.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "held"), "PostgreSQL refuses {sql}");
        Held(psql)
    }

    pub fn try_sql(&self, database: &str, sql: &str) -> Option<String> {
        let asked = self.ask(database, sql);
        asked.status.success().then(|| String::from_utf8(asked.stdout).unwrap())
    }

    fn ask(&self, database: &str, sql: &str) -> Output {
        let mut psql = self
            .psql(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Long statements are no arguments. It does not read them if it cannot connect.
        let _ = psql.stdin.take().unwrap().write_all(sql.as_bytes());
        psql.wait_with_output().unwrap()
    }

    /// `psql` on a database, which reads statements. It ends at the first error.
    pub fn psql(&self, database: &str) -> Command {
        let mut psql = Command::new(programs().join("psql"));
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "lockhouse", "-d", database, "-h"]);
        psql.arg(&self.directory);
        psql
    }
}

/// A transaction that stays open until this is dropped.
pub struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
