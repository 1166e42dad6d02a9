//! The least a server made with this framework does: answers a fixed string. `scripts/bench.sh`
//! compares with it. Its argument is the address to listen on.

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).expect("an address, such as 127.0.0.1:9000");
    let listener = TcpListener::bind(address).await.expect("a free port");
    let router = Router::new().route("/", get(async || "the same for everybody"));
    axum::serve(listener, router).await.expect("a server");
}
