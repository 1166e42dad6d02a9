//! Refuses query parameters that an operation does not document, which it would otherwise ignore:
//! a misspelt `limit` would return the wrong page without a word.

use crate::core::error::Result;
use crate::core::text::nearest;
use crate::http::{Client, Fields};
use crate::security::ticket;
use crate::state::AppState;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::{OpenApi, RefOr};

/// Maximum number of parameters that are compared with the known ones.
const MAX_COMPARED: usize = 100;

/// The query parameters of every operation, by route.
#[derive(Clone, Debug)]
pub struct KnownParameters(Arc<HashMap<String, Operations>>);

/// The operations of a route, with the names of their query parameters.
type Operations = Vec<(Method, Vec<String>)>;

impl KnownParameters {
    /// Those that the OpenAPI document `api` lists.
    pub fn of(api: &OpenApi) -> Self {
        let operations = |item: &PathItem| methods(item).map(|(m, o)| (m, in_query(o))).collect();
        let routes = &api.paths.paths;
        Self(Arc::new(routes.iter().map(|(path, item)| (path.clone(), operations(item))).collect()))
    }

    fn of_request(&self, request: &Request) -> Option<&[String]> {
        let route = request.extensions().get::<MatchedPath>()?;
        let head = Method::GET;
        let method = if request.method() == Method::HEAD { &head } else { request.method() };
        let operations = self.0.get(route.as_str())?;
        operations.iter().find(|(m, _)| m == method).map(|(_, names)| names.as_slice())
    }
}

fn methods(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::PATCH, &item.patch),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn in_query(operation: &Operation) -> Vec<String> {
    let all = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    });
    let query = all.filter(|parameter| parameter.parameter_in == ParameterIn::Query);
    query.map(|parameter| parameter.name.clone()).collect()
}

/// Fails with 422 if the query has a parameter that the operation does not document, or with 429:
/// `authenticate` does not count requests with a ticket.
pub async fn refuse_unknown(
    State((known, app)): State<(KnownParameters, AppState)>,
    request: Request,
    next: Next,
) -> Result<Response> {
    let query = request.uri().query().unwrap_or_default();
    if !query.is_empty()
        && let Some(known) = known.of_request(&request)
    {
        let checked = check(query, known);
        if checked.is_err() && ticket::is_presented(&request) {
            count(&app, &request)?;
        }
        checked?;
    }
    Ok(next.run(request).await)
}

fn count(app: &AppState, request: &Request) -> Result<()> {
    request.extensions().get::<Client>().map_or(Ok(()), |client| app.throttle.anonymous(client))
}

fn check(query: &str, known: &[String]) -> Result<()> {
    let mut fields = Fields::new("query");
    for (name, _) in form_urlencoded::parse(query.as_bytes()).take(MAX_COMPARED) {
        if !name.is_empty() && !known.iter().any(|known| *known == name) {
            let hint = match nearest(&name, known) {
                Some(nearest) => format!("; did you mean '{nearest}'?"),
                None if known.is_empty() => "; this operation has no query parameters".to_owned(),
                None => format!("; known parameters: {}", known.join(", ")),
            };
            let msg = format!("Extra inputs are not permitted{hint}");
            // The value may be a secret.
            fields.add(name.into_owned(), "extra_forbidden", msg, Value::Null);
        }
    }
    fields.finish()
}
