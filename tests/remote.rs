//! The commands that call a running server: `lockhouse health` and `lockhouse locks`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::process::{Process, lockhouse};
use common::{Client, eventually};
use serde_json::{Value, json};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    lockhouse().args(arguments).envs(variables.iter().copied()).output().unwrap()
}

#[track_caller]
fn fine(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn fails(output: &Output, says: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{message}");
    assert_eq!(message.lines().count(), 1, "one sentence: {message}");
    for part in says {
        assert!(message.contains(part), "{part:?} is missing in {message}");
    }
}

fn url(server: &Process) -> String {
    format!("http://{}", server.address)
}

#[test]
fn health_finds_the_server_by_url_by_variable_and_by_the_settings() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::serve(&directory.path().join("lockhouse.db"));
    let (url, address) = (url(&server), server.address.to_string());
    let ready = format!("{url} is ready\n");
    assert_eq!(fine(&run(&["health", "--url", &url], &[])), ready);
    assert_eq!(fine(&run(&["health"], &[("LOCKHOUSE_URL", &url)])), ready);
    assert_eq!(fine(&run(&["health"], &[("LOCKHOUSE_SERVER_LISTEN", &address)])), ready);
    let everywhere = format!("0.0.0.0:{}", server.address.port());
    assert_eq!(fine(&run(&["health"], &[("LOCKHOUSE_SERVER_LISTEN", &everywhere)])), ready);
    // The secret of these settings is in the server's own environment.
    let config = directory.path().join("c.toml");
    std::fs::write(&config, format!("[server]\nlisten = {address:?}\n[auth]\nmode = \"jwt\"\n")).unwrap();
    assert_eq!(fine(&run(&["health", "--config", config.to_str().unwrap()], &[])), ready);
    // The flag wins, and an empty variable is none.
    let wrong = [("LOCKHOUSE_URL", "http://127.0.0.1:1")];
    assert_eq!(fine(&run(&["health", "--url", &url], &wrong)), ready);
    let empty = [("LOCKHOUSE_URL", ""), ("LOCKHOUSE_SERVER_LISTEN", &address)];
    assert_eq!(fine(&run(&["health"], &empty)), ready);
    server.terminate();
    fails(&run(&["health", "--url", &url], &[]), &[&url, "does not answer", "refused"]);
    fails(&run(&["health"], &[("LOCKHOUSE_SERVER_LISTEN", "127.0.0.1:0")]), &["give --url"]);
}

#[test]
fn health_and_locks_work_over_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("lock house.sock").display());
    let mut server = lockhouse()
        .args(["serve", "--listen", &socket, "--database"])
        .arg(directory.path().join("lockhouse.db"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(|| run(&["health", "--url", &socket], &[]).status.success());
    assert_eq!(
        fine(&run(&["health"], &[("LOCKHOUSE_SERVER_LISTEN", &socket)])),
        format!("{socket} is ready\n")
    );
    assert_eq!(fine(&run(&["locks", "list", "--url", &socket, "--json"], &[("LOCKHOUSE_USER", "root")])), "");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn health_tells_a_server_that_is_up_from_one_that_is_not_and_from_something_else() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let server = Process::serve(&database);
    // Another process has the write lock, so no write can be made.
    let other = rusqlite::Connection::open(&database).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    fails(&run(&["health", "--url", &url(&server)], &[]), &["; the process is up"]);
    other.execute_batch("ROLLBACK").unwrap();
    eventually(|| run(&["health", "--url", &url(&server)], &[]).status.success());
    server.terminate();

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    fails(&run(&["health", "--url", &silent_url], &[]), &[&silent_url, "has not answered within 5s"]);

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let other_url = format!("http://{}", other.local_addr().unwrap());
    let answers = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = other.accept().unwrap();
            let mut request = [0; 1024];
            std::io::Read::read(&mut stream, &mut request).unwrap();
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .unwrap();
        }
    });
    fails(&run(&["health", "--url", &other_url], &[]), &["which is not an answer of Lockhouse"]);
    answers.join().unwrap();
}

