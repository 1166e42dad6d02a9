//! Every string and every array in a request has a maximum length, and the maximum is enforced.

use crate::support::{Backend, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

fn document() -> Value {
    serde_json::to_value(octopus::api::document()).unwrap()
}

/// Resolves a `$ref`, and the non-null alternative of an optional schema.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    // An optional schema has two alternatives: the schema itself, or null.
    let alternatives = ["oneOf", "anyOf"].into_iter().filter_map(|name| schema[name].as_array());
    let schema = alternatives.flatten().find(|one| one["type"] != "null").unwrap_or(schema);
    match schema["$ref"].as_str().and_then(|target| target.rsplit('/').next()) {
        Some(name) => resolved(document, &document["components"]["schemas"][name]),
        None => schema,
    }
}

fn is_of_type(schema: &Value, name: &str) -> bool {
    let of = &schema["type"];
    of == name || of.as_array().is_some_and(|of| of.iter().any(|one| one == name))
}

/// Calls `visit` for `schema` and every schema inside it.
fn visit_schema(
    document: &Value,
    place: &str,
    schema: &Value,
    visit: &mut impl FnMut(&str, &Value),
) {
    let schema = resolved(document, schema);
    visit(place, schema);
    if is_of_type(schema, "array") {
        visit_schema(document, &format!("{place}[]"), &schema["items"], visit);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        visit_schema(document, &format!("{place}.{name}"), property, visit);
    }
}

/// Every operation: its method, path and description.
fn operations(document: &Value) -> Vec<(Method, String, &Value)> {
    let mut all = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if let Ok(method) = method.to_uppercase().parse()
                && operation["responses"].is_object()
            {
                all.push((method, path.clone(), operation));
            }
        }
    }
    all
}

#[apply(without_database!)]
fn every_string_and_every_array_of_a_request_has_a_maximum_length() {
    let document = document();
    let mut unbounded = vec![];
    let mut visit = |place: &str, schema: &Value| {
        let has_bound =
            ["maxLength", "enum", "pattern"].iter().any(|name| !schema[*name].is_null())
                || schema["format"] == "date-time";
        let is_endless = is_of_type(schema, "string") && !has_bound
            || is_of_type(schema, "array") && schema["maxItems"].is_null();
        if is_endless {
            unbounded.push(place.to_owned());
        }
    };
    for (method, path, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            // Header fields are limited by the 32 KiB of the head.
            if parameter["in"] != "header" {
                let place = format!("{method} {path} ?{}", parameter["name"]);
                visit_schema(&document, &place, &parameter["schema"], &mut visit);
            }
        }
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        visit_schema(&document, &format!("{method} {path}"), body, &mut visit);
    }
    assert!(unbounded.is_empty(), "without a bound: {unbounded:#?}");
}

#[apply(on_both!)]
async fn a_text_that_is_too_long_is_refused_with_the_name_of_its_field(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    app.user("ada").await;
    let session = app.login("ada").await;
    let document = document();
    let mut tried = 0;
    for (method, path, operation) in operations(&document) {
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        let schema = resolved(&document, body);
        let path: Vec<_> = path
            .split('/')
            .map(|step| if step.starts_with('{') { "999999" } else { step })
            .collect();
        let path = path.join("/");
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let bounded = resolved(&document, property);
            let is_list = is_of_type(bounded, "array");
            let bounded = if is_list { resolved(&document, &bounded["items"]) } else { bounded };
            // `role` is refused by its value, not by its length.
            let Some(max) = bounded["maxLength"].as_u64().filter(|_| name != "role") else {
                continue;
            };
            let text = "x".repeat(usize::try_from(max).unwrap() + 1);
            let mut body = schema["example"].clone();
            body[name] = if is_list { json!([text]) } else { json!(text) };
            let call = app.call(method.clone(), &path).json(body);
            let needs_user = operation["security"] == json!([{"session": []}]);
            let call = if needs_user { call.session(&session) } else { call.key(&key) };
            let answer = call.send().await;
            let place = format!("{method} {path} {name}: {}", answer.text);
            assert_eq!(answer.status, 422, "{place}");
            let names_it = |problem: &Value| problem["loc"][1] == name.as_str();
            assert!(answer["detail"].as_array().unwrap().iter().any(names_it), "{place}");
            assert!(answer.text.len() < 10_000, "{place}");
            tried += 1;
        }
    }
    assert!(tried > 25, "{tried}");
}

#[apply(on_both!)]
async fn a_query_of_many_parameters_is_refused(backend: Backend) {
    let app = TestApp::new(&backend).await;
    let key = app.admin().await;
    let get = |n: usize| app.get(&format!("/api/v1/users?{}", "limit=1&".repeat(n))).key(&key);
    get(100).send().await.expect(200);
    get(101).send().await.invalid(&["query"]);
}
