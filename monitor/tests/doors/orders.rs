//! What an operator orders, and who gets to hear of it.

use axum::http::StatusCode;
use hongbao_monitor::limits::ACTIONS_MAX;
use hongbao_proto::token::{Audience, Grant, TokenRefusal, Verifier};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::report::names::role;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::support::{Running, admin, secret, soon, surface};

fn verify(token: &str) -> Result<Grant, TokenRefusal> {
    Verifier::hs256(&secret(), Audience::Admin).verify(token)
}

#[tokio::test]
async fn a_change_of_qps_reaches_every_machine_and_the_timeline() {
    let running = Running::start().await;
    let (first, mut hears_first) = surface(StatusCode::OK).await;
    let (second, mut hears_second) = surface(StatusCode::OK).await;
    let _one = running.reports(role::MACHINE, "m1", Some(first), None).await;
    let _two = running.reports(role::MACHINE, "m2", Some(second), None).await;
    let before = unix_seconds();
    let (status, told) = running.post("/api/v1/control/qps", &admin(), &json!({ "qps": 5000, "in_seconds": 4 })).await;
    assert_eq!(status, 200, "{told}");
    let targets: Vec<&Value> = told["outcomes"].as_array().unwrap().iter().map(|outcome| &outcome["target"]).collect();
    assert_eq!(targets, ["machine/m1", "machine/m2"]);
    assert_eq!(
        told["outcomes"][0],
        json!({"target": "machine/m1", "ok": true, "status": 200, "body": {"done": true}, "error": null})
    );

    let one = soon("the first machine", hears_first.recv()).await.unwrap();
    let two = soon("the second machine", hears_second.recv()).await.unwrap();
    assert_eq!((one.path.as_str(), &one.body), ("/v1/qps", &two.body));
    assert_eq!(one.body["qps"], 5000);
    let at = one.body["at"].as_u64().unwrap();
    assert!((before + 4..=unix_seconds() + 5).contains(&at));
    // It is good for long enough, and for no longer.
    let Grant { subject, expires_at } = verify(&one.token).unwrap();
    assert!(subject.contains("mei"), "{subject}");
    assert!(expires_at <= unix_seconds() + 60, "{expires_at}");

    running.get_until("/api/v1/marks", |told| told["marks"].to_string().contains("mei")).await;
    let recorded = |told: &Value| told["marks"].to_string().contains("5000 requests a second, by mei");
    let told = running.get_until("/api/v1/runs/the-run/marks", recorded).await;
    assert!(told["marks"].to_string().contains(&format!("{at}000")), "{told}");
}

#[tokio::test]
async fn what_some_took_and_others_did_not_is_told_one_by_one() {
    let running = Running::start().await;
    let (good, _good) = surface(StatusCode::OK).await;
    let (bad, _bad) = surface(StatusCode::CONFLICT).await;
    // Bound and never listening: a connection is refused.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let _one = running.reports(role::MACHINE, "m1", Some(good), None).await;
    let _two = running.reports(role::MACHINE, "m2", Some(bad), None).await;
    let _three = running.reports(role::MACHINE, "m3", Some(gone), None).await;
    let _four = running.reports(role::MACHINE, "m4", None, None).await;
    let (status, told) = running.post("/api/v1/control/storm", &admin(), &json!({ "share": "30%" })).await;
    assert_eq!(status, 502, "{told}");
    let outcome = |index: usize| (&told["outcomes"][index]["ok"], &told["outcomes"][index]["status"]);
    assert_eq!(outcome(0), (&json!(true), &json!(200)));
    assert_eq!(outcome(1), (&json!(false), &json!(409)));
    assert_eq!(outcome(2), (&json!(false), &Value::Null));
    assert!(told["outcomes"][2]["error"].as_str().unwrap().contains("refused"), "{told}");
    assert!(told["outcomes"][3]["error"].as_str().unwrap().contains("no address"), "{told}");
}

#[tokio::test]
async fn no_reporter_can_have_an_administrators_token_sent_elsewhere() {
    let running = Running::start().await;
    let (address, mut hears) = surface(StatusCode::OK).await;
    // An address of this host, and not the one that the report came from.
    let other = std::net::SocketAddr::from(([127, 0, 0, 2], address.port()));
    let _machine = running.reports(role::MACHINE, "m1", Some(other), None).await;
    let _server = running.reports(role::SERVER, "s1", Some("192.0.2.1:80".parse().unwrap()), None).await;
    for (path, body) in
        [("/api/v1/control/qps", json!({ "qps": 1 })), ("/api/v1/control/announcements", json!({ "text": "x" }))]
    {
        let (status, told) = running.post(path, &admin(), &body).await;
        assert_eq!(status, 502);
        let error = told["outcomes"][0]["error"].as_str().unwrap();
        assert!(error.contains("--trust-control"), "{error}");
    }
    assert!(hears.try_recv().is_err(), "nothing was sent");
    let controls = running.good("/api/v1/controls").await;
    assert_eq!(controls["machines"][0]["control"], false);
    assert!(controls["servers"][0]["reason"].as_str().unwrap().contains("192.0.2.1"), "{controls}");
}

