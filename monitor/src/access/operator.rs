//! Who asks: an operator by token or session, or anybody; and whether a browser asks on its own
//! page's behalf.
//!
//! A browser is the operator's, but the page in it may be a stranger's. So whatever changes
//! something must be JSON from a page of ours (`Origin`, `Sec-Fetch-Site`), the cookie is
//! `SameSite=Strict` and says nothing but a number that only this process knows (browsers send it
//! to every port of this host), and where we listen on loopback the name that was asked for must be
//! one of loopback: a stranger's name that has been pointed here (DNS rebinding) is not.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use hongbao_proto::token::{Grant, Verifier};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::access::rate_limit::{Rate, RateLimit};
use crate::limits::{
    FAILED_TOKENS_BURST, FAILED_TOKENS_INTERVAL_MS, OPERATOR_BYTES_MAX, PEERS_REMEMBERED_MAX, SESSIONS_MAX,
};
use hongbao_telemetry::clock::{monotonic_millis, unix_seconds};
use hongbao_telemetry::http::{ApiError, JsonBody, bearer};
use hongbao_telemetry::lock::locked;
use hongbao_telemetry::report::Key;

const SESSION_COOKIE: &str = "hongbao_operator";

/// An operator behind a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// The subject of the token.
    #[serde(rename = "operator")]
    pub name: String,
    /// When the token expires, and the session with it; Unix seconds.
    pub expires_at: u64,
}

/// What was refused, since the start.
#[derive(Debug, Default)]
struct Refusals {
    tokens: AtomicU64,
    throttled: AtomicU64,
    foreign_host: AtomicU64,
    foreign_page: AtomicU64,
}

/// Sessions, and what decides over a request.
#[derive(Debug)]
pub struct Access {
    verifier: Verifier,
    on_loopback: bool,
    /// Names besides those of loopback under which we may be asked for, lower case.
    names: Vec<String>,
    /// By the cookie's value.
    sessions: Mutex<HashMap<String, Operator>>,
    failed_tokens: Mutex<RateLimit>,
    refusals: Refusals,
}

impl Access {
    /// `verifier` is of the audience `hongbao-admin`; `http`: the address that is listened on;
    /// `names`: hosts by which we may be asked for there.
    pub fn new(verifier: Verifier, http: SocketAddr, names: &[String]) -> Self {
        Self {
            verifier,
            on_loopback: http.ip().is_loopback(),
            names: names.iter().map(|name| name.to_ascii_lowercase()).collect(),
            sessions: Mutex::default(),
            failed_tokens: Mutex::new(RateLimit::new(
                Rate { burst: FAILED_TOKENS_BURST, interval_ms: FAILED_TOKENS_INTERVAL_MS },
                PEERS_REMEMBERED_MAX,
            )),
            refusals: Refusals::default(),
        }
    }

    /// What was refused so far, for `/metrics`.
    pub fn counters(&self) -> Vec<(Key, u64)> {
        let refused = |kind| Key::labelled("requests_refused", "kind", kind, "Requests over HTTP turned away, by kind");
        let Refusals { tokens, throttled, foreign_host, foreign_page } = &self.refusals;
        let counts = [
            ("token", tokens),
            ("throttled", throttled),
            ("foreign_host", foreign_host),
            ("foreign_page", foreign_page),
        ];
        counts.into_iter().map(|(kind, count)| (refused(kind), count.load(Ordering::Relaxed))).collect()
    }

    /// Whether this name may be ours.
    fn knows(&self, host: Option<&str>) -> bool {
        let Some(host) = host else { return false };
        let name = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let literal = name.parse::<IpAddr>();
        if self.names.contains(&name) {
            return true;
        }
        if self.on_loopback {
            return literal.map_or(name == "localhost" || name.ends_with(".localhost"), |ip| ip.is_loopback());
        }
        // Where no names were given, those are not known by which others see us; a token is needed
        // there for everything.
        self.names.is_empty() || literal.is_ok()
    }

