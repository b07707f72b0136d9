//! How the page's files are served, on a real socket.

use std::future::pending;
use std::io::Read;
use std::net::SocketAddr;

use flate2::read::GzDecoder;
use hongbao_monitor::http::page;
use hongbao_telemetry::http;
use reqwest::Response;
use reqwest::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use tokio::net::TcpListener;

async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(http::serve(http::CONNECTIONS_MAX, listener, page::router().unwrap(), pending()));
    address
}

async fn get(address: SocketAddr, path: &str, headers: &[(reqwest::header::HeaderName, &str)]) -> Response {
    let request = reqwest::Client::new().get(format!("http://{address}{path}"));
    headers.iter().fold(request, |request, (name, value)| request.header(name, *value)).send().await.unwrap()
}

fn header(response: &Response, name: reqwest::header::HeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn the_page_allows_only_what_comes_from_us() {
    let address = serve().await;
    let page = get(address, "/", &[]).await;
    assert_eq!((page.status().as_u16(), header(&page, CONTENT_TYPE)), (200, "text/html; charset=utf-8"));
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    assert_eq!(page.headers()["referrer-policy"], "no-referrer");
    let text = page.text().await.unwrap();
    // What the policy forbids would be missing without a word: an inline script or style, a file of
    // somebody else's.
    for forbidden in ["<style", " style=", "onclick=", "http://", "https://"] {
        assert!(!text.contains(forbidden), "{forbidden}");
    }
    assert!(
        !text.split("<script").skip(1).any(|tag| !tag.split('>').next().unwrap().contains("src=")),
        "inline script"
    );
}

#[tokio::test]
async fn every_file_that_the_page_asks_for_is_there_with_its_type() {
    let address = serve().await;
    let page = get(address, "/", &[]).await.text().await.unwrap();
    let mut asked = 0;
    for path in page.split('"').filter(|part| part.starts_with("/page/")) {
        let file = get(address, path, &[]).await;
        assert_eq!(file.status(), 200, "{path}");
        let kind = match path.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(header(&file, CONTENT_TYPE), kind, "{path}");
        asked += 1;
    }
    assert!(asked > 20, "{asked}");
}

#[tokio::test]
async fn a_file_that_a_browser_has_is_not_sent_again() {
    let address = serve().await;
    for encoding in ["identity", "gzip"] {
        let first = get(address, "/page/style.css", &[(ACCEPT_ENCODING, encoding)]).await;
        let tag = header(&first, ETAG).to_owned();
        assert!(tag.starts_with('"'), "{tag} is not strong");
        assert_eq!((header(&first, CACHE_CONTROL), header(&first, VARY)), ("no-cache", "accept-encoding"));
        let list = format!("\"other\", {tag}");
        let again = get(address, "/page/style.css", &[(ACCEPT_ENCODING, encoding), (IF_NONE_MATCH, &list)]).await;
        assert_eq!((again.status().as_u16(), header(&again, ETAG)), (304, &*tag));
        assert!(again.bytes().await.unwrap().is_empty());
        let changed =
            get(address, "/page/style.css", &[(ACCEPT_ENCODING, encoding), (IF_NONE_MATCH, "\"other\"")]).await;
        assert_eq!(changed.status(), 200);
    }
}

#[tokio::test]
async fn what_is_compressed_is_the_same_file_under_another_tag() {
    let address = serve().await;
    let plain = get(address, "/page/app/words.js", &[(ACCEPT_ENCODING, "identity")]).await;
    let short = get(address, "/page/app/words.js", &[(ACCEPT_ENCODING, "gzip")]).await;
    assert_eq!((header(&plain, CONTENT_ENCODING), header(&short, CONTENT_ENCODING)), ("", "gzip"));
    assert_ne!(header(&plain, ETAG), header(&short, ETAG));
    let (plain, short) = (plain.bytes().await.unwrap(), short.bytes().await.unwrap());
    assert!(short.len() < plain.len() / 2, "{} of {}", short.len(), plain.len());
    let mut text = Vec::new();
    GzDecoder::new(&*short).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain);
}

#[tokio::test]
async fn nothing_but_the_page_is_served() {
    let address = serve().await;
    for path in ["/page/", "/page/tests/words.test.js", "/page/..%2f..%2fCargo.toml", "/page/package.json", "/page/app"]
    {
        let response = get(address, path, &[]).await;
        assert_eq!(response.status(), 404, "{path}");
    }
}
