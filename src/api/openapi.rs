//! Completes the OpenAPI document with the parts that all routes share.

use super::middleware::conditional::is_single_resource;
use super::{health, v1};
use crate::core::config::{Config, Registration};
use crate::core::error::{ErrorBody, ValidationErrorBody};
use crate::security::rate_limit::Throttle;
use axum::http::StatusCode;
use std::collections::HashMap;
use std::iter;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, Ref, RefOr, ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

/// The introduction of the document, in Markdown.
const DESCRIPTION: &str = "\
Octopus is a self-hosted service that stores API keys, users and conversations.

## First steps

1. Create the first API key with `POST /bootstrap`. Save the key: only this response contains it.
2. In Swagger UI, select **Authorize** and enter the key under `api_key`.
3. Register a user with `POST /api/v1/users`.
4. Create a conversation with `POST /api/v1/conversations`, and append a message with \
`POST /api/v1/conversations/{conversation_id}/messages`.

## Authentication

Most operations require one of two credentials:

- **API key:** `Octopus-API-Key: octopus_…` or `Authorization: Bearer octopus_…`. An API key gives \
access to all users and conversations, within the scopes of the key.
- **Session token:** `Authorization: Bearer octs_…`. A user gets a token from \
`POST /api/v1/users/login`. It gives access to the user's own account and to the conversations \
they participate in.

The broad scopes are `read`, `write` and `admin`. Narrow scopes such as `conversations:read` allow \
access to one kind of resource. `write` does not include `read`; `admin` includes every scope.

## Errors

An error response is a JSON object with the field `detail`. For status 422, `detail` is a list of \
invalid fields: `loc` is the path of the field, and `msg` is the rule it breaks. For every other \
status, `detail` is a sentence.

Responses with status 429 and 503 have the header field `Retry-After`, the number of seconds to \
wait before a retry. Operations that accept `Idempotency-Key` can be retried safely: a retry with \
the same key within 24 hours does not create a second resource.

## Lists

A list is returned in pages of at most `limit` entries. The response header field `Link` has the \
URLs of the next and previous pages. A response without `rel=\"next\"` is the last page.";

/// The tag of the health checks. The tags of the features follow it.
const HEALTH: (&str, &str) =
    ("health", "Check that the server is running and ready. No credential, no rate limit.");

/// The OpenAPI document, as served at `/openapi.json`.
///
/// # Panics
/// Never: the default configuration is valid.
pub fn document() -> OpenApi {
    let config = Config::from_variables(HashMap::new()).expect("the defaults are valid");
    let throttle = Throttle::new(&config.rate_limits);
    let (health, v1) = (health::routes(), v1::routes(&throttle, Registration::Open));
    let mut document = health.into_openapi();
    document.merge(v1.into_openapi());
    complete(document)
}

/// Adds the metadata of the document, and the parameters and responses that all routes share.
fn complete(mut document: OpenApi) -> OpenApi {
    document.info = InfoBuilder::new()
        .title("Octopus")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()))
        .build();
    let tag =
        |(name, text): (&str, &str)| TagBuilder::new().name(name).description(Some(text)).build();
    let features = v1::tags().map(|tag| (tag.name, tag.description));
    document.tags = Some(iter::once(HEALTH).chain(features).map(tag).collect());

    let components = document.components.get_or_insert_default();
    let mut schemas = vec![
        (ErrorBody::name().into(), ErrorBody::schema()),
        (ValidationErrorBody::name().into(), ValidationErrorBody::schema()),
    ];
    ErrorBody::schemas(&mut schemas);
    ValidationErrorBody::schemas(&mut schemas);
    components.schemas.extend(schemas);
    let header = ApiKeyValue::with_description("Octopus-API-Key", "API key: `octopus_…`");
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(header)));
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The same API key as a bearer token"))
        .build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let session = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("Session token: the `access_token` from `POST /api/v1/users/login`"))
        .build();
    components.add_security_scheme("session", SecurityScheme::Http(session));

    for (path, item) in &mut document.paths.paths {
        for operation in [&mut item.get, &mut item.delete].into_iter().flatten() {
            let reads_body = operation.request_body.is_some();
            complete_operation(operation, reads_body);
        }
        if let Some(operation) = item.get.as_mut().filter(|_| is_single_resource(path)) {
            add_revalidation(operation);
        }
        if let Some(operation) = &mut item.delete {
            add_response::<ErrorBody>(
                operation,
                "415",
                "A browser sent the request like an HTML form",
            );
        }
        for operation in [&mut item.post, &mut item.put, &mut item.patch].into_iter().flatten() {
            complete_operation(operation, true);
        }
    }
    document
}

/// Documents `ETag`, `If-None-Match` and 304 for `operation`, which returns a single resource.
fn add_revalidation(operation: &mut Operation) {
    let parameter = ParameterBuilder::new()
        .name("If-None-Match")
        .parameter_in(ParameterIn::Header)
        .description(Some("The `ETag` of an earlier response: 304 if it is still current"))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()));
    operation.parameters.get_or_insert_default().push(parameter.build().into());
    let responses = &mut operation.responses.responses;
    if let Some(RefOr::T(found)) = responses.get_mut("200") {
        let description = "Tag of the response; absent if it is larger than 64 KiB";
        let tag = || header(description).into();
        found.headers.entry("ETag".to_owned()).or_insert_with(tag);
    }
    let response = ResponseBuilder::new()
        .description("The response has not changed: the `ETag` is in `If-None-Match`")
        .header("ETag", header("Tag of the response"));
    responses.entry("304".to_owned()).or_insert_with(|| response.build().into());
}

