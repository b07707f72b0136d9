//! Operators: signing in and out, and whatever is refused.

use hongbao_monitor::limits::FAILED_TOKENS_BURST;
use hongbao_proto::token::Audience;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{Running, admin, soon, token};

#[tokio::test]
async fn an_operator_signs_in_by_token_and_stays_by_safe_cookie() {
    let running = Running::start().await;
    let nobody = running.good("/api/v1/session").await;
    assert_eq!(nobody, json!({ "operator": null, "expires_at": null }));

    let sign_in = running.client.post(running.url("/api/v1/session")).json(&json!({ "token": admin() }));
    let signed_in = sign_in.send().await.unwrap();
    assert_eq!(signed_in.status(), 200);
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["hongbao_operator=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    let told: Value = signed_in.json().await.unwrap();
    assert_eq!(told["operator"], "mei");
    assert!(!cookie.contains(&admin()[..20]), "the cookie is no token");

    let cookie = cookie.split(';').next().unwrap().to_owned();
    let ask = |method: Method| running.client.request(method, running.url("/api/v1/session")).header("cookie", &cookie);
    let known: Value = ask(Method::GET).send().await.unwrap().json().await.unwrap();
    assert_eq!(known, told);
    let bearer: Value = running
        .client
        .get(running.url("/api/v1/session"))
        .bearer_auth(admin())
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(bearer["operator"], "mei");

    let out = ask(Method::DELETE).send().await.unwrap();
    assert!(out.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    let gone: Value = ask(Method::GET).send().await.unwrap().json().await.unwrap();
    assert_eq!(gone["operator"], Value::Null);
}

#[tokio::test]
async fn a_session_ends_when_its_token_does() {
    let running = Running::start().await;
    let token = token("mei", Audience::Admin, 2);
    let sign_in = running.client.post(running.url("/api/v1/session")).json(&json!({ "token": token }));
    let signed_in = sign_in.send().await.unwrap();
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    soon("the session to end", async {
        loop {
            let asked = running.client.get(running.url("/api/v1/session")).header("cookie", &cookie).send();
            let who: Value = asked.await.unwrap().json().await.unwrap();
            if who["operator"] == Value::Null {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn wrong_tokens_are_refused_counted_and_soon_have_to_wait() {
    let running = Running::start().await;
    let sign_in = |token: String| running.client.post(running.url("/api/v1/session")).json(&json!({ "token": token }));
    let wrong = [
        String::new(),
        "garbage".into(),
        token("mei", Audience::Report, 600),
        token("m".repeat(65).as_str(), Audience::Admin, 600),
    ];
    let mut tried = 0;
    for token in wrong.iter().cycle().take(usize::try_from(FAILED_TOKENS_BURST).unwrap()) {
        assert_eq!(sign_in(token.clone()).send().await.unwrap().status(), 401);
        tried += 1;
    }
    assert_eq!(running.metric("requests_refused_total{kind=\"token\"}").await, tried);
    let throttled = sign_in("garbage".into()).send().await.unwrap();
    assert_eq!(throttled.status(), 429);
    assert!(throttled.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    // A right one need not wait: behind a proxy everybody has one address.
    assert_eq!(sign_in(admin()).send().await.unwrap().status(), 200);
    assert_eq!(running.metric("requests_refused_total{kind=\"throttled\"}").await, 1);
}

#[tokio::test]
async fn a_name_that_was_pointed_at_this_host_gets_nothing() {
    let running = Running::with(&["--http-name", "monitor.example"]).await;
    let port = running.http.port();
    let ask = |path: &str, host: String| running.client.get(running.url(path)).header("host", host).send();
    for host in ["127.0.0.1", "localhost", "monitor.example", "MONITOR.example"] {
        assert_eq!(ask("/api/v1/run", format!("{host}:{port}")).await.unwrap().status(), 200, "{host}");
    }
    for path in ["/", "/api/v1/run", "/api/v1/session", "/metrics", "/client.proto"] {
        for host in ["evil.example", "127.0.0.1.evil.example", "192.0.2.1"] {
            assert_eq!(ask(path, format!("{host}:{port}")).await.unwrap().status(), 421, "{path} {host}");
        }
    }
    assert_eq!(running.metric("requests_refused_total{kind=\"foreign_host\"}").await, 15);
}

#[tokio::test]
async fn changes_take_a_page_of_ours_json_and_an_operator() {
    let running = Running::start().await;
    let own = format!("http://127.0.0.1:{}", running.http.port());
    for path in ["/api/v1/session", "/api/v1/guests", "/api/v1/control/qps"] {
        let ask = || running.client.post(running.url(path)).bearer_auth(admin());
        let json = |request: reqwest::RequestBuilder| request.header("content-type", "application/json").body("{}");
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:1"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let refused = json(ask()).header(name, value).send().await.unwrap();
            assert_eq!(refused.status(), 403, "{path} {name}: {value}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
            let refused = ask().header("content-type", kind).body("{}").send().await.unwrap();
            assert_eq!(refused.status(), 415, "{path} {kind}");
        }
        let passed = json(ask()).header("origin", &own).header("sec-fetch-site", "same-origin").send().await.unwrap();
        assert!(![401, 403, 415].contains(&passed.status().as_u16()), "{path}: {}", passed.status());
    }
    assert_eq!(running.metric("requests_refused_total{kind=\"foreign_page\"}").await, 15);
    for order in ["qps", "storm", "campaigns", "campaigns/stop", "envelope-runs", "announcements", "drain"] {
        let path = format!("/api/v1/control/{order}");
        let refused = running.client.post(running.url(&path)).json(&json!({})).send().await.unwrap();
        assert_eq!(refused.status(), 401, "{order}");
    }
}

#[tokio::test]
async fn beyond_this_host_reading_takes_an_operator_without_guests() {
    let running = Running::with(&["--http", "0.0.0.0:0"]).await;
    for path in ["/api/v1/run", "/api/v1/controls", "/api/v1/books"] {
        let ask = || running.client.get(running.url(path));
        assert_eq!(ask().send().await.unwrap().status(), 401, "{path}");
        assert_eq!(ask().bearer_auth(admin()).send().await.unwrap().status(), 200, "{path}");
    }
    let sign_in = running.client.post(running.url("/api/v1/session")).json(&json!({ "token": admin() })).send();
    let cookie = sign_in.await.unwrap().headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let by_cookie = running.client.get(running.url("/api/v1/run")).header("cookie", cookie).send().await.unwrap();
    assert_eq!(by_cookie.status(), 200);
    let guest = running.client.post(running.url("/api/v1/guests")).json(&json!({})).send().await.unwrap();
    assert_eq!(guest.status(), 403);
    // What a page is made of is open: it asks for a token itself.
    assert_eq!(running.client.get(running.url("/client.proto")).send().await.unwrap().status(), 200);
}
