//! What a database must have: the tables, columns and indexes that `schema.sql` makes. A file that lacks one of them is
//! refused at the start, before anything is written, and not with an error at the first request that needs it.
//!
//! There is no list of them here: an empty database in memory is made by `schema.sql`, and the two are compared. What a
//! file has besides is left alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rusqlite::Connection;

/// Most of what is missing that is named.
const NAMED: usize = 5;

/// What is named, and how it is defined.
type Parts = BTreeMap<String, String>;

/// What this file lacks or has otherwise than `model`, as the end of a sentence; nothing if it has all.
pub(super) fn lacks(connection: &Connection, model: &Connection) -> rusqlite::Result<Option<String>> {
    let (has, must_have) = (parts(connection)?, parts(model)?);
    // What belongs to a table that is missing need not be said.
    let is_of_missing = |name: &str, definition: &str| {
        let column = name.strip_prefix("column ").and_then(|column| column.split('.').next());
        let index = name.strip_prefix("index ").and_then(|_| definition.split(' ').next());
        column.or(index).is_some_and(|table| !has.contains_key(&format!("table {table}")))
    };
    let mut lacking = Vec::new();
    for (name, definition) in &must_have {
        match has.get(name) {
            None if is_of_missing(name, definition) => {}
            None => lacking.push(format!("has no {name}")),
            Some(found) if found != definition => {
                lacking.push(format!("has another {name} ({found} in place of {definition})"));
            }
            Some(_) => {}
        }
    }
    if lacking.is_empty() {
        let rows: i64 = connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0))?;
        return Ok((rows != 1).then(|| format!("has {rows} rows in the table meta, and must have one")));
    }
    let more = lacking.len().saturating_sub(NAMED);
    lacking.truncate(NAMED);
    let mut said = lacking.join(", ");
    if more > 0 {
        let _ = write!(said, " and lacks {more} more");
    }
    Ok(Some(said))
}

/// The tables, columns and indexes of a database.
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
         FROM pragma_table_list AS tables, pragma_table_xinfo(tables.name) AS columns
         WHERE tables.schema = 'main' AND tables.type = 'table' AND tables.name NOT LIKE 'sqlite!_%' ESCAPE '!'")?;
    add("SELECT 'index ' || indexes.name, tables.name || ' (' || group_concat(columns.name ORDER BY columns.seqno) || ')'
                || iif(indexes.[unique], ', unique', '') || iif(indexes.partial, ', partial', '')
         FROM pragma_table_list AS tables, pragma_index_list(tables.name) AS indexes, pragma_index_info(indexes.name) AS columns
         WHERE tables.schema = 'main' AND indexes.origin = 'c' GROUP BY indexes.name")?;
    Ok(parts)
}
