//! A body may take long to arrive: what was true of its sender may be true no more.

use crate::core::error::Result;
use futures_util::future::BoxFuture;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

/// What is asked once more when the body of a request has arrived; in its extensions.
#[derive(Clone)]
pub struct Recheck(Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>);

impl Recheck {
    /// Asks `question`.
    pub fn new<F: Future<Output = Result<()>> + Send + 'static>(
        question: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move || Box::pin(question())))
    }

    /// The answer.
    pub async fn ask(&self) -> Result<()> {
        (self.0)().await
    }
}

impl Debug for Recheck {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Recheck")
    }
}
