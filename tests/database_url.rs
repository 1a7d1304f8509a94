//! `database.url`: TLS, what the start refuses, and that the password is never shown. With a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use common::eventually;
use common::postgres::Cluster;
use common::process::{Process, fine, lockhouse, refused};
use lockhouse::cli::serve;
use lockhouse::config::{Config, Secret};
use lockhouse::time::Clock;
use serde_json::json;

const PASSWORD: &str = "open-sesame";

/// What a server says that starts on this database. It stops at once.
fn start(url: &str) -> Result<(), String> {
    let mut config = Config::default();
    config.server.listen.set_port(0);
    config.database.url = Some(Secret::from(url));
    serve::start(&config, Clock::system()).map(serve::Running::stop).map_err(|error| error.to_string())
}

#[track_caller]
fn starts(url: &str) {
    start(url).unwrap_or_else(|error| panic!("{url}: {error}"));
}

#[track_caller]
fn is_refused(url: &str, says: &str) {
    let error = start(url).unwrap_err();
    assert!(error.contains(says) && !error.contains(PASSWORD), "{url}: {error}");
}

/// An address of this machine that no other test process has, so that port 5432 is free there.
fn own_address(last: u32) -> String {
    let id = std::process::id() * 4 + last;
    format!("127.{}.{}.{}", 16 + id / 65_536 % 200, id / 256 % 256, id % 256)
}

/// The first half of the settings of a server that is asked by TCP, with a password.
const WITH_PASSWORD: &str =
    "printf 'local all all trust\\nhost all all 127.0.0.0/8 scram-sha-256\\n' >$dir/data/pg_hba.conf";

