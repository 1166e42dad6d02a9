//! A minimal server with the same framework, which returns a fixed string, as the baseline of
//! `ci/bench.sh`. Its argument is the address to listen on.

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