#[tokio::test]
async fn a_host_that_the_operator_has_named_is_trusted() {
    let running = Running::with(&["--trust-control", "127.0.0.2"]).await;
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _server = running.reports(role::SERVER, "s1", Some(address), None).await;
    let (_, heard) = tokio::join!(
        running
            .client
            .post(running.url("/api/v1/control/drain"))
            .bearer_auth(admin())
            .json(&json!({ "server": "s1" }))
            .send(),
        async {
            let (mut stream, _) = soon("the order", listener.accept()).await.unwrap();
            let mut bytes = [0; 512];
            let read = stream.read(&mut bytes).await.unwrap();
            String::from_utf8_lossy(&bytes[..read]).into_owned()
        }
    );
    assert!(heard.starts_with("POST /v1/drain"), "{heard}");
}

#[tokio::test]
async fn orders_for_servers_go_to_servers_as_they_were_given() {
    let running = Running::start().await;
    let (address, mut hears) = surface(StatusCode::CREATED).await;
    let (other, mut other_hears) = surface(StatusCode::ACCEPTED).await;
    let _server = running.reports(role::SERVER, "server-1", Some(address), None).await;
    let _other = running.reports(role::SERVER, "server-2", Some(other), None).await;
    let rain = json!({ "kind": "rain", "total": 40_000, "rate_per_second": 200, "min_fen": 1, "max_fen": 200 });
    let run =
        json!({ "count": 10, "rate_per_second": 1, "recipients": 2, "first_user": 1, "users": 9, "min_total_fen": 5 });
    for (path, body, sent_to, sent) in [
        ("campaigns?server=server-1", &rain, "/v1/campaigns", &rain),
        ("campaigns/stop?server=server-1", &json!({ "id": 7 }), "/v1/campaigns/7/stop", &json!({})),
        ("envelope-runs?server=server-1", &run, "/v1/envelope-runs", &run),
        (
            "announcements?server=server-1",
            &json!({ "text": "新年快乐" }),
            "/v1/announcements",
            &json!({ "text": "新年快乐" }),
        ),
        ("drain", &json!({ "server": "server-1" }), "/v1/drain", &json!({})),
    ] {
        let (status, told) = running.post(&format!("/api/v1/control/{path}"), &admin(), body).await;
        assert_eq!(status, 200, "{path}: {told}");
        let asked = soon(path, hears.recv()).await.unwrap();
        assert_eq!((asked.path.as_str(), &asked.body), (sent_to, sent), "{path}");
        assert!(verify(&asked.token).is_ok());
    }
    assert!(other_hears.try_recv().is_err(), "the other server was not meant");
    let (status, told) = running.post("/api/v1/control/announcements", &admin(), &json!({ "text": "all" })).await;
    assert_eq!((status, told["outcomes"].as_array().unwrap().len()), (200, 2));
}

#[tokio::test]
async fn orders_without_sense_or_receivers_are_refused_in_words() {
    let running = Running::start().await;
    for (path, body, status, words) in [
        ("qps", json!({ "qps": -1 }), 422, "qps"),
        ("qps", json!({ "qps": 1, "in_seconds": 0 }), 400, "in_seconds"),
        ("qps", json!({ "qps": 1, "in_seconds": 61 }), 400, "in_seconds"),
        ("qps", json!({ "qps": 1, "soon": true }), 422, "soon"),
        ("storm", json!({ "share": "101%" }), 400, "share"),
        ("storm", json!({ "share": 30 }), 422, "share"),
        ("campaigns", json!([]), 422, "map"),
        ("drain", json!({ "server": "server-9" }), 404, "server-9"),
        ("qps", json!({ "qps": 1 }), 503, "no machine"),
        ("announcements", json!({ "text": "x" }), 503, "no server"),
    ] {
        let (got, told) = running.post(&format!("/api/v1/control/{path}"), &admin(), &body).await;
        let message = told["error"]["message"].as_str().unwrap();
        assert!(got == status && message.contains(words), "{path} {body}: {got} {message}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let running = Running::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endless = axum::Router::new().fallback(|| async { vec![b'x'; 1 << 20] });
    tokio::spawn(async move { axum::serve(listener, endless).await });
    let _machine = running.reports(role::MACHINE, "m1", Some(address), None).await;
    let (status, told) = running.post("/api/v1/control/qps", &admin(), &json!({ "qps": 1 })).await;
    assert_eq!(status, 502);
    assert!(told["outcomes"][0]["error"].as_str().unwrap().contains("bytes"), "{told}");
}

#[tokio::test]
async fn a_silent_process_delays_an_order_briefly_and_few_wait() {
    let running = Running::start().await;
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _machine = running.reports(role::MACHINE, "m1", Some(silent.local_addr().unwrap()), None).await;
    let (token, order) = (admin(), json!({ "qps": 1 }));
    let mut orders: Vec<_> =
        (0..=ACTIONS_MAX).map(|_| Box::pin(running.post("/api/v1/control/qps", &token, &order))).collect();
    let mut refused = 0;
    while !orders.is_empty() {
        let ((status, told), _, rest) = soon("the orders", futures_util::future::select_all(orders)).await;
        orders = rest;
        match status {
            429 => refused += 1,
            502 => assert!(told["outcomes"][0]["error"].as_str().unwrap().contains("timed out"), "{told}"),
            other => panic!("{other}: {told}"),
        }
    }
    assert_eq!(refused, 1);
}