/// Adds the responses that `operation` shares with others. `reads_body` is also true for a route
/// without body fields, because it reads the body to refuse unknown fields.
fn complete_operation(operation: &mut Operation, reads_body: bool) {
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            let status = status.parse::<StatusCode>().ok();
            let reason = status.and_then(|status| status.canonical_reason());
            reason.unwrap_or("OK").clone_into(&mut response.description);
        }
    }
    add_response::<ErrorBody>(operation, "431", "The head of the request is too large");
    add_response::<ErrorBody>(operation, "500", "Internal server error");
    add_response::<ErrorBody>(
        operation,
        "504",
        "The request timed out; a change may still have happened",
    );
    if operation.tags.iter().flatten().any(|tag| tag == "health") {
        add_response::<ErrorBody>(operation, "400", "Missing, duplicate or malformed `Host`");
        return;
    }
    if has_parameter(operation, "before") {
        add_response::<ErrorBody>(
            operation,
            "400",
            "Invalid cursor, more than one of `skip`, `after` and `before`, two different \
             credentials, or missing or invalid `Host`",
        );
    }
    if has_parameter(operation, "skip") {
        describe_headers(operation, &[LINK]);
    }
    add_response::<ErrorBody>(
        operation,
        "400",
        "Two different credentials, incomplete body, or missing or invalid `Host`",
    );
    add_response::<ErrorBody>(
        operation,
        "403",
        "The credential does not permit this operation, or not from this address",
    );
    add_response::<ErrorBody>(operation, "429", "Rate limit exceeded; see `Retry-After`");
    add_response::<ErrorBody>(
        operation,
        "503",
        "The database is temporarily unavailable, or too many large requests and responses are in \
         progress; see `Retry-After`",
    );
    if let Some(alternatives) = &mut operation.security {
        let needs = |scheme| SecurityRequirement::new::<_, [&str; 0], &str>(scheme, []);
        if alternatives.contains(&needs("api_key")) {
            alternatives.push(needs("bearer"));
        }
        add_response::<ErrorBody>(operation, "401", "Missing or invalid credential");
        describe_headers(operation, &KEY_HEADERS);
    }
    let has_parameters = operation.parameters.iter().flatten().any(|parameter| match parameter {
        RefOr::T(parameter) => parameter.parameter_in != ParameterIn::Header,
        RefOr::Ref(_) => true,
    });
    if has_parameters || reads_body {
        add_response::<ValidationErrorBody>(operation, "422", "Invalid fields, listed in `detail`");
    }
    if reads_body {
        add_response::<ErrorBody>(operation, "408", "The body took too long to arrive");
        add_response::<ErrorBody>(operation, "413", "The body is too large");
        add_response::<ErrorBody>(
            operation,
            "415",
            "`Content-Type` is not JSON, or a browser sent the request like an HTML form",
        );
    }
}

/// The header fields of successful responses to authenticated requests.
const KEY_HEADERS: [(&str, &str); 3] = [
    ("RateLimit", "Remaining quota of the caller; absent if rate limits are off"),
    ("RateLimit-Policy", "Rate limit of the caller; absent if rate limits are off"),
    ("Octopus-API-Key-Expires", "Expiry of a rotated key during its grace period"),
];

/// The header field of a response with one page of a list.
const LINK: (&str, &str) = (
    "Link",
    "URLs of the next and previous pages, if they exist: `rel=\"next\"`, `rel=\"prev\"` (RFC 8288)",
);

/// Returns whether `operation` has the parameter `name`. Lists with cursors have `before`; lists
/// with pages have `skip`.
fn has_parameter(operation: &Operation, name: &str) -> bool {
    let mut parameters = operation.parameters.iter().flatten();
    parameters.any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.name == name))
}

/// Adds header fields to the responses with a 2xx status.
fn describe_headers(operation: &mut Operation, headers: &[(&str, &str)]) {
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with('2')
        {
            let headers = headers.iter().map(|(name, text)| ((*name).into(), header(text).into()));
            response.headers.extend(headers);
        }
    }
}

fn header(description: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    HeaderBuilder::new().schema(Some(text)).description(Some(description)).build()
}

/// Adds a response, unless the route documents that status itself.
fn add_response<T: ToSchema>(operation: &mut Operation, status: &str, description: &str) {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build();
    let mut response =
        ResponseBuilder::new().description(description).content("application/json", body);
    if status == "401" {
        response = response.header("WWW-Authenticate", header("The authentication scheme"));
    }
    if status == "429" {
        response = response
            .header("Retry-After", header("Seconds until the next request is allowed"))
            .header("RateLimit", header("Remaining quota"))
            .header("RateLimit-Policy", header("Rate limit"));
    }
    let responses = &mut operation.responses.responses;
    responses.entry(status.to_owned()).or_insert_with(|| response.build().into());
}
