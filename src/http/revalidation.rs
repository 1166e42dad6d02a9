//! Repeats authentication checks after a request body has arrived: it can take so long that the
//! credential is no longer valid.

use crate::core::error::Result;
use futures_util::future::BoxFuture;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

/// A check to repeat when the body has arrived. Stored in the request's extensions.
#[derive(Clone)]
pub struct Revalidation(Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>);

impl Revalidation {
    /// Creates a revalidation that runs `check`.
    pub fn new<F: Future<Output = Result<()>> + Send + 'static>(
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move || Box::pin(check())))
    }

    /// Runs the check. Fails as the check does.
    pub async fn ask(&self) -> Result<()> {
        (self.0)().await
    }
}

impl Debug for Revalidation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Revalidation")
    }
}
