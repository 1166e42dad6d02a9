//! The whole interface: every feature's routes, the layers around them, and their documentation.

mod health;
mod layers;
mod openapi;
mod v1;

use crate::core::config::{Config, Registration};
use crate::core::error::{Error, method_not_allowed};
use crate::security::throttle::Throttle;
use crate::state::AppState;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::{from_fn, from_fn_with_state};
use std::collections::HashMap;
use tower::Layer;
use tower::util::{MapRequestLayer, option_layer};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use utoipa::openapi::OpenApi;

/// The interface of a server with this `state`.
pub fn app(state: &AppState) -> Router {
    let config = &state.config;
    let (v1, _) = v1::routes(&state.throttle, config.registration).split_for_parts();
    let limited = v1
        .fallback(async || Error::NoRoute)
        .layer(from_fn_with_state(state.clone(), layers::authenticate));
    let (health, _) = health::routes().split_for_parts();
    let mut router = limited.merge(health);
    if config.docs_enabled {
        router = router.merge(openapi::docs(document()));
    }
    let router = router
        .method_not_allowed_fallback(async || method_not_allowed(None))
        .layer(from_fn_with_state(state.clone(), layers::detach))
        .layer(from_fn_with_state(state.clone(), layers::deadline))
        .layer(from_fn(layers::drain))
        .layer(from_fn(layers::head_limit))
        .layer(CompressionLayer::new())
        .layer(option_layer(layers::cors(&config.cors_allowed_origins)))
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(from_fn_with_state(state.clone(), layers::observe))
        .with_state(state.clone());
    // Around the router, not in it: a layer of a router runs when its route is found already.
    Router::new().fallback_service(MapRequestLayer::new(without_trailing_slash).layer(router))
}

/// The OpenAPI document, as `/openapi.json` gives it.
///
/// # Panics
/// Never: the default configuration has no problem.
pub fn document() -> OpenApi {
    let config = Config::from_variables(HashMap::new()).expect("the defaults are in order");
    let throttle = Throttle::new(&config.rate_limits);
    let (health, v1) = (health::routes(), v1::routes(&throttle, Registration::Open));
    let mut document = health.into_openapi();
    document.merge(v1.into_openapi());
    openapi::complete(document)
}

/// Below `/api/v1`, `/users` and `/users/` are the same: a redirect would lose the body of a POST
/// in many clients.
fn without_trailing_slash(mut request: Request) -> Request {
    let Some(target) = request.uri().path_and_query() else { return request };
    let path = target.path();
    let shorter = path.trim_end_matches('/');
    if !path.starts_with("/api/v1/") || shorter.len() == path.len() {
        return request;
    }
    let target = match target.query() {
        Some(query) => format!("{shorter}?{query}"),
        None => shorter.to_owned(),
    };
    let mut parts = request.uri().clone().into_parts();
    if let Ok(target) = target.parse() {
        parts.path_and_query = Some(target);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}