fn with_password(settings: &str) -> Cluster {
    let cluster = Cluster::start(settings);
    cluster.sql("postgres", &format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'"));
    cluster.sql("postgres", "CREATE DATABASE app OWNER app");
    cluster
}

/// A server with a certificate for its address and for the name in it, signed by `ca.pem` in its directory.
fn with_tls() -> (&'static Cluster, String) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let address = own_address(0);
    let make = r#"cd $dir/data
        key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        for ca in ca other; do openssl req -x509 $key -keyout $ca.key -out $ca.pem -subj /CN=$ca -days 2; done
        openssl req $key -keyout server.key -out server.csr -subj /CN=server
        echo subjectAltName=IP:$address >names
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt
        chmod 600 server.key; cp ca.pem other.pem $dir; chmod 644 $dir/*.pem"#;
    let settings = format!(
        "-c listen_addresses={address} -c ssl=on -c ssl_cert_file=server.crt -c ssl_key_file=server.key \
         $({WITH_PASSWORD}; address={address} dir=$dir $as bash -ec '{make}' >&2 2>$dir/openssl || cat $dir/openssl >&2)"
    );
    (CLUSTER.get_or_init(|| with_password(&settings)), address)
}

#[test]
fn a_certificate_is_checked() {
    let (cluster, address) = with_tls();
    let at = |host: &str, parameters: &str| format!("postgres://app:{PASSWORD}@{host}/app?{parameters}");
    let file = |name: &str| cluster.directory().join(name).display().to_string();
    let (trusted, other) = (file("ca.pem"), file("other.pem"));
    for mode in ["require", "verify-full", "prefer"] {
        starts(&at(&address, &format!("sslmode={mode}&sslrootcert={trusted}")));
        let unknown = at(&address, &format!("sslmode={mode}&sslrootcert={other}"));
        is_refused(&unknown, "UnknownIssuer: nobody whom this machine trusts");
        is_refused(&at(&address, &format!("sslmode={mode}")), "sslrootcert=FILE");
        // The same server, by a name that is not in the certificate.
        let wrong = format!(
            "postgres://app:{PASSWORD}@wrong.example/app?hostaddr={address}&sslmode={mode}&sslrootcert={trusted}"
        );
        is_refused(&wrong, "not valid for name");
    }
    starts(&at(&address, "sslmode=disable"));
    starts(&at(&address, ""));
    let bound = |mode: &str| format!("sslmode={mode}&sslrootcert={trusted}&channel_binding=require");
    starts(&at(&address, &bound("verify-full")));
    is_refused(&at(&address, &bound("disable")), "channel binding");
    // All connections are encrypted, also those that read and the one that listens.
    let mut command = lockhouse();
    command.env("LOCKHOUSE_DATABASE_URL", at(&address, &bound("require")));
    let server = Process::start(&mut command, Path::new("unused.db"));
    server.user("alice").acquire("w", &json!({})).expect(200);
    let sql = "SELECT count(*), bool_and(ssl) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
               WHERE application_name = 'lockhouse' AND datname = 'app'";
    eventually(|| {
        server.user("alice").get("/api/v1/locks").expect(200);
        let found = cluster.sql("app", sql);
        let (count, encrypted) = found.trim().split_once('|').unwrap();
        count.parse::<u32>().unwrap() >= 3 && encrypted == "t"
    });
    assert_eq!(server.terminate().0, Some(0));
}

#[test]
fn a_server_without_tls_is_used_only_where_the_address_allows_it() {
    let address = own_address(1);
    let cluster = with_password(&format!("-c listen_addresses={address} $({WITH_PASSWORD})"));
    let at = |parameters: &str| format!("postgres://app:{PASSWORD}@{address}/app?{parameters}");
    for mode in ["require", "verify-full"] {
        let root = "sslrootcert=tests/keys/ca.pem";
        is_refused(&at(&format!("sslmode={mode}&{root}")), "server does not support TLS: set ssl = on there");
    }
    for mode in ["sslmode=disable", "sslmode=prefer&sslrootcert=tests/keys/ca.pem", ""] {
        starts(&at(mode));
    }
    // A wrong password and an unknown database are each named, without the password.
    is_refused(&at("").replace(PASSWORD, "wrong"), "password authentication failed for user \"app\"");
    is_refused(&at("").replace("/app?", "/none?"), "database \"none\" does not exist");
    drop(cluster);
}

#[test]
fn a_database_that_cannot_be_used_is_refused_with_a_sentence() {
    let cluster = Cluster::of_this_process();
    let url = |database: &str| cluster.url(database).as_str().to_owned();
    cluster.sql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    is_refused(&url("latin"), "encoding LATIN1: make one with ENCODING 'UTF8'");
    cluster.sql("postgres", "CREATE DATABASE fixed");
    cluster.sql("postgres", "ALTER DATABASE fixed SET default_transaction_read_only = on");
    is_refused(&url("fixed"), "the address of the primary");
    cluster.sql("postgres", "CREATE ROLE guest LOGIN");
    cluster.sql("postgres", "CREATE DATABASE foreign_one");
    let guest = url("foreign_one").replace("lockhouse@", "guest@");
    is_refused(&guest, "permission denied for schema public; make the user of database.url the owner");
    cluster.sql("postgres", "ALTER DATABASE foreign_one OWNER TO guest");
    starts(&guest);
    is_refused("postgres://%2Fnowhere/x", "cannot connect to PostgreSQL at /nowhere: error connecting");
    is_refused(
        "postgres://u:open-sesame@127.0.0.1:1/x",
        "at 127.0.0.1: error connecting to server: Connection refused",
    );
    is_refused("postgres://u:open-sesame@db.invalid/x?sslmode=disable", "at db.invalid: ");
}

#[test]
fn a_standby_is_refused() {
    let standby = Cluster::start("$($as touch $dir/data/standby.signal)");
    assert_eq!(standby.sql("postgres", "SELECT pg_is_in_recovery()").trim(), "t");
    is_refused(standby.url("postgres").as_str(), "or a standby");
}

#[test]
fn the_collation_of_the_database_does_not_matter() {
    let cluster = Cluster::of_this_process();
    let locale = "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C' ENCODING 'UTF8'";
    cluster.sql("postgres", &format!("CREATE DATABASE american {locale} TEMPLATE template0"));
    let mut command = lockhouse();
    command.env("LOCKHOUSE_DATABASE_URL", cluster.url("american").as_str());
    let server = Process::start(&mut command, Path::new("unused.db"));
    let mut alice = server.user("alice");
    for workspace in ["b", "a", "B", "ä", "_"] {
        let path = format!("/api/v1/workspaces/{}/lock", workspace.replace('ä', "%C3%A4"));
        alice.post(&path, &json!({})).expect(200);
    }
    let found = alice.get("/api/v1/locks").expect(200);
    let ids: Vec<_> =
        found["locks"].as_array().unwrap().iter().map(|lock| lock["workspace_id"].clone()).collect();
    assert_eq!(ids, ["B", "_", "a", "b", "ä"]);
    drop(server);
}

/// `PgBouncer` with a socket in the directory of the cluster. It ends when this is dropped.
struct Pooler(Child);

impl Pooler {
    fn start(cluster: &Cluster, settings: &str, port: u16) -> Self {
        let directory = cluster.directory().display();
        let file = cluster.directory().join(format!("bouncer-{port}.ini"));
        let text = format!(
            "[databases]\n* = host={directory} user=lockhouse\n[pgbouncer]\nunix_socket_dir = {directory}\nlisten_port = {port}\n\
             auth_type = any\npool_mode = transaction\n{settings}\n"
        );
        std::fs::write(&file, text).unwrap();
        let run = r#"as=; [ "$(id -u)" = 0 ] && as="setpriv --reuid postgres --regid postgres --clear-groups"
                     PATH=$PATH:/usr/sbin exec $as pgbouncer -q "$0""#;
        let child = Command::new("bash")
            .args(["-c", run])
            .arg(&file)
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let socket = cluster.directory().join(format!(".s.PGSQL.{port}"));
        let pooler = Self(child);
        eventually(|| std::os::unix::net::UnixStream::connect(&socket).is_ok());
        pooler
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn pgbouncer_is_refused() {
    let cluster = Cluster::of_this_process();
    cluster.sql("postgres", "CREATE DATABASE pooled");
    let url = |port: u16| cluster.url("pooled").as_str().replace("/pooled", &format!(":{port}/pooled"));
    let pooler = Pooler::start(cluster, "", 6_001);
    is_refused(&url(6_001), "a pooler such as PgBouncer stands before PostgreSQL");
    drop(pooler);
    // This one passes nothing on, and says nothing.
    let pooler = Pooler::start(cluster, "ignore_startup_parameters = options", 6_002);
    is_refused(&url(6_002), "a pooler such as PgBouncer stands before PostgreSQL");
    drop(pooler);
    assert_eq!(
        cluster.sql("pooled", "SELECT to_regclass('meta') IS NULL").trim(),
        "t",
        "it was left as it was"
    );
}

#[test]
fn missing_replication_is_one_warning() {
    let cluster = Cluster::of_this_process();
    for (database, set, says) in [
        ("lonely", "SELECT 1", Some("(synchronous_standby_names is empty)")),
        ("hasty", "ALTER DATABASE hasty SET synchronous_commit = off", Some("(synchronous_commit is off)")),
    ] {
        cluster.sql("postgres", &format!("CREATE DATABASE {database}"));
        cluster.sql("postgres", set);
        let mut command = lockhouse();
        command.env("LOCKHOUSE_DATABASE_URL", cluster.url(database).as_str());
        let (code, log) = Process::start(&mut command, Path::new("unused.db")).terminate();
        assert_eq!(code, Some(0), "{log}");
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
        assert!(warnings.len() == 1 && says.is_none_or(|says| warnings[0].contains(says)), "{log}");
    }
}

#[test]
fn the_password_is_never_shown() {
    let (cluster, address) = with_tls();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("url");
    let root = cluster.directory().join("ca.pem");
    let url =
        format!("postgres://app:{PASSWORD}@{address}/app?sslmode=require&sslrootcert={}", root.display());
    std::fs::write(&file, &url).unwrap();
    let with_file = |arguments: &[&str]| {
        let mut command = lockhouse();
        command.args(arguments).env("LOCKHOUSE_DATABASE_URL_FILE", &file).env("LOCKHOUSE_LOG_LEVEL", "trace");
        command
    };
    let mut shown = Vec::new();
    // Everything that a server writes, while it works and while the database is away.
    let mut command = with_file(&[]);
    command.env("LOCKHOUSE_DATABASE_BUSY_TIMEOUT", "1s").env("LOCKHOUSE_AUTH_MODE", "token");
    let server = Process::start(&mut command, Path::new("unused.db"));
    let created =
        fine(&with_file(&["token", "create", "--scope", "admin", "--user", "root"]).output().unwrap());
    let mut root = server.user("root").with_token(created.trim());
    root.acquire("by-root", &json!({})).expect(200);
    let end_all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'";
    cluster.sql("postgres", "ALTER DATABASE app ALLOW_CONNECTIONS false");
    cluster.sql("postgres", end_all);
    eventually(|| {
        let refused = root.heartbeat("by-root", &json!({}));
        shown.push(refused.text().to_owned());
        refused.status == 503
    });
    cluster.sql("postgres", "ALTER DATABASE app ALLOW_CONNECTIONS true");
    eventually(|| root.heartbeat("by-root", &json!({})).status == 200);
    for path in ["/", "/api/v1/status", "/metrics", "/readyz", "/docs/settings"] {
        shown.push(root.try_request("GET", path, &[], b"").unwrap().text().to_owned());
    }
    for file in ["cmdline", "comm"] {
        shown.push(std::fs::read_to_string(format!("/proc/{}/{file}", server.id())).unwrap());
    }
    shown.push(cluster.sql("postgres", "SELECT * FROM pg_stat_activity"));
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("database.url = (not shown)") && log.contains("PostgreSQL is away"), "{log}");
    shown.push(log);
    // Each command, when it works and when it does not.
    let token = fine(&with_file(&["token", "list"]).output().unwrap());
    assert!(token.contains("user=\"root\""), "{token}");
    let check = fine(&with_file(&["check"]).output().unwrap());
    assert!(check.contains("# url is set, and is not shown"), "{check}");
    shown.extend([token, check]);
    std::fs::write(&file, url.replace(&address, "127.0.0.1:1")).unwrap();
    for arguments in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["token", "list"],
        &["copy"],
        &["backup", "x"],
        &["restore", "x"],
        &["check", "--repair"],
        &["health"],
        &["locks", "list"],
    ] {
        let output = with_file(arguments).current_dir(directory.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        shown.extend([output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()));
    }
    for text in shown {
        assert!(!text.contains(PASSWORD) && !text.contains("sesame"), "{text}");
    }
}

#[test]
fn commands_work_with_postgresql_or_say_what_to_do_instead() {
    let cluster = Cluster::of_this_process();
    cluster.sql("postgres", "CREATE DATABASE commands");
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = lockhouse();
        command.args(arguments).current_dir(directory.path());
        command.env("LOCKHOUSE_DATABASE_URL", cluster.url("commands").as_str()).output().unwrap()
    };
    // Before the first start of a server.
    let secret = fine(&run(&["token", "create", "--scope", "admin", "--user", "root"]));
    let listed = fine(&run(&["token", "list"]));
    let id = listed.split_whitespace().next().unwrap();
    refused(&run(&["backup", "copy.db"]), "pg_dump (see docs/scale.md)");
    refused(&run(&["restore", "copy.db"]), "pg_restore (see docs/scale.md)");
    refused(&run(&["check", "--repair"]), "POST /api/v1/invariants/check");
    assert!(fine(&run(&["check"])).contains("[database]"));
    assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "no file is made");
    // A file that is named is meant.
    fine(&run(&["token", "create", "--scope", "read", "--database", "other.db"]));
    assert!(fine(&run(&["check", "--database", "other.db"])).contains("0 found"));
    fine(&run(&["backup", "--database", "other.db", "copy.db"]));

    let floor = 6_000_000_000_000_000_i64;
    let mut command = lockhouse();
    command.args(["serve", "--fence-at-least", &floor.to_string()]);
    command
        .env("LOCKHOUSE_DATABASE_URL", cluster.url("commands").as_str())
        .env("LOCKHOUSE_AUTH_MODE", "token");
    let server = Process::start_with(&mut command, Path::new("unused.db"));
    let mut root = server.user("root").with_token(secret.trim());
    let fence = root.acquire("w", &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap();
    assert!(fence > floor, "{fence}");
    let url = format!("http://{}", server.address);
    let call = |arguments: &[&str]| {
        lockhouse()
            .args(arguments)
            .args(["--url", &url])
            .env("LOCKHOUSE_TOKEN", secret.trim())
            .output()
            .unwrap()
    };
    assert!(fine(&call(&["health"])).contains("is ready"));
    assert!(fine(&call(&["locks", "list"])).contains('w'));
    fine(&run(&["token", "revoke", id]));
    eventually(|| root.get("/api/v1/locks").status == 401);
    assert_eq!(server.terminate().0, Some(0));
}
