//! A webhook receiver with configurable responses.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::sleep;

/// The secret that [`Receiver::variables`] sets.
pub const WEBHOOK_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Listens until the test ends.
pub struct Receiver {
    pub address: SocketAddr,
    url: String,
    inner: Arc<Inner>,
}

struct Inner {
    deliveries: Mutex<Vec<Delivery>>,
    replies: Mutex<VecDeque<Reply>>,
    otherwise: Mutex<Reply>,
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

/// A response of the receiver.
#[derive(Clone, Debug)]
pub enum Reply {
    Status(u16),
    With(u16, &'static str, String),
    /// 204 after a delay.
    After(Duration),
    /// No response.
    Hang,
}

impl Receiver {
    /// Starts a receiver that responds with 204.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            deliveries: Mutex::default(),
            replies: Mutex::default(),
            otherwise: Mutex::new(Reply::Status(204)),
        });
        let router = Router::new().fallback(take).with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, url: format!("http://{address}/take/hunter2?token=hunter2"), inner }
    }

    /// The settings of a server that delivers here, without rate limits and with a check for
    /// expired keys every second.
    pub fn variables(&self) -> [(&str, &str); 4] {
        [
            ("WEBHOOK_URL", &self.url),
            ("WEBHOOK_SECRET", WEBHOOK_SECRET),
            ("RATE_LIMIT_ENABLED", "false"),
            ("CLEANUP_INTERVAL_SECONDS", "1"),
        ]
    }

    /// Sets the responses to the next requests, in order.
    pub fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.inner.replies.lock().unwrap().extend(replies);
    }

    /// Sets the response to all other requests.
    pub fn always(&self, reply: Reply) {
        *self.inner.otherwise.lock().unwrap() = reply;
    }

    /// The requests received so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.inner.deliveries.lock().unwrap().clone()
    }

    /// Waits for exactly `n` requests and returns them.
    pub async fn wait_for(&self, n: usize) -> Vec<Delivery> {
        for _ in 0..400 {
            let deliveries = self.deliveries();
            if deliveries.len() >= n {
                assert_eq!(deliveries.len(), n, "{deliveries:#?}");
                return deliveries;
            }
            sleep(Duration::from_millis(25)).await;
        }
        panic!("expected {n} requests, received: {:#?}", self.deliveries());
    }

    /// Waits for several rounds of the delivery job, then asserts that exactly `n` requests came.
    pub async fn only(&self, n: usize) -> Vec<Delivery> {
        sleep(Duration::from_millis(1500)).await;
        self.wait_for(n).await
    }
}

impl Delivery {
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// Its webhook id.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }
}

async fn take(
    State(inner): State<Arc<Inner>>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    inner.deliveries.lock().unwrap().push(Delivery { path: uri.to_string(), headers, body });
    let planned = inner.replies.lock().unwrap().pop_front();
    let reply = planned.unwrap_or_else(|| inner.otherwise.lock().unwrap().clone());
    let status = |code| StatusCode::from_u16(code).unwrap();
    match reply {
        Reply::Status(code) => status(code).into_response(),
        Reply::With(code, name, value) => (status(code), [(name, value)]).into_response(),
        Reply::After(wait) => {
            sleep(wait).await;
            StatusCode::NO_CONTENT.into_response()
        }
        Reply::Hang => std::future::pending().await,
    }
}