    fn by_token(&self, peer: IpAddr, token: &str) -> Result<Operator, ApiError> {
        match self.verifier.verify(token) {
            Ok(Grant { subject, expires_at }) if subject.len() <= OPERATOR_BYTES_MAX => {
                Ok(Operator { name: subject, expires_at })
            }
            outcome => {
                // A good token is let in whatever others tried from the same address: behind a
                // proxy everybody has one.
                if let Err(wait_ms) = locked(&self.failed_tokens).take(peer, monotonic_millis()) {
                    self.refusals.throttled.fetch_add(1, Ordering::Relaxed);
                    return Err(too_many("too many wrong tokens came from this address", wait_ms));
                }
                self.refusals.tokens.fetch_add(1, Ordering::Relaxed);
                let reason = outcome.err().map_or_else(
                    || format!("the token's subject has more than {OPERATOR_BYTES_MAX} bytes"),
                    |error| error.to_string(),
                );
                tracing::info!(event = "operator_refused", %peer, reason, "an operator's token was refused");
                Err(ApiError::unauthorized(reason))
            }
        }
    }

    fn by_cookie(&self, headers: &HeaderMap) -> Option<Operator> {
        let session = cookie(headers)?;
        let mut sessions = locked(&self.sessions);
        let operator = sessions.get(session)?.clone();
        if operator.expires_at <= unix_seconds() {
            sessions.remove(session);
            return None;
        }
        Some(operator)
    }

    /// Who asks, where it is an operator. A token counts before a session.
    fn who(&self, peer: IpAddr, headers: &HeaderMap) -> Result<Option<Operator>, ApiError> {
        match bearer(headers) {
            Some(token) => self.by_token(peer, token).map(Some),
            None => Ok(self.by_cookie(headers)),
        }
    }

    fn begin(&self, operator: Operator) -> Result<String, ApiError> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(|error| ApiError::internal(format!("no randomness: {error}")))?;
        let session = const_hex::encode(bytes);
        let mut sessions = locked(&self.sessions);
        // One that has expired makes room, or else the one that would expire first: whoever signs
        // in has a good token.
        while sessions.len() >= SESSIONS_MAX {
            let first = sessions.iter().min_by_key(|(_, operator)| operator.expires_at);
            let Some(first) = first.map(|(session, _)| session.clone()) else { break };
            sessions.remove(&first);
        }
        sessions.insert(session.clone(), operator);
        Ok(session)
    }

    fn refuse_foreign_page(&self, why: &str) -> ApiError {
        self.refusals.foreign_page.fetch_add(1, Ordering::Relaxed);
        ApiError::new(StatusCode::FORBIDDEN, "foreign_page", why)
    }

    /// Whether a browser asks for a page of ours; programs do not say, and need a token of their
    /// own.
    ///
    /// # Errors
    /// 403 `foreign_page`.
    pub fn own_page(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if let Some(site) = headers.get("sec-fetch-site")
            && site != "same-origin"
            && site != "none"
        {
            return Err(self.refuse_foreign_page("a page of another site may not ask for this"));
        }
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let ours = origin.to_str().ok().and_then(|origin| {
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))?;
            // A proxy may ask for us under another name than the browser asked it for.
            let named = authority.parse::<Authority>().ok()?.host().to_ascii_lowercase();
            Some(self.names.contains(&named) || host?.eq_ignore_ascii_case(authority))
        });
        if ours == Some(true) {
            Ok(())
        } else {
            Err(self.refuse_foreign_page("a page of another origin may not ask for this"))
        }
    }
}

/// 429 with the time after which to try again.
pub fn too_many(message: &str, wait_ms: u64) -> ApiError {
    ApiError::too_many(message).retry_after(wait_ms.div_ceil(1_000))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == SESSION_COOKIE).then_some(value))
}

/// Has every request name a host that is ours. Goes round everything, pages included.
pub fn for_known_hosts(router: Router, access: &Arc<Access>) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::clone(access), host_is_known))
}

async fn host_is_known(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    if access.knows(named.as_ref().map(Authority::host)) {
        return next.run(request).await;
    }
    access.refusals.foreign_host.fetch_add(1, Ordering::Relaxed);
    let message = "this monitor does not answer to that name; start it with --http-name NAME if it should";
    ApiError::new(StatusCode::MISDIRECTED_REQUEST, "foreign_host", message).into_response()
}

/// Routes that only read: open where we listen on loopback, an operator's elsewhere.
pub fn for_readers(router: Router, access: &Arc<Access>) -> Router {
    if access.on_loopback { router } else { for_operators(router, access) }
}

