//! `docs/api.md`, the reference of the HTTP API, is made from the OpenAPI document.

use std::fmt::Write;

use lockhouse::api::openapi;
use lockhouse::api::routes::ROUTES;
use lockhouse::config::AuthMode;
use serde_json::Value;

/// A list of strings as code: `a`, `b`.
fn codes<'a>(values: impl Iterator<Item = &'a str>) -> String {
    values.map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn members<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value[key].as_object().into_iter().flatten()
}

/// The name of the schema that is referred to.
fn referred(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

fn code(value: &Value) -> String {
    format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// What a value is, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = referred(schema) {
        return format!("[{name}](#schema-{})", name.to_lowercase());
    }
    if !schema["const"].is_null() {
        return code(&schema["const"]);
    }
    if schema["enum"].is_array() {
        return list(schema, "enum").map(code).collect::<Vec<_>>().join(" or ");
    }
    for key in ["oneOf", "anyOf"] {
        if schema[key].is_array() && schema["type"].is_null() {
            return list(schema, key).map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    let types: Vec<_> = schema["type"].as_array().map_or_else(
        || vec![schema["type"].as_str().unwrap_or("any")],
        |types| types.iter().filter_map(Value::as_str).collect(),
    );
    let each = |name: &&str| match *name {
        "array" => format!("array of {}", kind(&schema["items"])),
        "object" if schema["properties"].is_object() => {
            format!("object of {}", codes(members(schema, "properties").map(|(name, _)| name.as_str())))
        }
        "string" if schema["format"] == "date-time" => "instant".to_owned(),
        name => name.to_owned(),
    };
    types.iter().map(each).collect::<Vec<_>>().join(" or ") + &range(schema)
}

/// The least and the greatest value or length, except the greatest integer.
fn range(schema: &Value) -> String {
    let number = |keys: [&str; 2]| keys.iter().find_map(|key| schema[*key].as_u64());
    let unit = if schema["maxLength"].is_u64() { " bytes" } else { "" };
    match (number(["minimum", "minLength"]), number(["maximum", "maxLength"])) {
        (Some(least), Some(most)) if most < (1 << 53) - 1 => format!(", {least} to {most}{unit}"),
        (None, Some(most)) => format!(", up to {most}{unit}"),
        _ => String::new(),
    }
}

/// A row of a table: a bar inside of it would end its cell.
fn row(page: &mut String, cells: &[&str]) {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    writeln!(page, "| {} |", cells.join(" | ")).unwrap();
}

fn fields(page: &mut String, schema: &Value) {
    row(page, &["Field", "Type", "Description"]);
    row(page, &["---"; 3]);
    for (name, field) in members(schema, "properties") {
        let is_optional = !list(schema, "required").any(|required| required == name);
        let mut about = text(field, "description").to_owned();
        if is_optional {
            about = ["Optional. ", &about].concat();
        }
        row(page, &[&format!("`{name}`"), &kind(field), about.trim_end()]);
    }
    page.push('\n');
}

fn operation(page: &mut String, method: &str, path: &str, operation: &Value) {
    writeln!(page, "### {}\n", text(operation, "operationId")).unwrap();
    writeln!(page, "`{} {path}`: {}\n", method.to_uppercase(), text(operation, "summary")).unwrap();
    writeln!(page, "{}\n", text(operation, "description")).unwrap();
    let parameters: Vec<_> = list(operation, "parameters").collect();
    if !parameters.is_empty() {
        row(page, &["Parameter", "In", "Type", "Description"]);
        row(page, &["---"; 4]);
        for parameter in parameters {
            let name = format!("`{}`", text(parameter, "name"));
            let about = text(parameter, "description");
            row(page, &[&name, text(parameter, "in"), &kind(&parameter["schema"]), about]);
        }
        page.push('\n');
    }
    if let Some((media, content)) = members(&operation["requestBody"], "content").next() {
        writeln!(page, "Body (`{media}`):\n").unwrap();
        fields(page, &content["schema"]);
    }
    let mut refusals = Vec::new();
    for (status, response) in members(operation, "responses") {
        if response["content"].get("application/problem+json").is_some() {
            let description = text(response, "description");
            refusals
                .extend(description.split('`').skip(1).step_by(2).map(|code| format!("{status} `{code}`")));
        } else if let Some((media, content)) = members(response, "content").next() {
            writeln!(page, "Answer: {status}, {} (`{media}`).\n", kind(&content["schema"])).unwrap();
        } else if referred(response).is_none() {
            writeln!(page, "Answer: {status}, without a body.\n").unwrap();
        }
    }
    if !refusals.is_empty() {
        writeln!(page, "Problems: {}.\n", refusals.join(", ")).unwrap();
    }
}

/// The page as it should be.
fn reference(document: &Value) -> String {
    let mut page = String::from(
        "# API reference\n\nThis page is made from the OpenAPI document, which a server has at `/api/v1/openapi.json`. ",
    );
    writeln!(page, "{}\n\n## Operations\n", text(&document["info"], "description")).unwrap();
    let operations: Vec<_> = members(document, "paths")
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, operation)| (path, method, operation))
        })
        .collect();
    row(&mut page, &["Operation", "Summary"]);
    row(&mut page, &["---"; 2]);
    for (path, method, operation) in &operations {
        let anchor = text(operation, "operationId").to_lowercase();
        let link = format!("[`{} {path}`](#{anchor})", method.to_uppercase());
        row(&mut page, &[&link, text(operation, "summary")]);
    }
    page.push('\n');
    for (path, method, said) in operations {
        operation(&mut page, method, path, said);
    }
    page.push_str("## Schemas\n\n");
    let (problems, schemas): (Vec<_>, Vec<_>) =
        members(&document["components"], "schemas").partition(|(name, _)| name.starts_with("Problem"));
    for (name, schema) in schemas {
        writeln!(page, "### Schema: {name}\n").unwrap();
        if schema["properties"].is_object() {
            fields(&mut page, schema);
        } else {
            writeln!(page, "{}. {}\n", kind(schema), text(schema, "description")).unwrap();
        }
    }
    page.push_str("## Problems\n\nA refusal is `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`, `code`, `request_id` and the members of its code.\n\n");
    row(&mut page, &["Code", "Status", "Title", "Members"]);
    row(&mut page, &["---"; 4]);
    for (_, problem) in problems {
        let said = |key: &str| problem["properties"][key]["const"].to_string().replace('"', "");
        let usual = ["code", "detail", "request_id", "status", "title", "type"];
        let more = members(problem, "properties")
            .map(|(name, _)| name.as_str())
            .filter(|name| !usual.contains(name));
        row(&mut page, &[&format!("`{}`", said("code")), &said("status"), &said("title"), &codes(more)]);
    }
    page
}

#[test]
fn the_api_reference_matches_the_openapi_document() {
    super::is_up_to_date("docs/api.md", &reference(&openapi::document(ROUTES, AuthMode::Token)));
}