#[test]
fn locks_are_listed_as_a_table_and_as_json_over_all_pages() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let server = Process::serve(&database);
    server.user("alice").acquire("w", &json!({})).expect(200);
    server.terminate();
    let columns = "acquired_at, renewed_at, last_active_at, expires_at, ttl_ms";
    let sql = format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 502)
         INSERT INTO locks (workspace_id, user_id, fence, {columns})
         SELECT 'w' || n, user_id, fence - n, {columns} FROM locks, n;
         UPDATE meta SET lock_count = 503"
    );
    rusqlite::Connection::open(&database).unwrap().execute_batch(&sql).unwrap();
    let server = Process::serve(&database);
    let odd =
        server.user("zo%C3%AB").acquire("team%2Fdesign%2042", &json!({ "name": "Zoë" })).expect(200)["lock"]
            .clone();
    let url = url(&server);
    let user = [("LOCKHOUSE_USER", "root"), ("LOCKHOUSE_URL", &url)];
    let lines = fine(&run(&["locks", "list", "--json"], &user));
    let locks: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(locks.len(), 504);
    assert_eq!(locks.iter().filter(|lock| lock["fence"] == odd["fence"]).count(), 1);

    let table = fine(&run(&["locks", "list", "--prefix", "team/"], &user));
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert!(rows[0].starts_with("WORKSPACE       KIND  USER  NAME  SINCE"), "{table}");
    assert!(rows[1].starts_with("team/design 42  edit  zoë   Zoë   20"), "{table}");
    assert!(rows[1].ends_with(&odd["fence"].to_string()), "{table}");

    // A reader that has seen enough is no error.
    let mut child = lockhouse();
    let mut child = child.args(["locks", "list"]).envs(user).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    server.terminate();
}

#[test]
fn a_lock_is_ended_for_a_reason_that_its_holder_and_the_history_have() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::serve(&directory.path().join("lockhouse.db"));
    let url = url(&server);
    let mut alice = server.user("alice");
    alice.acquire("a%2Fb%20c", &json!({})).expect(200);
    let end = |arguments: &[&str]| run(&[&["locks", "end", "a/b c", "--url", &url], arguments].concat(), &[]);
    fails(&end(&[]), &["401 unauthenticated", "--user"]);
    let said = fine(&end(&["--user", "root", "--reason", "she is on holiday"]));
    assert_eq!(said, "\"a/b c\" was locked, and its lock was ended\n");
    assert_eq!(fine(&end(&["--user", "root"])), "\"a/b c\" was not locked\n");
    let lost = alice.heartbeat("a%2Fb%20c", &json!({})).refused(404, "lock_not_found")["lost"].clone();
    assert_eq!((&lost["reason"], &lost["by_user_id"]), (&json!("revoked"), &json!("root")));
    let history = alice.get("/api/v1/workspaces/a%2Fb%20c/history").expect(200);
    assert_eq!(history["events"][0]["detail"]["reason"], "she is on holiday");
    fails(&run(&["locks", "end", "..", "--url", &url, "--user", "root"], &[]), &["refuses"]);
    server.terminate();
}

#[test]
fn the_token_comes_from_a_variable_or_a_file_and_is_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let create = ["token", "create", "--scope", "admin", "--user", "root", "--database"];
    let made = lockhouse().args(create).arg(&database).output().unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    let server = Process::start(lockhouse().env("LOCKHOUSE_AUTH_MODE", "token"), &database);
    let url = url(&server);
    let list = |variables: &[(&str, &str)]| run(&["locks", "list", "--json", "--url", &url], variables);
    Client::connect(server.address).with_token(token.trim()).acquire("w", &json!({})).expect(200);
    assert_eq!(fine(&list(&[("LOCKHOUSE_TOKEN", token.trim())])).lines().count(), 1);
    let file = directory.path().join("the token");
    std::fs::write(&file, &token).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(fine(&list(&[("LOCKHOUSE_TOKEN_FILE", file)])).lines().count(), 1);
    fails(&list(&[]), &["401 unauthenticated", "LOCKHOUSE_TOKEN_FILE"]);
    fails(&list(&[("LOCKHOUSE_TOKEN_FILE", "/no/such/file")]), &["/no/such/file"]);
    for bad in ["lh_secret\r\nX-User-Id: root", "lh_sécret", "lh_secret lh_secret", " "] {
        let output = list(&[("LOCKHOUSE_TOKEN", bad)]);
        fails(&output, &["LOCKHOUSE_TOKEN has no token"]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("cret"), "it is not shown");
    }
    let output = list(&[("LOCKHOUSE_TOKEN", "lh_wrong")]);
    fails(&output, &["401 unauthenticated"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("lh_wrong"));
    server.terminate();
}

