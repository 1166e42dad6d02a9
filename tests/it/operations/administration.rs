//! The operations of the server and of its administrators.

use super::{ADMIN, Row};
use crate::support::operations::Needs::{Nothing, Scope};

pub const OPERATIONS: &[Row] = &[
    Row::new("get", "/", Nothing, |w| w.anonymous("GET", "/")),
    Row::new("get", "/health", Nothing, |w| w.anonymous("GET", "/health")),
    Row::new("get", "/ready", Nothing, |w| w.anonymous("GET", "/ready")),
    Row::new("post", "/bootstrap", Nothing, |w| w.anonymous("POST", "/bootstrap")).may_fail(),
    Row::new("post", "/api/v1/admin", ADMIN, |w| w.key("POST", "/api/v1/admin")),
    Row::new("get", "/api/v1/admin/stats", ADMIN, |w| w.key("GET", "/api/v1/admin/stats")),
    Row::new("get", "/api/v1/audit/export", Scope("audit:read"), |w| {
        w.key("GET", "/api/v1/audit/export")
    }),
    Row::new("get", "/api/v1/admin/audit/verify", Scope("audit:read"), |w| {
        w.key("GET", "/api/v1/admin/audit/verify")
    }),
];

/// Files that are not in the OpenAPI document.
pub const FILES: &[Row] = &[
    Row::new("get", "/docs/{name}", Nothing, |w| w.anonymous("GET", "/docs/swagger-ui-bundle.js")),
    Row::new("get", "/openapi.json", Nothing, |w| w.anonymous("GET", "/openapi.json")),
];