/// Routes that an operator alone may use. Handlers find who it is in `Extension<Operator>`.
pub fn for_operators(router: Router, access: &Arc<Access>) -> Router {
    router.route_layer(middleware::from_fn_with_state(Arc::clone(access), operator_only))
}

async fn operator_only(
    State(access): State<Arc<Access>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let message = "an operator is needed: sign in on the page, or `Authorization: Bearer TOKEN`";
    let operator = access.who(peer.ip(), request.headers())?.ok_or_else(|| ApiError::unauthorized(message))?;
    request.extensions_mut().insert(operator);
    Ok(next.run(request).await)
}

/// Has everything that is not a mere question come as JSON, and from a page of ours where a browser
/// sends it.
pub fn for_own_pages(router: Router, access: &Arc<Access>) -> Router {
    router.route_layer(middleware::from_fn_with_state(Arc::clone(access), page_is_ours))
}

async fn page_is_ours(State(access): State<Arc<Access>>, request: Request, next: Next) -> Result<Response, ApiError> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(next.run(request).await);
    }
    access.own_page(request.headers())?;
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split_once(';').map_or(kind, |(kind, _)| kind).trim();
    if *request.method() == Method::POST && !kind.eq_ignore_ascii_case("application/json") {
        let message = "the body must be sent as content-type: application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_request", message));
    }
    Ok(next.run(request).await)
}

/// The routes of the session.
pub fn router(access: &Arc<Access>) -> Router {
    let session = axum::routing::get(who).post(sign_in).delete(sign_out);
    for_own_pages(Router::new().route("/api/v1/session", session).with_state(Arc::clone(access)), access)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    token: String,
}

async fn sign_in(
    State(access): State<Arc<Access>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    JsonBody(SignIn { token }): JsonBody<SignIn>,
) -> Result<impl IntoResponse, ApiError> {
    let operator = access.by_token(peer.ip(), token.trim())?;
    if let Some(older) = cookie(&headers) {
        locked(&access.sessions).remove(older);
    }
    let lasts = operator.expires_at.saturating_sub(unix_seconds());
    let session = access.begin(operator.clone())?;
    tracing::info!(event = "operator_signed_in", operator = operator.name, "signed in");
    Ok((with_cookie(&headers, &session, lasts), Json(operator)))
}

async fn who(
    State(access): State<Arc<Access>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(access.who(peer.ip(), &headers)?.map_or_else(nobody, |operator| json!(operator))))
}

async fn sign_out(State(access): State<Arc<Access>>, headers: HeaderMap) -> impl IntoResponse {
    if let Some(session) = cookie(&headers) {
        locked(&access.sessions).remove(session);
    }
    (with_cookie(&headers, "", 0), Json(nobody()))
}

fn nobody() -> Value {
    json!({ "operator": null, "expires_at": null })
}

/// `Secure` where the page came over TLS, which a proxy in front of us speaks. Over plain HTTP no
/// browser would send such a cookie back.
fn with_cookie(asked: &HeaderMap, session: &str, lasts_seconds: u64) -> HeaderMap {
    let is_secure = asked.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie =
        format!("{SESSION_COOKIE}={session}; Path=/; Max-Age={lasts_seconds}; HttpOnly; SameSite=Strict{secure}");
    // Hexadecimal digits and numbers are good in a header.
    HeaderMap::from_iter(HeaderValue::try_from(cookie).ok().map(|value| (SET_COOKIE, value)))
}

#[cfg(test)]
mod tests {
    use hongbao_proto::token::{Audience, Secret, Signer};

    use super::*;

    fn access(http: &str, names: &[&str]) -> Access {
        let secret = Secret::from_text("0123456789abcdef0123456789abcdef").unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Access::new(Verifier::hs256(&secret, Audience::Admin), http.parse().unwrap(), &names)
    }

