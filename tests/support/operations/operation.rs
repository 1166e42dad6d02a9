//! What the checks must know about an operation.

use super::Callers;
use crate::support::Call;
use octopus::security::Scope as ApiScope;
use serde_json::Value;
use std::collections::BTreeMap;

/// The credential that an operation requires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Needs {
    Nothing,
    AnyKey,
    /// A key with this scope, or with one that includes it.
    Scope(&'static str),
    /// A key as above, or a signed-in user.
    ScopeOrUser(&'static str),
    /// A signed-in user; no key is accepted.
    User,
}

impl Needs {
    /// The scope that a key needs.
    pub fn scope(self) -> Option<&'static str> {
        match self {
            Self::Scope(scope) | Self::ScopeOrUser(scope) => Some(scope),
            Self::Nothing | Self::AnyKey | Self::User => None,
        }
    }
}

/// The ids of resources, by the name of their path parameter.
pub type Ids = BTreeMap<&'static str, Value>;

/// An operation whose most expensive request needs only [`Callers`].
pub type Operation = OperationOf<Callers>;

/// An operation. `W` has the server and the ids for its most expensive request.
pub struct OperationOf<W> {
    /// In lower case.
    pub method: &'static str,
    /// The path in the OpenAPI document, or of a static file.
    pub path: &'static str,
    pub needs: Needs,
    /// The most expensive valid request: the longest fields, the largest page, and the most
    /// expensive characters.
    pub worst: fn(&W) -> Call,
    /// Whether that request may be refused after its work or have no effect.
    pub may_fail: bool,
    /// For an operation with a `*:write` scope: valid bodies, of which null is none. Without them
    /// it is called without a body.
    pub bodies: Option<fn(&Ids) -> Vec<Value>>,
}

impl<W> OperationOf<W> {
    pub const fn new(
        method: &'static str,
        path: &'static str,
        needs: Needs,
        worst: fn(&W) -> Call,
    ) -> Self {
        Self { method, path, needs, worst, may_fail: false, bodies: None }
    }

    /// Allows the most expensive request to be refused.
    pub const fn may_fail(mut self) -> Self {
        self.may_fail = true;
        self
    }

    /// Sets the bodies of a write.
    pub const fn bodies(mut self, bodies: fn(&Ids) -> Vec<Value>) -> Self {
        self.bodies = Some(bodies);
        self
    }

    /// Its method and path.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The resource that it writes, if it requires a `*:write` scope: `items` for `items:write`.
    pub fn written(&self) -> Option<&'static str> {
        self.needs.scope()?.strip_suffix(":write")
    }
}

/// The names of all scopes.
pub fn scopes() -> Vec<&'static str> {
    let scopes: Vec<_> = ApiScope::ALL.iter().copied().map(ApiScope::as_str).collect();
    assert!(scopes.len() > 2 && scopes.contains(&"admin"), "{scopes:?}");
    scopes
}
