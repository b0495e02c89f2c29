//! Compares responses with docs/api.md and docs/openapi.json.

use std::collections::BTreeSet;

use axum::http::HeaderValue;
use serde_json::Value;

use super::{error, media_response, routes};

const PAGE: &str = include_str!("../../docs/api.md");
const OPENAPI: &str = include_str!("../../docs/openapi.json");

/// Status (or `4XX`), and reason.
type StatusAndReason = (String, String);

fn openapi() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Returns the rows of the page's table whose header begins so, as cells.
fn table(header: &str) -> Vec<Vec<&'static str>> {
    let (_, table) = PAGE.split_once(header).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// Returns whether the text has the documented form, in which `…` stands for any text.
fn has_form(text: &str, form: &str) -> bool {
    form.split_once('…')
        .map_or(text == form, |(start, end)| text.starts_with(start) && text.ends_with(end))
}

/// Returns the reasons of an error response. Its schema is that of errors, or has that as its first alternative.
fn reasons(response: &Value) -> Vec<String> {
    let schema = &response["content"]["application/json"]["schema"];
    let schema = schema["oneOf"].get(0).unwrap_or(schema);
    let reasons = schema["allOf"][1]["properties"]["reason"]["enum"].as_array();
    reasons.into_iter().flatten().map(|reason| reason.as_str().unwrap().to_owned()).collect()
}

/// Returns all errors of the routes for clients that openapi.json states.
fn documented_errors() -> BTreeSet<StatusAndReason> {
    let document = openapi();
    let mut errors = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let operations = ["get", "post"].map(|method| &methods[method]["responses"]);
        if !path.starts_with("/_matrix/") {
            continue;
        }
        for (status, response) in operations.into_iter().filter_map(Value::as_object).flatten() {
            let reference = response["$ref"].as_str().unwrap().trim_start_matches('#');
            let response = document.pointer(reference).unwrap();
            errors.extend(reasons(response).into_iter().map(|reason| (status.clone(), reason)));
        }
    }
    errors
}

#[tokio::test]
async fn documentation_states_each_error() {
    let rows = table("| status | reason | `info` | meaning | what a client does |");
    let mut errors = BTreeSet::new();
    let mut found_rows = BTreeSet::new();
    for (name, status, reason, info) in error::tests::all_responses().await {
        // Statuses of the homeserver that are passed on.
        let documented = if name.starts_with("Refused 4") { "4xx".to_owned() } else { status };
        let row = rows.iter().position(|row| {
            row[0] == documented && row[1] == format!("`{reason}`") && has_form(&info, row[2])
        });
        let row = row.unwrap_or_else(|| panic!("{name}: {documented} {reason} {info}"));
        found_rows.insert(row);
        errors.insert((documented.to_uppercase(), reason));
    }
    for (row, cells) in rows.iter().enumerate() {
        // One sample stands for all types.
        let is_sampled = found_rows.contains(&row) || cells[1] == "`MCS_MIME_TYPE_FORBIDDEN`";
        assert!(is_sampled, "{cells:?} is no response");
    }
    errors.insert(("403".to_owned(), "MCS_MIME_TYPE_FORBIDDEN".to_owned()));
    // The homeserver's.
    for status in ["400", "403"] {
        errors.insert((status.to_owned(), "M_UNKNOWN".to_owned()));
    }
    assert_eq!(documented_errors(), errors);
}

/// Asserts that both documents state the header with its value.
fn assert_documented(name: &str, value: &HeaderValue) {
    let (name, value) = (name.to_ascii_lowercase(), value.to_str().unwrap());
    let rows =
        PAGE.lines().filter(|line| line.to_ascii_lowercase().starts_with(&format!("| `{name}` |")));
    assert!(rows.clone().any(|row| row.contains(&format!("| `{value}` |"))), "{name}: {value}");
    let document = openapi();
    let headers = document["components"]["headers"].as_object().unwrap();
    let header = headers.iter().find(|(key, _)| key.to_ascii_lowercase() == name);
    assert_eq!(header.unwrap().1["schema"]["const"], value, "{name}");
}

#[test]
fn documentation_states_each_fixed_header() {
    for (name, value) in routes::CORS.iter().chain(&media_response::FIXED_HEADERS) {
        assert_documented(name.as_str(), value);
    }
}