    #[test]
    fn on_loopback_only_names_of_loopback_and_those_given_are_ours() {
        let access = access("127.0.0.1:80", &["Monitor.example"]);
        for ours in ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "monitor.example"] {
            assert!(access.knows(Some(ours)), "{ours}");
        }
        for strange in [Some("evil.example"), Some("192.0.2.1"), Some("localhost.evil.example"), Some(""), None] {
            assert!(!access.knows(strange), "{strange:?}");
        }
    }

    #[test]
    fn elsewhere_any_name_is_ours_until_names_are_given() {
        assert!(access("0.0.0.0:80", &[]).knows(Some("monitor.example")));
        let named = access("0.0.0.0:80", &["monitor.example"]);
        assert!(named.knows(Some("monitor.example")) && named.knows(Some("192.0.2.1")));
        assert!(!named.knows(Some("evil.example")));
    }

    #[test]
    fn a_page_is_ours_only_under_the_very_name_that_was_asked_for() {
        let access = access("127.0.0.1:80", &[]);
        let asks = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            access.own_page(&pairs.collect()).is_ok()
        };
        assert!(asks(&[("host", "127.0.0.1:80")]), "a program");
        assert!(asks(&[
            ("host", "127.0.0.1:80"),
            ("origin", "http://127.0.0.1:80"),
            ("sec-fetch-site", "same-origin")
        ]));
        for strange in ["http://127.0.0.1:81", "http://localhost:80", "null", "http://evil.example", "file://", ""] {
            assert!(!asks(&[("host", "127.0.0.1:80"), ("origin", strange)]), "{strange}");
        }
        for site in ["cross-site", "same-site"] {
            assert!(!asks(&[("host", "127.0.0.1:80"), ("sec-fetch-site", site)]), "{site}");
        }
        assert_eq!(access.counters().iter().map(|(_, count)| count).sum::<u64>(), 8);
    }

    #[test]
    fn behind_a_proxy_a_page_of_a_given_name_is_ours() {
        let access = access("127.0.0.1:80", &["dash.example"]);
        let asks = |host: &'static str, origin: &'static str| {
            let pairs = [(HOST, HeaderValue::from_static(host)), (ORIGIN, HeaderValue::from_static(origin))];
            access.own_page(&HeaderMap::from_iter(pairs)).is_ok()
        };
        for host in ["127.0.0.1:80", "127.0.0.1", "dash.example", "dash.example:443"] {
            assert!(asks(host, "https://dash.example"), "{host}");
            assert!(asks(host, "https://DASH.example:8443"), "{host}");
            assert!(!asks(host, "https://evil.example"), "{host}");
        }
    }

    #[test]
    fn a_session_of_a_page_over_tls_stays_on_tls() {
        let cookie = |origin: &'static str| {
            let asked = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
            with_cookie(&asked, "x", 60)[SET_COOKIE].to_str().unwrap().to_owned()
        };
        assert!(cookie("https://dash.example").ends_with("; Secure"));
        assert!(!cookie("http://127.0.0.1:7404").contains("Secure"));
    }

    #[test]
    fn a_good_token_is_let_in_whatever_others_tried() {
        let access = access("127.0.0.1:80", &[]);
        let secret = Secret::from_text("0123456789abcdef0123456789abcdef").unwrap();
        let good = Signer::new(&secret).sign("me", Audience::Admin, unix_seconds(), 60).unwrap();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let status = |token: &str| {
            let outcome = access.by_token(peer, token).map_err(|refused| refused.into_response().status());
            outcome.map_or_else(|status| status, |_| StatusCode::OK)
        };
        let wrong: Vec<StatusCode> = (0..FAILED_TOKENS_BURST + 1).map(|_| status("wrong")).collect();
        assert!(wrong[..wrong.len() - 1].iter().all(|status| *status == StatusCode::UNAUTHORIZED));
        assert_eq!(wrong.last(), Some(&StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(status(&good), StatusCode::OK);
    }

    #[test]
    fn sessions_are_bounded_and_the_first_to_expire_makes_room() {
        let access = access("127.0.0.1:80", &[]);
        let operator = |expires_at| Operator { name: "me".into(), expires_at };
        let last = access.begin(operator(u64::MAX)).unwrap();
        let first = access.begin(operator(1)).unwrap();
        for number in 0..SESSIONS_MAX as u64 {
            access.begin(operator(2 + number)).unwrap();
            assert!(locked(&access.sessions).len() <= SESSIONS_MAX);
        }
        let sessions = locked(&access.sessions);
        assert!(sessions.contains_key(&last) && !sessions.contains_key(&first));
    }
}
