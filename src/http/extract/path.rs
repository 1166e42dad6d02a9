//! Path parameters. Errors name the invalid parameter.

use super::fields::Fields;
use super::params::integer;
use crate::core::error::{Error, Result};
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

/// A type that a path parameter can have.
pub trait PathValue: Sized + Send {
    /// Parses `text`; on failure, adds a problem with parameter `name` to `fields`.
    fn read(name: &str, text: &str, fields: &mut Fields) -> Option<Self>;
}

/// Ids: positive 64-bit integers.
impl PathValue for i64 {
    fn read(name: &str, text: &str, fields: &mut Fields) -> Option<Self> {
        integer(name, text, 1..=i64::MAX, fields)
    }
}

/// The parameters of a path, in order: `Path<i64>` or `Path<(i64, i64)>`. Fails with 422.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// The types that [`Path`] can hold.
pub trait PathValues: Sized {
    /// Parses the parameters, given as pairs of name and text.
    fn read(params: &[(&str, &str)], fields: &mut Fields) -> Option<Self>;
}

impl<T: PathValue> PathValues for T {
    fn read(params: &[(&str, &str)], fields: &mut Fields) -> Option<Self> {
        let [(name, text)] = params else { return None };
        T::read(name, text, fields)
    }
}

impl<A: PathValue, B: PathValue> PathValues for (A, B) {
    fn read(params: &[(&str, &str)], fields: &mut Fields) -> Option<Self> {
        let [a, b] = params else { return None };
        let (a, b) = (A::read(a.0, a.1, fields), B::read(b.0, b.1, fields));
        Some((a?, b?))
    }
}

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: PathValues,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        // No resource has a path that is not UTF-8.
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Error::RouteNotFound)?;
        let pairs: Vec<_> = params.iter().collect();
        let mut fields = Fields::new("path");
        let values = T::read(&pairs, &mut fields);
        fields.finish()?;
        values.map(Self).ok_or_else(|| Error::Internal("unexpected path parameters".into()))
    }
}
