//! What is in `packaging/` and on the page about operation: alert rules, dashboard, scrape settings, units of systemd.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::docs::blocks;
use common::process::is_missing;
use lockhouse::error::Limit;
use lockhouse::metrics::{Metrics, WebhookLabels};
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

fn promtool(arguments: &[&str], file: &Path) -> Output {
    let output = Command::new("promtool").args(arguments).arg(file).output().unwrap();
    let said = [output.stdout.clone(), output.stderr.clone()].concat();
    assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
    output
}

/// The queries of the dashboard, with values for its variables.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions = targets.map(|target| target["expr"].as_str().unwrap());
    expressions.map(|text| text.replace("$__rate_interval", "1m").replace("$job", "lockhouse")).collect()
}

/// The names in a text that begin as metrics of Lockhouse do.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("lockhouse_")).collect()
}

#[test]
fn alerts_and_dashboard_use_existing_metrics() {
    let metrics = Metrics::default();
    metrics.request("readLock", 200, 0.1);
    metrics.acquisition("acquired");
    metrics.limited(Limit::Requests);
    metrics.refusal("too_large");
    metrics.cut("unread");
    metrics.delivery("app", "failed");
    let app = WebhookLabels { webhook: "app".to_owned() };
    metrics.webhook_lag.get_or_create(&app).set(1);
    metrics.webhook_failing.get_or_create(&app).set(1);
    let text = metrics.to_text();
    let exist: BTreeSet<_> = text.lines().filter(|line| !line.starts_with('#')).flat_map(named).collect();
    let (alerts, dashboard) = (read("packaging/alerts.yml"), queries().join("\n"));
    for name in named(&alerts).union(&named(&dashboard)) {
        assert!(exist.contains(name), "there is no metric {name} in {text}");
    }
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for family in families.filter(|family| *family != "lockhouse_build_info") {
        assert!(dashboard.contains(family), "{family} is on no panel");
    }
}

#[test]
fn promtool_accepts_rules_scrape_settings_and_queries() {
    if is_missing("promtool") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let token = file("token", String::new());
    let settings = blocks("operation.md", "yaml").remove(0);
    let settings = settings
        .replace("/etc/prometheus/lockhouse-alerts.yml", path("packaging/alerts.yml").to_str().unwrap())
        .replace("/etc/prometheus/lockhouse.token", token.to_str().unwrap());
    let checked = promtool(&["check", "config"], &file("prometheus.yml", settings));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("11 rules found"), "{checked:?}");
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for query in queries() {
        let _ = writeln!(rules, "  - {{ record: q, expr: {query:?}, labels: {{ q: {query:?} }} }}");
    }
    promtool(&["check", "rules"], &file("queries.yml", rules));
}

/// Adds a test of how often an alert fires after 50 minutes.
fn check(tests: &mut String, series: &[(&str, &str)], alert: &str, expected: &str) {
    tests.push_str("- interval: 1m\n  input_series:\n");
    for (metric, values) in series {
        let _ = writeln!(tests, "  - {{ series: '{metric}', values: '{values}' }}");
    }
    let query = format!("count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}})");
    let _ = writeln!(tests, "  promql_expr_test:\n  - expr: '{query}'\n    eval_time: 50m");
    let _ = writeln!(tests, "    exp_samples: {expected}");
}

#[test]
fn alerts_fire_exactly_on_their_conditions() {
    if is_missing("promtool") {
        return;
    }
    let sick = [
        ("up{job=\"lockhouse\",instance=\"i\"}", "0x60", "LockhouseDown"),
        ("lockhouse_http_requests_total{instance=\"i\",status=\"507\"}", "0+60x60", "LockhouseDiskFull"),
        ("lockhouse_http_requests_total{instance=\"i\",status=\"503\"}", "0+60x60", "LockhouseErrors"),
        ("lockhouse_checkpoint_failures_total{instance=\"i\"}", "0+1x60", "LockhouseCheckpointsFail"),
        (
            "lockhouse_writer_commit_duration_seconds_bucket{instance=\"i\",le=\"+Inf\"}",
            "0+60x60",
            "LockhouseSlowCommits",
        ),
        ("lockhouse_writer_queue_depth{instance=\"i\"}", "2000x60", "LockhouseWriterBehind"),
        (
            "lockhouse_postgres_oldest_transaction_age{instance=\"i\"}",
            "2000000x60",
            "LockhousePostgresKeepsDeadRows",
        ),
        ("lockhouse_connections{instance=\"i\"}", "9000x60", "LockhouseConnectionsNearLimit"),
        ("lockhouse_limited_total{instance=\"i\",limit=\"requests\"}", "0+60x60", "LockhouseClientsLimited"),
        ("lockhouse_webhook_failing{instance=\"i\",webhook=\"app\"}", "1x60", "LockhouseWebhookFails"),
        ("lockhouse_clock_corrections_total{instance=\"i\"}", "0 0+1x59", "LockhouseClockCorrected"),
    ];
    let healthy = [
        ("up{job=\"lockhouse\",instance=\"i\"}", "1x60"),
        ("lockhouse_http_requests_total{instance=\"i\",status=\"200\"}", "0+600x60"),
        ("lockhouse_writer_commit_duration_seconds_bucket{instance=\"i\",le=\"0.25\"}", "0+60x60"),
        ("lockhouse_writer_commit_duration_seconds_bucket{instance=\"i\",le=\"1.0\"}", "0+60x60"),
    ];
    let mut tests = format!("rule_files: [{:?}]\ntests:\n", path("packaging/alerts.yml"));
    for (metric, values, alert) in sick {
        let is_replaced = |known: &str| {
            known == metric || (alert == "LockhouseSlowCommits" && known.ends_with("le=\"0.25\"}"))
        };
        let mut series: Vec<_> = healthy.iter().filter(|(known, _)| !is_replaced(known)).copied().collect();
        series.push((metric, values));
        check(&mut tests, &healthy, alert, "[]");
        check(&mut tests, &series, alert, "[{ labels: '{}', value: 1 }]");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tests.yml");
    fs::write(&file, tests).unwrap();
    promtool(&["test", "rules"], &file);
}

#[test]
fn systemd_analyze_accepts_the_units() {
    if is_missing("systemd-analyze") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for unit in ["lockhouse.service", "lockhouse.socket"] {
        let text = read(&format!("packaging/{unit}"));
        let text = text.replace("/usr/bin/lockhouse", env!("CARGO_BIN_EXE_lockhouse"));
        fs::write(directory.path().join(unit), text).unwrap();
    }
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "lockhouse.service", "lockhouse.socket"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let about: Vec<_> = said.lines().filter(|line| line.contains("lockhouse")).collect();
    assert!(output.status.success() && about.is_empty(), "{said}");
}