#[test]
fn serve_and_check_do_not_warn_about_the_variables_of_these_commands() {
    let directory = tempfile::tempdir().unwrap();
    let variables = ["URL", "TOKEN", "TOKEN_FILE", "USER", "FENCE", "WORKSPACE", "SESSION"]
        .map(|name| format!("LOCKHOUSE_{name}"));
    assert_eq!(lockhouse::config::CLIENT_VARIABLES.to_vec(), variables);
    let variables = lockhouse::config::CLIENT_VARIABLES.map(|name| (name, "x"));
    let checked = run(&["check"], &variables);
    assert!(fine(&checked).contains("[server]"));
    let database = directory.path().join("lockhouse.db");
    let server = Process::start(lockhouse().envs(variables), &database);
    let (code, log) = server.terminate();
    assert_eq!((code, log.contains("LOCKHOUSE_")), (Some(0), false), "{log}");
}

/// The subcommands, as the program's help lists them.
fn subcommands(of: &[&str]) -> Vec<String> {
    let help = fine(&run(&[of, &["--help"]].concat(), &[]));
    let list = help.split("Commands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap().to_owned();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned));
    names.filter(|name| !name.is_empty() && name != "help").collect()
}

#[test]
fn the_manual_page_has_a_section_for_each_command() {
    let page = fine(&run(&["man"], &[]));
    assert!(page.contains(".TH lockhouse 1"), "{page}");
    let mut sections = 0;
    for name in subcommands(&[]) {
        assert!(page.contains(&format!("\n.SH \"LOCKHOUSE {}\"\n", name.to_uppercase())), "{name}");
        for below in subcommands(&[&name]) {
            let title = format!("\n.SH \"LOCKHOUSE {} {}\"\n", name.to_uppercase(), below.to_uppercase());
            assert!(page.contains(&title), "{title}");
            sections += 1;
        }
        sections += 1;
    }
    assert!(sections >= 10, "{sections}");
    for flag in ["\\-\\-fence\\-at\\-least", "\\-\\-expires", "\\-\\-reason"] {
        assert!(page.contains(flag), "{flag}");
    }
    if !common::process::is_missing("groff") {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lockhouse.1");
        std::fs::write(&file, page).unwrap();
        let read = Command::new("groff").args(["-man", "-ww", "-Tutf8"]).arg(&file).output().unwrap();
        assert!(read.status.success() && read.stderr.is_empty(), "{}", String::from_utf8_lossy(&read.stderr));
    }
}

fn accepted_by(shell: &str, script: &Path) {
    if !common::process::is_missing(shell) {
        let read = Command::new(shell).arg("-n").arg(script).output().unwrap();
        assert!(read.status.success(), "{shell}: {}", String::from_utf8_lossy(&read.stderr));
    }
}

#[test]
fn shells_accept_the_completions_and_they_have_each_command() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = fine(&run(&["completions", shell], &[]));
        for name in subcommands(&[]) {
            assert!(script.contains(&name), "{shell}: {name}");
        }
        assert!(script.contains("fence-at-least"), "{shell}");
        let file = directory.path().join(shell);
        std::fs::write(&file, script).unwrap();
        // In CI there is bash only: the package lists of the others are long.
        if shell == "bash" || Command::new(shell).arg("--version").output().is_ok() {
            accepted_by(shell, &file);
        }
    }
    assert_eq!(run(&["completions", "tcsh"], &[]).status.code(), Some(2));
}
