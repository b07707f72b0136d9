//! The parts of an HTTP control surface that server, fleet machine and monitor share: bearer
//! authentication, errors as JSON, and serving until told to stop.
//!
//! Everything a stranger can make us hold is bounded here once: connections, header bytes and time,
//! body bytes, the time one request may take.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use hongbao_proto::token::Verifier;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_http::limit::RequestBodyLimitLayer;

/// Bytes that the body of a request may have.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes that the request line and the headers may have together.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Connections served at once where no response stays open; further ones wait in the listener's
/// backlog.
pub const CONNECTIONS_MAX: usize = 64;

/// From the end of a request's headers to the start of its response.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// For a request's headers to arrive, and for a kept-alive connection to send its next request.
pub const HEADER_DEADLINE: Duration = Duration::from_secs(30);

/// For running requests to end once [`serve`] was told to stop.
pub const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A peer that takes nothing of a response for this long is cut by the kernel, lest it pins what is
/// meant for it.
pub const STALLED_DEADLINE: Duration = Duration::from_secs(30);

/// Pause after a failed `accept`, which a lack of descriptors would otherwise turn into a busy
/// loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A refusal as its caller reads it: `{"error":{"code":"not_found","message":"..."}}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub status: StatusCode,
    /// Snake case, stable, for programs.
    pub code: &'static str,
    /// For people; its wording may change.
    pub message: String,
    /// When to ask again.
    pub retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after_seconds: None }
    }

    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }

    /// 400 `bad_request`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 404 `not_found`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 401 `unauthorized`; the response says which kind of authentication is expected.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 409 `conflict`.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 429 `too_many`.
    pub fn too_many(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", message)
    }

    /// 503 `unavailable`.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// 500 `internal`.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": { "code": self.code, "message": self.message } }));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"hongbao\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), "bad_request", rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), "bad_request", rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), "bad_request", rejection.body_text())
    }
}

/// `axum::Json` as an extractor whose rejection is an [`ApiError`].
#[derive(Debug, FromRequest)]
#[from_request(via(Json), rejection(ApiError))]
pub struct JsonBody<T>(pub T);

/// `axum::extract::Query` whose rejection is an [`ApiError`].
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub struct QueryParams<T>(pub T);

/// `axum::extract::Path` whose rejection is an [`ApiError`].
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub struct PathParam<T>(pub T);

/// Lets only callers with an administrator's bearer token (audience `hongbao-admin`: give a
/// verifier of that audience) reach the routes of `router`. Routes merged into the result
/// afterwards stay open.
pub fn require_admin(router: Router, verifier: Arc<Verifier>) -> Router {
    router.route_layer(middleware::from_fn_with_state(verifier, authenticate))
}

/// The token of an `Authorization: Bearer` header, where there is one.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn authenticate(State(verifier): State<Arc<Verifier>>, request: Request, next: Next) -> Response {
    match bearer(request.headers()).map(|token| verifier.verify(token)) {
        Some(Ok(_)) => next.run(request).await,
        Some(Err(error)) => ApiError::unauthorized(error.to_string()).into_response(),
        None => ApiError::unauthorized("a bearer token is required: `Authorization: Bearer ..`").into_response(),
    }
}

async fn within_deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no answer within {} s", REQUEST_DEADLINE.as_secs());
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message).into_response()
        }
    }
}

/// Serves `router` to at most `connections_max` at once until `shutdown` completes, then lets running
/// requests end for at most [`STOP_DEADLINE`].
///
/// Unknown paths and methods are answered with an [`ApiError`], whatever fallback the router had.
/// Handlers find their peer in `ConnectInfo<SocketAddr>`. A connection that a handler has taken
/// over (a WebSocket) counts no more against that: it is that handler's to bound.
pub async fn serve(
    connections_max: usize,
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = router
        .fallback(|| async { ApiError::not_found("no such path") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not know that method")
        })
        .layer(middleware::from_fn(within_deadline))
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE).max_buf_size(HEADER_BYTES_MAX);

    let stopping = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < connections_max => match accepted {
                Ok((stream, peer)) => {
                    if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(STALLED_DEADLINE)) {
                        tracing::warn!(event = "http_unbounded", %error, "a peer that takes nothing cannot be cut in time");
                    }
                    let router = TowerToHyperService::new(router.clone());
                    let service = hyper::service::service_fn(move |mut request| {
                        request.extensions_mut().insert(ConnectInfo(peer));
                        router.call(request)
                    });
                    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
                    let stopping = stopping.clone();
                    connections.spawn(async move {
                        let mut connection = std::pin::pin!(connection);
                        let ended = tokio::select! {
                            ended = &mut connection => ended,
                            () = stopping.cancelled() => {
                                connection.as_mut().graceful_shutdown();
                                connection.await
                            }
                        };
                        if let Err(error) = ended {
                            tracing::debug!(event = "http_peer_failed", %error, "http connection failed");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(event = "http_accept_failed", %error, "cannot accept an http connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    stopping.cancel();
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_DEADLINE, ended).await.is_err() {
        tracing::warn!(
            event = "http_cut",
            connections = connections.len(),
            "http connections cut at the stop deadline"
        );
    }
    Ok(())
}
