//! The type in a handler's signature is its permission check.

use super::{Access, Actor, Caller, LoggedIn, Scope};
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
            // A session has no scopes.
            Caller::LoggedIn(_) => return Err(refusal::<P>()),
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
                Err(refusal::<P>())
            }
            _ => Ok(Self { actor: actor.clone(), proof: PhantomData }),
        }
    }
}

impl<P: Permission> Allowed<P> {
    /// Whether the caller may also read what `P` lets them write.
    pub fn may_read(&self) -> bool {
        may_read::<P>(&self.actor)
    }
}

/// Whether `actor` holds the scope that reads what `P` writes.
fn may_read<P: Permission>(actor: &Actor) -> bool {
    let read = P::SCOPE.and_then(Scope::matching_read);
    read.is_none_or(|read| actor.scopes().allow(read))
}

/// The refusal of a caller that does not hold `P`.
fn refusal<P: Permission>() -> Error {
    match P::SCOPE {
        Some(scope) => {
            let sentence = format!("{scope} scope required to {}", P::TO);
            Error::ScopeMissing { scope: scope.as_str(), sentence }
        }
        None => Error::Forbidden(format!("An API key is required to {}", P::TO).into()),
    }
}

/// The caller: the holder of a key, proven to hold `P`, or somebody logged in, who may reach their
/// own things only.
#[derive(Debug)]
pub struct AllowedOrUser<P> {
    /// Who it is.
    pub access: Access,
    proof: PhantomData<P>,
}

impl<P: Permission> AllowedOrUser<P> {
    /// Fails with 401 or 403 unless `caller` holds `P` or is logged in.
    pub fn check(caller: &Caller) -> Result<Self> {
        let access = match caller {
            Caller::LoggedIn(user) => Access::User(user.clone()),
            other => Access::Key(Allowed::<P>::check(other)?.actor),
        };
        Ok(Self { access, proof: PhantomData })
    }

    /// Whether the caller may also read what `P` lets them write. A user may: their reach bounds both.
    pub fn may_read(&self) -> bool {
        match &self.access {
            Access::Key(actor) => may_read::<P>(actor),
            Access::User(_) => true,
        }
    }
}

fn caller(parts: &Parts) -> Result<&Caller> {
    let missing = || Error::Internal("a protected route without authentication".into());
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

/// Fails with 401 or 403 unless somebody is logged in.
impl<S: Send + Sync> FromRequestParts<S> for LoggedIn {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        match caller(parts)? {
            Caller::LoggedIn(user) => Ok(user.clone()),
            Caller::Known(_) => Err(Error::Forbidden("A logged-in user is required".into())),
            Caller::Unknown(why) => Err(Error::Unauthenticated(why)),
        }
    }
}
