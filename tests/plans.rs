//! The query plan of every statement of the store, compared with `plans.txt`: none may cost more
//! with every row.
//!
//! The statements are taken from the source, so that a new one is not forgotten.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::Connection;

/// Statements that go through a table or sort, by how they begin, and why that is bounded.
const BOUNDED: &[(&str, &str)] = &[
    ("SELECT (SELECT application_id FROM", "the tables that there are, once at the start"),
    ("SELECT 'table '", "the tables that there are, once at the start"),
    ("SELECT 'column '", "the tables that there are, once at the start"),
    ("SELECT 'index '", "the tables that there are, once at the start"),
    ("SELECT count(*) FROM meta", "meta has one row"),
    ("SELECT rootpage FROM sqlite_schema", "the tables that there are, when the file looks overwritten"),
    ("SELECT run, last_seen_at, grace_ends_at FROM restarts", "at most 100 rows, once at the start"),
    ("SELECT 'trigger '", "the tables that there are, once at the start"),
    ("SELECT 'reference '", "the tables that there are, once at the start"),
    ("SELECT 'has '", "meta has one row and restarts at most 100, once at the start"),
    ("SELECT EXISTS (SELECT 1 FROM tokens WHERE agent)", "by lockhouse token on a file of an older version"),
    ("DELETE FROM restarts", "at most 100 rows, once at the start"),
    (
        "SELECT count(*) FROM (SELECT 1 FROM locks WHERE user_id",
        "at most locks_per_user of the kind, by the LIMIT",
    ),
    ("SELECT count(*), count(*) = ", "by a reader, when somebody asks for the invariants to be checked"),
    ("SELECT coalesce((SELECT min(revision) FROM events)", "meta has one row"),
    (
        "SELECT name, position, owner, until, removed_at FROM webhooks ORDER BY",
        "with a LIMIT, once at the start",
    ),
    ("DELETE FROM events WHERE lease_at <", "the oldest, with a LIMIT, in the order of the table"),
    (
        "SELECT place, user_id, user_name, session_id, message, at, token_hash, good_until, kind, for_name FROM knocks",
        "few have knocked on one lock",
    ),
];

#[test]
fn no_statement_scans_or_sorts_a_growing_table() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(include_str!("../schema.sql")).unwrap();
    let mut statements = statements(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store")));
    statements.sort();
    statements.dedup();
    let (mut text, mut costly) = (String::new(), String::new());
    for sql in &statements {
        let plan = plan(&connection, sql);
        let grows = plan.iter().any(|step| {
            step.contains("TEMP B-TREE") || step.starts_with("SCAN") && step != "SCAN CONSTANT ROW"
        });
        let bounded = BOUNDED.iter().any(|(begins, _)| sql.starts_with(begins));
        if grows && !bounded {
            writeln!(costly, "{sql}\n    {plan:?}").unwrap();
        }
        writeln!(text, "{sql}").unwrap();
        for step in plan {
            writeln!(text, "    {step}").unwrap();
        }
    }
    assert_eq!(costly, "", "these go through all rows of a table, or sort them");
    for (begins, _) in BOUNDED {
        assert!(statements.iter().any(|sql| sql.starts_with(begins)), "{begins} is not used any more");
    }
    let expected = include_str!("plans.txt");
    assert!(text == expected, "tests/plans.txt is to have:\n{text}");
}

#[test]
fn no_write_of_a_lock_or_an_event_makes_a_temporary_table() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(include_str!("../schema.sql")).unwrap();
    let statements = statements(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store")));
    let writes = ["INSERT INTO locks", "INSERT INTO knocks", "INSERT INTO events", "UPDATE locks"];
    for begins in writes {
        let mut statements = statements.iter().filter(|sql| sql.starts_with(begins)).peekable();
        assert!(statements.peek().is_some(), "{begins}");
        for sql in statements {
            let mut program = connection.prepare(&format!("EXPLAIN {sql}")).unwrap();
            let steps = program.raw_query().mapped(|row| row.get::<_, String>(1));
            let steps: Vec<_> = steps.map(Result::unwrap).collect();
            assert!(!steps.iter().any(|step| step == "OpenEphemeral"), "{sql}: {steps:?}");
        }
    }
}

fn plan(connection: &Connection, sql: &str) -> Vec<String> {
    let explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"));
    let mut explained = explained.unwrap_or_else(|error| panic!("{sql}\nis not understood: {error}"));
    // What is bound does not matter for the plan.
    let rows = explained.raw_query().mapped(|row| row.get::<_, String>(3));
    rows.map(Result::unwrap).collect()
}

/// The statements in the source files of a directory.
fn statements(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // Backup and restore go through a whole copy, which no server uses. PostgreSQL has plans of its own.
        if ["backup.rs", "dump.rs", "restore.rs", "postgres"].iter().any(|name| path.ends_with(name)) {
            continue;
        }
        if path.is_dir() {
            found.extend(statements(&path));
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        let mut source = source.to_owned();
        for macro_name in ["locks", "events", "tokens"] {
            source = expanded(&source, macro_name);
        }
        found.extend(literals(&source).into_iter().filter(|text| {
            let first = text.split(' ').next().unwrap();
            ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "REPLACE"].contains(&first)
        }));
    }
    found
}

/// The source with the uses of a macro of `row.rs` as literals: of the columns or, with an argument, of a query of them.
fn expanded(source: &str, macro_name: &str) -> String {
    let columns = columns(macro_name);
    let is_definition = |line: &&str| line.contains("$rest");
    let source: Vec<_> = source.lines().filter(|line| !is_definition(line)).collect();
    let source = source.join("\n");
    let call = format!("row::{macro_name}!(");
    let mut parts = source.split(&call);
    let mut expanded = parts.next().unwrap().to_owned();
    for part in parts.map(str::trim_start) {
        if let Some(rest) = part.strip_prefix(')') {
            expanded.extend([&columns, rest]);
        } else {
            let begin = format!("{} FROM {macro_name} ", columns.trim_end_matches('"'));
            expanded.extend([&begin.replacen('"', "\"SELECT ", 1), &part[1..]]);
        }
    }
    expanded
}

/// What a macro of `row.rs` stands for, as a literal.
fn columns(name: &str) -> String {
    let source = include_str!("../src/store/sqlite/row.rs");
    let (_, rest) = source.split_once(&format!("macro_rules! {name} ")).unwrap();
    format!("\"{}\"", rest.split('"').nth(1).unwrap())
}

/// The texts in a source file, on one line each. Those with nothing but a comma between them are one, as `concat!` makes
/// it.
fn literals(source: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let (mut goes_on, mut rest) = (false, source);
    while let Some(letter) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\''") {
            rest = rest.trim_start_matches("'\"'").trim_start_matches("'\\''");
            goes_on = false;
        } else if letter == '"' {
            let mut end = 1;
            while !rest[end..].starts_with('"') {
                end += if rest[end..].starts_with('\\') { 2 } else { 1 };
                while !rest.is_char_boundary(end) {
                    end += 1;
                }
            }
            let text = rest[1..end].replace("\\\n", " ");
            let text = text.replace('\n', " ");
            match found.last_mut().filter(|_| goes_on) {
                Some(last) => last.push_str(&text),
                None => found.push(text),
            }
            goes_on = true;
            rest = &rest[end + 1..];
        } else {
            goes_on &= letter == ',' || letter.is_whitespace();
            rest = &rest[letter.len_utf8()..];
        }
    }
    found.iter().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}
