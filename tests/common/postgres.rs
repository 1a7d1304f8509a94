//! A real PostgreSQL for the tests: one for each test binary, with a database for each server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// A PostgreSQL with a directory and a socket of its own. It ends with this process, however that ends.
pub struct Cluster {
    directory: PathBuf,
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
        let directory = tempfile::tempdir().unwrap().keep();
        let shown = directory.display();
        // PostgreSQL refuses to run as root. The shell stops it when this process ends, which closes the pipe.
        let script = format!(
            r#"set -e
            dir={shown}
            chmod 0777 {shown}
            bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
            as=
            if [ "$(id -u)" = 0 ]; then as="setpriv --reuid postgres --regid postgres --clear-groups"; fi
            $as "$bin/initdb" -D {shown}/data -U lockhouse -A trust -E UTF8 --locale=C --no-sync >/dev/null
            $as "$bin/postgres" -D {shown}/data -k {shown} -c listen_addresses= -c fsync=off -c max_connections=400 \
              -c shared_buffers=64MB -c max_wal_size=1GB {settings} >{shown}/log 2>&1 &
            pid=$!
            cat >/dev/null || true
            kill -QUIT $pid 2>/dev/null || true
            wait $pid 2>/dev/null || true
            rm -rf {shown}"#
        );
        let child = Command::new("bash")
            .args(["-c", &script])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        // The pipe stays open until this process ends.
        std::mem::forget(child);
        let cluster = Self { directory };
        eventually(|| cluster.try_sql("postgres", "SELECT 1").is_some());
        cluster
    }

    /// The address of a database.
    pub fn url(&self, database: &str) -> Secret {
        let host = self.directory.display().to_string().replace('/', "%2F");
        Secret::from(format!("postgres://lockhouse@{host}/{database}").as_str())
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs statements. Returns the rows as text.
    #[track_caller]
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|| panic!("PostgreSQL refuses {sql}"))
    }

    fn try_sql(&self, database: &str, sql: &str) -> Option<String> {
        let directory = self.directory.to_str().unwrap();
        let asked = Command::new("psql")
            .args([
                "-qAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                directory,
                "-U",
                "lockhouse",
                "-d",
                database,
                "-c",
                sql,
            ])
            .stderr(Stdio::null())
            .output()
            .expect("psql must be installed");
        asked.status.success().then(|| String::from_utf8(asked.stdout).unwrap())
    }
}
