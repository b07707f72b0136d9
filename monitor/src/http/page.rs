//! The dashboard's page, its scripts and styles: parts of this program, so that they need no
//! network and no folder beside it.
//!
//! Nothing here is secret, so all of it is open; what it shows comes from the interface, which asks
//! who is there. A browser may keep the files but asks each time whether they still hold
//! (`no-cache`, a strong `ETag`), so that page and monitor are of one build.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::page::FILES;
use hongbao_telemetry::http::ApiError;

/// Scripts, styles, images and connections of our own origin only; no inline code, no frame around
/// us.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

/// What `/` and its like show, out of [`FILES`].
const PAGES: [(&str, &str); 2] = [("/", "index.html"), ("/shake", "shake.html")];

#[derive(Debug)]
struct File {
    kind: HeaderValue,
    plain: Body,
    gzip: Option<Body>,
}

#[derive(Debug)]
struct Body {
    bytes: bytes::Bytes,
    /// Strong, so that of each encoding.
    etag: HeaderValue,
}

type Files = Arc<HashMap<&'static str, File>>;

/// The routes of the page.
///
/// # Errors
/// If the files cannot be compressed, which takes only memory.
pub fn router() -> io::Result<Router> {
    let files: HashMap<&str, File> =
        FILES.iter().map(|&(path, bytes)| Ok((path, file(path, bytes)?))).collect::<io::Result<_>>()?;
    let mut router = Router::new().route("/page/{*path}", get(by_path));
    for (route, path) in PAGES {
        let shown = move |State(files): State<Files>, headers: HeaderMap| async move { serve(&files, path, &headers) };
        router = router.route(route, get(shown));
    }
    Ok(router.with_state(Arc::new(files)))
}

async fn by_path(State(files): State<Files>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    serve(&files, &path, &headers)
}

fn serve(files: &Files, path: &str, headers: &HeaderMap) -> Response {
    let Some(file) = files.get(path) else { return ApiError::not_found("the page has no such file").into_response() };
    let (body, encoding) = match &file.gzip {
        Some(body) if takes_gzip(headers) => (body, Some(HeaderValue::from_static("gzip"))),
        _ => (&file.plain, None),
    };
    let mut fixed = HeaderMap::from_iter([
        (ETAG, body.etag.clone()),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (VARY, HeaderValue::from_static("accept-encoding")),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ]);
    if is_known(headers, &body.etag) {
        return (StatusCode::NOT_MODIFIED, fixed).into_response();
    }
    fixed.insert(CONTENT_TYPE, file.kind.clone());
    if let Some(encoding) = encoding {
        fixed.insert(CONTENT_ENCODING, encoding);
    }
    (fixed, body.bytes.clone()).into_response()
}

fn file(path: &'static str, bytes: &'static [u8]) -> io::Result<File> {
    let kind = match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let digest = const_hex::encode(&Sha256::digest(bytes)[..12]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    let short = encoder.finish()?;
    let body = |bytes, etag: String| {
        let etag = HeaderValue::from_str(&etag).map_err(io::Error::other)?;
        Ok::<_, io::Error>(Body { bytes, etag })
    };
    let gzip = if short.len() < bytes.len() { Some(body(short.into(), format!("\"{digest}-gzip\""))?) } else { None };
    let plain = body(bytes::Bytes::from_static(bytes), format!("\"{digest}\""))?;
    Ok(File { kind: HeaderValue::from_static(kind), plain, gzip })
}

/// The parts of a header that is a list.
fn listed(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    listed(headers, ACCEPT_ENCODING).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = quality.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// `If-None-Match` compares weakly, whatever the tag is.
fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let etag = etag.to_str().unwrap_or_default();
    listed(headers, IF_NONE_MATCH).any(|known| known == "*" || known.trim_start_matches("W/") == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_given_only_to_those_who_take_it() {
        let takes = |value: &'static str| {
            takes_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        assert!(takes("gzip"));
        assert!(takes("br, GZIP;q=0.5"));
        assert!(!takes("gzip;q=0, br"));
        assert!(!takes("identity"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
