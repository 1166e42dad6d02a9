//! The OpenAPI document: what no single route says, said once for all.

use crate::core::error::{ErrorBody, ValidationErrorBody};
use axum::http::StatusCode;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, Ref, RefOr, ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

const DESCRIPTION: &str = "API keys a team can trust, users and conversations.\n\n\
    Send an API key in `Octopus-API-Key` (or as `Authorization: Bearer`). The first one comes from \
    `POST /bootstrap`. Every refusal is JSON with a `detail`: a sentence, or on 422 a list of the \
    fields that break a rule.";

const TAGS: [(&str, &str); 7] = [
    ("health", "Whether the server works. Never limited, without a key."),
    ("bootstrap", "The first key."),
    ("api-keys", "Keys and the trail of what was done to them."),
    ("users", "Who takes part in conversations."),
    ("conversations", "What is said, in order."),
    ("items", "The demo feature, made to be copied."),
    ("admin", "The installation at a glance."),
];

/// Adds to `document` what is true of every route.
pub fn complete(mut document: OpenApi) -> OpenApi {
    document.info = InfoBuilder::new()
        .title("Octopus")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()))
        .build();
    let tag =
        |(name, text): (&str, &str)| TagBuilder::new().name(name).description(Some(text)).build();
    document.tags = Some(TAGS.into_iter().map(tag).collect());

    let components = document.components.get_or_insert_default();
    let mut schemas = vec![
        (ErrorBody::name().into(), ErrorBody::schema()),
        (ValidationErrorBody::name().into(), ValidationErrorBody::schema()),
    ];
    ErrorBody::schemas(&mut schemas);
    ValidationErrorBody::schemas(&mut schemas);
    components.schemas.extend(schemas);
    let header = ApiKeyValue::with_description("Octopus-API-Key", "An API key");
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(header)));
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The same API key"))
        .build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let session = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The access_token of `POST /api/v1/users/login`"))
        .build();
    components.add_security_scheme("session", SecurityScheme::Http(session));

    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.delete].into_iter().flatten() {
            let reads_body = operation.request_body.is_some();
            complete_operation(operation, reads_body);
        }
        if let Some(operation) = &mut item.delete {
            add::<ErrorBody>(operation, "415", "A browser sent it as a form");
        }
        for operation in [&mut item.post, &mut item.put, &mut item.patch].into_iter().flatten() {
            complete_operation(operation, true);
        }
    }
    document
}

/// Even a route that takes no fields reads a body, to refuse those it does not take.
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
    add::<ErrorBody>(operation, "431", "The request's head is too large");
    add::<ErrorBody>(operation, "500", "A fault of the server");
    add::<ErrorBody>(operation, "504", "The answer took too long; a write may still have happened");
    if operation.tags.iter().flatten().any(|tag| tag == "health") {
        add::<ErrorBody>(operation, "400", "A `Host` that is missing, sent twice or malformed");
        return;
    }
    if takes(operation, "before") {
        add::<ErrorBody>(
            operation,
            "400",
            "A cursor that is not one of this list or not alone, two different credentials, or no valid `Host`",
        );
    }
    if takes(operation, "skip") {
        describe_headers(operation, &[LINK]);
    }
    add::<ErrorBody>(
        operation,
        "400",
        "Two different credentials, a body that broke off, or no valid `Host`",
    );
    add::<ErrorBody>(operation, "403", "The API key may not do this, or not from this address");
    add::<ErrorBody>(operation, "429", "A rate limit is used up; see Retry-After");
    add::<ErrorBody>(
        operation,
        "503",
        "The database is unavailable for the moment, or too many large requests and answers are in flight; see Retry-After",
    );
    if let Some(alternatives) = &mut operation.security {
        let needs = |scheme| SecurityRequirement::new::<_, [&str; 0], &str>(scheme, []);
        if alternatives.contains(&needs("api_key")) {
            alternatives.push(needs("bearer"));
        }
        add::<ErrorBody>(operation, "401", "No credential, or none that is good");
        describe_headers(operation, &KEY_HEADERS);
    }
    let has_parameters = operation.parameters.iter().flatten().any(|parameter| match parameter {
        RefOr::T(parameter) => parameter.parameter_in != ParameterIn::Header,
        RefOr::Ref(_) => true,
    });
    if has_parameters || reads_body {
        add::<ValidationErrorBody>(operation, "422", "Fields that break their rules, all of them");
    }
    if reads_body {
        add::<ErrorBody>(operation, "408", "The body took too long to arrive");
        add::<ErrorBody>(operation, "413", "The body is too large");
        add::<ErrorBody>(
            operation,
            "415",
            "The body is not said to be JSON, or a browser sent it as a form",
        );
    }
}

/// What every answer to a key may have.
const KEY_HEADERS: [(&str, &str); 3] = [
    ("RateLimit", "What is left of the key's limit, where limits are on"),
    ("RateLimit-Policy", "The key's limit, where limits are on"),
    ("Octopus-API-Key-Expires", "Until when the key works, where another took its place"),
];

/// What an answer with a page of a list may have.
const LINK: (&str, &str) = (
    "Link",
    "The pages beside this one, where there are any: rel=\"next\" and rel=\"prev\" (RFC 8288)",
);

/// Whether it has a parameter of this `name`: `after` where a list can be read from a cursor on,
/// `skip` where it has pages at all.
fn takes(operation: &Operation, name: &str) -> bool {
    let mut parameters = operation.parameters.iter().flatten();
    parameters.any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.name == name))
}

/// Adds header fields to the answers of success.
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

/// Adds an answer, unless the route has its own words for it.
fn add<T: ToSchema>(operation: &mut Operation, status: &str, description: &str) {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build();
    let mut response =
        ResponseBuilder::new().description(description).content("application/json", body);
    if status == "401" {
        response = response.header("WWW-Authenticate", header("How to authenticate"));
    }
    if status == "429" {
        response = response
            .header("Retry-After", header("Whole seconds until the next request is allowed"))
            .header("RateLimit", header("What is left of the limit"))
            .header("RateLimit-Policy", header("The limit"));
    }
    let responses = &mut operation.responses.responses;
    responses.entry(status.to_owned()).or_insert_with(|| response.build().into());
}
