//! Extractors that check permissions: a handler declares the operation it performs in its
//! signature.

use super::access::Access;
use super::actor::{Actor, Caller};
use super::scope::Scope;
use super::session::SignedIn;
use crate::core::error::{Error, Result};
use crate::core::metrics::REFUSALS;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use std::marker::PhantomData;

/// An operation that requires a scope.
pub trait Permission {
    /// The required scope; `None` if any API key may perform the operation.
    const SCOPE: Option<Scope>;
    /// The operation in words, for the 403: "… scope required to {TO}".
    const TO: &'static str;
}

/// Declares operations, each with its required scope and its words for the 403:
/// `permissions! { ReadUsers: Scope::UsersRead, "read users" }`.
macro_rules! permissions {
    ($($visibility:vis $name:ident: $scope:expr, $to:literal),+ $(,)?) => {$(
        $visibility struct $name;

        impl $crate::security::permission::Permission for $name {
            const SCOPE: Option<$crate::security::scope::Scope> = Some($scope);
            const TO: &'static str = $to;
        }
    )+};
}
pub(crate) use permissions;

/// Any operation that every API key may perform, whatever its scopes.
#[derive(Debug)]
pub struct AnyKey;

impl Permission for AnyKey {
    const SCOPE: Option<Scope> = None;
    const TO: &'static str = "do this";
}

/// A caller with an API key that permits `P`. A handler with this extractor needs no other check; a
/// handler without such an extractor has no access to the [`Actor`].
#[derive(Debug)]
pub struct Allowed<P> {
    /// The caller.
    pub actor: Actor,
    permission: PhantomData<P>,
}

impl<P: Permission> Allowed<P> {
    /// Checks that `caller` has a key that permits `P`. Fails with 401 or 403.
    pub fn check(caller: &Caller) -> Result<Self> {
        let actor = match caller {
            Caller::Key(actor) => actor,
            // A session has no scopes.
            Caller::SignedIn(_) => return Err(refusal::<P>()),
            Caller::Anonymous(why) => return Err(Error::Unauthenticated(why)),
        };
        match P::SCOPE {
            Some(scope) if !actor.scopes().allow(scope) => {
                tracing::warn!(
                    target: "octopus::security",
                    event = "auth.scope_missing",
                    key_id = actor.key_id(),
                    client = %actor.ip(),
                    scope = scope.as_str(),
                    "API key lacks the required scope"
                );
                metrics::counter!(REFUSALS, "reason" => "scope_missing").increment(1);
                Err(refusal::<P>())
            }
            _ => Ok(Self { actor: actor.clone(), permission: PhantomData }),
        }
    }
}

impl<P: Permission> Allowed<P> {
    /// Returns whether the caller may also read the resources that `P` writes.
    pub fn may_read(&self) -> bool {
        may_read::<P>(&self.actor)
    }
}

/// Returns whether `actor` has the read scope that matches the write scope of `P`.
fn may_read<P: Permission>(actor: &Actor) -> bool {
    let read = P::SCOPE.and_then(Scope::matching_read);
    read.is_none_or(|read| actor.scopes().allow(read))
}

/// The error for a caller that is not permitted to perform `P`.
fn refusal<P: Permission>() -> Error {
    match P::SCOPE {
        Some(scope) => {
            let sentence = format!("{scope} scope required to {}", P::TO);
            Error::ScopeMissing { scope: scope.as_str(), sentence }
        }
        None => Error::Forbidden(format!("An API key is required to {}", P::TO).into()),
    }
}

/// A caller with an API key that permits `P`, or a signed-in user. Row-level visibility restricts a
/// user to the conversations they participate in.
#[derive(Debug)]
pub struct AllowedOrUser<P> {
    /// The caller.
    pub access: Access,
    permission: PhantomData<P>,
}

impl<P: Permission> AllowedOrUser<P> {
    /// Checks that `caller` has a key that permits `P`, or is signed in. Fails with 401 or 403.
    pub fn check(caller: &Caller) -> Result<Self> {
        let access = match caller {
            Caller::SignedIn(user) => Access::User(user.clone()),
            other => Access::Key(Allowed::<P>::check(other)?.actor),
        };
        Ok(Self { access, permission: PhantomData })
    }

    /// Returns whether the caller may also read the resources that `P` writes. Always true for a
    /// user: row-level visibility restricts reads and writes alike.
    pub fn may_read(&self) -> bool {
        match &self.access {
            Access::Key(actor) => may_read::<P>(actor),
            Access::User(_) => true,
        }
    }
}

fn caller(parts: &Parts) -> Result<&Caller> {
    let missing = || Error::Internal("the route has no authentication layer".into());
    parts.extensions.get::<Caller>().ok_or_else(missing)
}

impl<S: Send + Sync, P: Permission> FromRequestParts<S> for Allowed<P> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Self::check(caller(parts)?)
    }
}

impl<S: Send + Sync, P: Permission> FromRequestParts<S> for AllowedOrUser<P> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Self::check(caller(parts)?)
    }
}

/// Fails with 401 or 403 unless the caller is a signed-in user.
impl<S: Send + Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        match caller(parts)? {
            Caller::SignedIn(user) => Ok(user.clone()),
            Caller::Key(_) => Err(Error::Forbidden("A signed-in user is required".into())),
            Caller::Anonymous(why) => Err(Error::Unauthenticated(why)),
        }
    }
}
