//! The HTTP API: the routes of every feature, the middleware around them, and their documentation.
//!
//! The middleware, from outside to inside, with the function that adds it:
//!
//! 1. `surround`, for every route: `observe`, `panic`, `cors`, `compression`, `bound`,
//!    `conditional`
//! 2. `app`, for `/bootstrap` and below `/api/v1`: `authenticate`, `memory`, `parameters`
//! 3. `v1::routes`, below `/api/v1`: `forms`

mod docs;
mod docs_page;
mod health;
mod middleware;
mod openapi;
mod v1;

pub use openapi::document;

use crate::core::error::Error;
use crate::state::AppState;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::{from_fn, from_fn_with_state};
use middleware::parameters::{self, KnownParameters};
use middleware::{authenticate, bound, compression, conditional, cors, memory, observe, panic};
use tower::Layer;
use tower::util::{MapRequestLayer, option_layer};
use tower_http::catch_panic::CatchPanicLayer;

/// Builds the router of a server with `state`. In a tuple of layers, the first is the outermost.
pub fn app(state: &AppState) -> Router {
    let config = &state.config;
    let (v1, api) = v1::routes(&state.throttle, config.registration).split_for_parts();
    let limited = v1
        .fallback(async || Error::RouteNotFound)
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .layer((
            from_fn_with_state(state.clone(), authenticate::authenticate),
            from_fn_with_state(state.clone(), memory::bound),
            from_fn_with_state(
                (KnownParameters::of(&api), state.clone()),
                parameters::refuse_unknown,
            ),
        ));
    let (health, _) = health::routes().split_for_parts();
    let mut router = limited.merge(health);
    if config.docs_enabled {
        router = router.merge(docs::routes());
    }
    surround(router, state)
}

/// Adds the middleware that applies to every route.
fn surround(router: Router<AppState>, state: &AppState) -> Router {
    let router = router
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .layer((
            CatchPanicLayer::custom(panic::response),
            option_layer(cors::layer(&state.config.cors_allowed_origins)),
            compression::layer(),
            from_fn(compression::in_pieces),
            from_fn_with_state(state.clone(), bound::bound),
            from_fn(conditional::revalidate),
        ))
        .layer(from_fn_with_state(state.clone(), observe::observe))
        .with_state(state.clone());
    // Wraps the router, because a layer inside the router runs after the route is matched.
    Router::new().fallback_service(MapRequestLayer::new(without_trailing_slash).layer(router))
}

/// Removes trailing slashes from all paths but those of the documentation's files, so that `/users/`
/// and `/users` are the same route. A redirect is not used, because many clients drop the body of a redirected POST.
fn without_trailing_slash(mut request: Request) -> Request {
    let Some(target) = request.uri().path_and_query() else { return request };
    let path = target.path();
    let shorter = path.trim_end_matches('/');
    let is_file = path.starts_with("/docs/");
    if is_file || shorter.is_empty() || shorter.len() == path.len() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::clock::Clock;
    use crate::core::config::Config;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use std::collections::HashMap;
    use tower::ServiceExt;

    /// A server with a handler that panics and one that never returns.
    async fn faulty_app(folder: &tempfile::TempDir) -> (Router, AppState) {
        let file = format!("sqlite:///{}/test.db", folder.path().display());
        let variables = [("DATABASE_URL", file.as_str()), ("REQUEST_TIMEOUT_SECONDS", "1")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::from_variables(HashMap::from(variables)).unwrap();
        let state = AppState::open(config, Clock::default()).await.unwrap();
        let panicking = async || -> () { panic!("the secret is hunter2") };
        let endless = async || std::future::pending::<()>().await;
        let router = Router::new()
            .route("/panic", get(panicking).post(panicking))
            .route("/endless", get(endless).post(endless));
        (surround(router, &state), state)
    }

    async fn send(app: &Router, method: &str, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).header("host", "test");
        let request = request.body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert!(response.headers().contains_key("x-request-id"));
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_panic_is_a_500_without_details_also_in_a_spawned_task() {
        let folder = tempfile::tempdir().unwrap();
        let (app, _) = faulty_app(&folder).await;
        for method in ["GET", "POST"] {
            let expected = r#"{"detail":"Internal Server Error"}"#.to_owned();
            let response = send(&app, method, "/panic").await;
            assert_eq!(response, (StatusCode::INTERNAL_SERVER_ERROR, expected));
        }
    }

    #[tokio::test]
    async fn an_endless_handler_times_out_and_a_write_continues() {
        let folder = tempfile::tempdir().unwrap();
        let (app, state) = faulty_app(&folder).await;
        let (status, body) = send(&app, "GET", "/endless").await;
        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
        assert!(!body.contains("still have happened") && state.tasks.is_empty());
        let (status, body) = send(&app, "POST", "/endless").await;
        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
        assert!(body.contains("may still have happened"), "{body}");
        assert_eq!(state.tasks.len(), 1, "the write was cancelled");
    }
}
