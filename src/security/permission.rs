//! The type in a handler's signature is its permission check.

use super::{Actor, Caller, Scope};
use crate::core::error::{Error, Result};
use crate::core::metrics::REFUSALS;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use std::marker::PhantomData;

/// A deed some keys may not do.
pub trait Permission {
    /// The scope it takes; `None` where any key will do.
    const SCOPE: Option<Scope>;
    /// Its name in the 403, after "scope required to".
    const TO: &'static str;
}

/// Names deeds, each with the scope it takes and what a 403 calls it:
/// `permissions! { ReadItems: Scope::ItemsRead, "read items" }`.
macro_rules! permissions {
    ($($name:ident: $scope:expr, $to:literal),+ $(,)?) => {$(
        struct $name;

        impl $crate::security::Permission for $name {
            const SCOPE: Option<$crate::security::Scope> = Some($scope);
            const TO: &'static str = $to;
        }
    )+};
}
pub(crate) use permissions;

/// Anything a key may do whatever its scopes.
#[derive(Debug)]
pub struct AnyKey;

impl Permission for AnyKey {
    const SCOPE: Option<Scope> = None;
    const TO: &'static str = "do this";
}

/// The caller, proven to hold `P`. A handler that takes one needs no other check; a handler that
/// does not cannot reach an [`Actor`].
#[derive(Debug)]
pub struct Allowed<P> {
    /// Who it is.
    pub actor: Actor,
    proof: PhantomData<P>,
}

impl<P: Permission> Allowed<P> {
    /// Fails with 401 or 403 unless `caller` holds `P`.
    pub fn check(caller: &Caller) -> Result<Self> {
        let actor = match caller {
            Caller::Known(actor) => actor,
            Caller::Unknown(why) => return Err(Error::Unauthenticated(why)),
        };
        match P::SCOPE {
            Some(scope) if !actor.scopes().allow(scope) => {
                tracing::warn!(
                    target: "octopus::security",
                    event = "auth.scope_missing",
                    key_id = actor.key_id(),
                    client = %actor.ip(),
                    scope = scope.as_str(),
                    "a key lacks the scope for what it asked"
                );
                metrics::counter!(REFUSALS, "reason" => "scope_missing").increment(1);
                let sentence = format!("{scope} scope required to {}", P::TO);
                Err(Error::ScopeMissing { scope: scope.as_str(), sentence })
            }
            _ => Ok(Self { actor: actor.clone(), proof: PhantomData }),
        }
    }
}

impl<S: Send + Sync, P: Permission> FromRequestParts<S> for Allowed<P> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let missing = || Error::Internal("a protected route without authentication".into());
        Self::check(parts.extensions.get::<Caller>().ok_or_else(missing)?)
    }
}
