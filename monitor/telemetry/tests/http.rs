//! The shared HTTP parts on real sockets.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use hongbao_proto::token::{Audience, Secret, Signer, Verifier};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::http::{self, BODY_BYTES_MAX, CONNECTIONS_MAX, JsonBody};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

fn secret() -> Secret {
    Secret::from_text("0123456789abcdef0123456789abcdef").unwrap()
}

fn token(audience: Audience) -> String {
    Signer::new(&secret()).sign("test", audience, unix_seconds(), 60).unwrap()
}

fn router() -> Router {
    let admin = Router::new()
        .route("/admin", get(|| async { "secret" }))
        .route("/echo", post(|JsonBody(value): JsonBody<Value>| async move { axum::Json(value) }));
    let open = Router::new().route("/open", get(|| async { "open" }));
    http::require_admin(admin, Arc::new(Verifier::hs256(&secret(), Audience::Admin))).merge(open)
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(http::serve(CONNECTIONS_MAX, listener, router, pending()));
    address
}

#[tokio::test]
async fn only_an_administrators_token_opens_the_guarded_routes() {
    let address = serve(router()).await;
    let client = reqwest::Client::new();
    let ask = |header: Option<String>| {
        let request = client.get(format!("http://{address}/admin"));
        header.into_iter().fold(request, |request, header| request.header("authorization", header)).send()
    };
    for scheme in ["Bearer", "bearer"] {
        assert_eq!(ask(Some(format!("{scheme} {}", token(Audience::Admin)))).await.unwrap().status(), 200);
    }
    let refused = [
        None,
        Some("Bearer".to_owned()),
        Some("Bearer garbage".to_owned()),
        Some(format!("Basic {}", token(Audience::Admin))),
        Some(format!("Bearer {}", token(Audience::Report))),
    ];
    for header in refused {
        let response = ask(header.clone()).await.unwrap();
        assert_eq!(response.status(), 401, "{header:?}");
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "unauthorized");
    }
    assert_eq!(client.get(format!("http://{address}/open")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn bad_requests_get_json_and_long_bodies_are_not_read() {
    let address = serve(router()).await;
    let client = reqwest::Client::new();
    let post = |body: String| {
        let request = client.post(format!("http://{address}/echo")).bearer_auth(token(Audience::Admin));
        request.header("content-type", "application/json").body(body).send()
    };
    assert_eq!(post(r#"{"a":1}"#.into()).await.unwrap().json::<Value>().await.unwrap(), json!({"a": 1}));
    let response = post("{".into()).await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "bad_request");
    assert_eq!(post(format!("\"{}\"", "x".repeat(BODY_BYTES_MAX))).await.unwrap().status(), 413);
    let response = client.delete(format!("http://{address}/open")).send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "method_not_allowed");
}

#[tokio::test]
async fn endless_headers_are_refused() {
    let address = serve(router()).await;
    let request = reqwest::Client::new().get(format!("http://{address}/open"));
    let response = request.header("x-long", "x".repeat(2 * http::HEADER_BYTES_MAX)).send().await.unwrap();
    assert_eq!(response.status(), 431);
}

#[tokio::test]
async fn a_connection_beyond_the_bound_waits_until_another_ends() {
    let address = serve(router()).await;
    let mut idle = Vec::new();
    for _ in 0..http::CONNECTIONS_MAX {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut request = tokio::spawn(reqwest::get(format!("http://{address}/open")));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut request).await.is_err());
    idle.clear();
    let response = tokio::time::timeout(Duration::from_secs(10), request).await.unwrap().unwrap().unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_running_request_ends_before_the_server_does() {
    let (entered, is_entered) = oneshot::channel();
    let (release, is_released) = oneshot::channel::<()>();
    let slots = Arc::new(std::sync::Mutex::new(Some((entered, is_released))));
    let router = Router::new().route(
        "/slow",
        get(move || {
            let (entered, released) = slots.lock().unwrap().take().unwrap();
            async move {
                entered.send(()).unwrap();
                released.await.unwrap();
                "done"
            }
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(http::serve(CONNECTIONS_MAX, listener, router, async move { stopped.await.unwrap() }));
    let request = tokio::spawn(reqwest::get(format!("http://{address}/slow")));
    is_entered.await.unwrap();
    stop.send(()).unwrap();
    assert!(!server.is_finished());
    release.send(()).unwrap();
    assert_eq!(request.await.unwrap().unwrap().text().await.unwrap(), "done");
    tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap().unwrap();
}
