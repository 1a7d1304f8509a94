//! Checks the structure of a database against `schema.sql`: tables, columns and indexes, and numbers in
//! range. A file that fails the check is refused at the start, before anything is written. Otherwise the
//! first request that needs the missing part would fail. While the server runs, a file is checked again after
//! another program has written to it.
//!
//! There is no list of the parts here. `schema.sql` creates an empty database in memory, and the two are
//! compared. Additional parts of a file are allowed, unless they can make a write fail, such as a trigger.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rusqlite::Connection;

/// Maximum number of faults that are named.
const MAX_NAMED: usize = 5;

/// The name of each part, and its definition.
type Parts = BTreeMap<String, String>;

/// Where this file differs from `model`, as the end of a sentence; `None` if it has everything.
pub(super) fn difference(connection: &Connection, model: &Connection) -> rusqlite::Result<Option<String>> {
    let (has, must_have) = (parts(connection)?, parts(model)?);
    // Columns and indexes of a missing table are not named separately.
    let is_of_missing = |name: &str, definition: &str| {
        let column = name.strip_prefix("column ").and_then(|column| column.split('.').next());
        let index = name.strip_prefix("index ").and_then(|_| definition.split(' ').next());
        column.or(index).is_some_and(|table| !has.contains_key(&format!("table {table}")))
    };
    let mut differences = Vec::new();
    for (name, definition) in &must_have {
        match has.get(name) {
            None if is_of_missing(name, definition) => {}
            None => differences.push(format!("has no {name}")),
            Some(found) if found != definition => {
                differences.push(format!("has another {name} ({found} in place of {definition})"));
            }
            Some(_) => {}
        }
    }
    for (name, definition) in &has {
        if !must_have.contains_key(name) && may_break_writes(name, definition, &must_have) {
            differences.push(format!("has the {name} ({definition}), which Lockhouse has not made"));
        }
    }
    if differences.is_empty() {
        let rows: i64 = connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0))?;
        if rows != 1 {
            return Ok(Some(format!("has {rows} rows in the table meta, and must have one")));
        }
        return out_of_range(connection);
    }
    let more = differences.len().saturating_sub(MAX_NAMED);
    differences.truncate(MAX_NAMED);
    let mut said = differences.join(", ");
    if more > 0 {
        let _ = write!(said, " and lacks {more} more");
    }
    Ok(Some(said))
}

/// Whether a part that is not in `model` can make a write fail.
fn may_break_writes(name: &str, definition: &str, model: &Parts) -> bool {
    let is_ours = |table: &str| model.contains_key(&format!("table {table}"));
    let first = definition.split(' ').next().unwrap_or_default();
    match name.split_once(' ') {
        Some(("trigger" | "reference", _)) => is_ours(first),
        Some(("index", _)) => is_ours(first) && definition.contains(", unique"),
        Some(("column", column)) => {
            is_ours(column.split('.').next().unwrap_or_default())
                && definition.contains(" not null")
                && !definition.contains(", default ")
        }
        Some(_) | None => false,
    }
}

/// Numbers out of the range that the program can handle, as the end of a sentence. 9007199254740991 is the
/// greatest integer in JavaScript; 253402300799999 is the end of the year 9999 in milliseconds.
fn out_of_range(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection
        .query_row(
            "SELECT 'has ' || group_concat(what || ' = ' || value || ' (' || allowed || ')', ', ') FROM (
                SELECT 'meta.last_fence' AS what, last_fence AS value, 'from 0 to 8999999999999999' AS allowed FROM meta
                    WHERE last_fence NOT BETWEEN 0 AND 8999999999999999
                UNION ALL SELECT 'meta.last_revision', last_revision, 'from max(events.revision) to 9007199254740991' FROM meta
                    WHERE last_revision NOT BETWEEN (SELECT coalesce(max(revision), 0) FROM events) AND 9007199254740991
                UNION ALL SELECT 'meta.last_seen_at', last_seen_at, 'from 0 to 253402300799999' FROM meta
                    WHERE last_seen_at NOT BETWEEN 0 AND 253402300799999
                UNION ALL SELECT 'meta.wall_offset_ms', wall_offset_ms, 'from -253402300799999 to 253402300799999' FROM meta
                    WHERE wall_offset_ms NOT BETWEEN -253402300799999 AND 253402300799999
                UNION ALL SELECT 'meta.run', run, 'from 0 to 9007199254740991' FROM meta
                    WHERE run NOT BETWEEN 0 AND 9007199254740991
                UNION ALL SELECT 'restarts.run', run, 'from 1 to meta.run' FROM restarts
                    WHERE run NOT BETWEEN 1 AND (SELECT run FROM meta)
                UNION ALL SELECT 'restarts.last_seen_at', last_seen_at, 'from 0 to meta.last_seen_at' FROM restarts
                    WHERE last_seen_at NOT BETWEEN 0 AND (SELECT last_seen_at FROM meta)
                UNION ALL SELECT 'restarts.grace_ends_at', grace_ends_at, 'from restarts.last_seen_at' FROM restarts
                    WHERE grace_ends_at < last_seen_at)",
            [],
            |row| row.get(0),
        )
}

/// The tables, columns, indexes, triggers and foreign keys of a database.
fn parts(connection: &Connection) -> rusqlite::Result<Parts> {
    let mut parts = Parts::new();
    let mut add = |query| -> rusqlite::Result<()> {
        let mut statement = connection.prepare(query)?;
        for part in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (name, definition) = part?;
            parts.insert(name, definition);
        }
        Ok(())
    };
    add("SELECT 'table ' || name, iif(strict, 'strict', 'not strict') || iif(wr, ', without rowid', '')
         FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'")?;
    add("SELECT 'column ' || tables.name || '.' || columns.name,
                columns.type || iif(columns.[notnull], ' not null', '') || iif(columns.pk, ', key ' || columns.pk, '')
                || coalesce(', default ' || columns.dflt_value, '')
         FROM pragma_table_list AS tables, pragma_table_xinfo(tables.name) AS columns
         WHERE tables.schema = 'main' AND tables.type = 'table' AND tables.name NOT LIKE 'sqlite!_%' ESCAPE '!'")?;
    add("SELECT 'index ' || indexes.name, tables.name || ' (' || group_concat(columns.name ORDER BY columns.seqno) || ')'
                || iif(indexes.[unique], ', unique', '') || iif(indexes.partial, ', partial', '')
         FROM pragma_table_list AS tables, pragma_index_list(tables.name) AS indexes, pragma_index_info(indexes.name) AS columns
         WHERE tables.schema = 'main' AND indexes.origin = 'c' GROUP BY indexes.name")?;
    add("SELECT 'trigger ' || name, tbl_name FROM sqlite_schema WHERE type = 'trigger'")?;
    add("SELECT 'reference ' || tables.name || '.' || keys.[from], keys.[table] || ' on delete ' || lower(keys.on_delete)
         FROM pragma_table_list AS tables, pragma_foreign_key_list(tables.name) AS keys WHERE tables.schema = 'main'")?;
    Ok(parts)
}
