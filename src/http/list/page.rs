//! A page of a list, as the response to a request.

use super::link::Link;
use crate::http::response::json_list::JsonList;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// The entries of a page, in response order. Responds with a JSON array.
#[derive(Debug)]
pub struct ListPage<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// Links to the next and the previous page.
    pub link: Link,
}

impl<T: Serialize + Send + 'static> IntoResponse for ListPage<T> {
    fn into_response(self) -> Response {
        (self.link, JsonList(self.entries)).into_response()
    }
}
