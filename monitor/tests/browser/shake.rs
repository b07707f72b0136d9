//! A person on the page, in a real Chromium: shakes, wins, sees it in the wallet; with keys as with
//! a finger, in two languages.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::monitor::Monitor;
use hongbao_testing::{PATIENCE, Server};

/// chromedriver, which ends with the test, and its browser with it.
struct Driver {
    child: Child,
    url: String,
}

impl Driver {
    fn start() -> Self {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed (Debian: chromium-driver)");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("chromedriver says its port").unwrap();
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        // It writes on, and must not find the pipe closed.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("http://127.0.0.1:{port}") }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn browser(driver: &Driver, profile: &std::path::Path) -> Client {
    let flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=390,844",
    ];
    let mut flags: Vec<String> = flags.into_iter().map(str::to_owned).collect();
    flags.push(format!("--user-data-dir={}", profile.display()));
    let wanted = json!({ "goog:chromeOptions": { "args": flags }, "goog:loggingPrefs": { "browser": "ALL" } });
    let Value::Object(wanted) = wanted else { unreachable!("an object was written") };
    ClientBuilder::new(HttpConnector::new()).capabilities(wanted).connect(&driver.url).await.unwrap()
}

async fn text(page: &Client, id: &str) -> String {
    page.find(Locator::Id(id)).await.unwrap().text().await.unwrap()
}

/// Looks with each frame that the page draws.
async fn until(page: &Client, what: &str, condition: &str) {
    let script = format!(
        "const done = arguments[arguments.length - 1];
        const look = () => {{ if ({condition}) done(true); else requestAnimationFrame(look); }};
        look();"
    );
    match tokio::time::timeout(PATIENCE, page.execute_async(&script, Vec::new())).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => panic!("{what}: {error}\n{}", page.source().await.unwrap()),
        Err(_) => panic!("not within {PATIENCE:?}: {what}\n{}", page.source().await.unwrap()),
    }
}

/// The page takes no shake within 200 ms of the last one.
async fn until_it_may_be_shaken_again(page: &Client) {
    page.execute("window.shaken = performance.now()", Vec::new()).await.unwrap();
    until(page, "the pause between shakes", "performance.now() > window.shaken + 250").await;
}

const ONLINE: &str = "document.getElementById('state').dataset.state === 'online'";
const WON: &str = "document.getElementById('answer').dataset.kind === 'won'";

#[test]
fn a_person_shakes_wins_and_has_it_in_the_wallet() {
    let monitor = Monitor::start();
    let server = Server::with(&["--monitor", &monitor.ingest.to_string()]);
    server.rain(5_000, 100, &json!({ "min_fen": 123, "max_fen": 123 }));
    monitor.hears_of_a_server();
    let driver = Driver::start();
    monitor.runtime.block_on(async {
        let page = browser(&driver, &monitor.home().join("profile")).await;
        page.goto(&format!("http://{}/shake?lang=en", monitor.http)).await.unwrap();
        until(&page, "to be let in", ONLINE).await;
        assert_eq!(text(&page, "state-words").await, "You are in");

        // With a finger, until it wins.
        let button = page.find(Locator::Id("shake")).await.unwrap();
        let shake_until_won = async {
            loop {
                button.click().await.unwrap();
                let answered = "!document.getElementById('shake').classList.contains('asking')";
                until(&page, "an answer", answered).await;
                if page.execute(&format!("return {WON}"), Vec::new()).await.unwrap() == json!(true) {
                    return;
                }
                until_it_may_be_shaken_again(&page).await;
            }
        };
        tokio::time::timeout(PATIENCE, shake_until_won).await.expect("a win within reason");
        assert_eq!(text(&page, "answer").await, "You won ¥1.23!");
        until(&page, "the envelope to open", "document.getElementById('drop').classList.contains('open')").await;
        assert_eq!(text(&page, "drop-yuan").await, "¥1.23");
        until(&page, "the wallet", "document.getElementById('balance').textContent === '¥1.23'").await;
        assert!(text(&page, "movements").await.contains("Won in the rain"));

        // With a key, from anywhere.
        let shaken =
            page.execute("return Number(document.getElementById('mine').textContent)", Vec::new()).await.unwrap();
        page.execute("document.activeElement.blur()", Vec::new()).await.unwrap();
        until_it_may_be_shaken_again(&page).await;
        let space =
            KeyActions::new("keys".into()).then(KeyAction::Down { value: ' ' }).then(KeyAction::Up { value: ' ' });
        page.perform_actions(space).await.unwrap();
        until(&page, "a shake by key", &format!("Number(document.getElementById('mine').textContent) > {shaken}"))
            .await;

        // In Chinese, with all that is shown.
        page.find(Locator::Id("language")).await.unwrap().click().await.unwrap();
        assert_eq!(text(&page, "state-words").await, "已进入");
        assert!(text(&page, "movements").await.contains("摇红包"));

        // Loaded anew it is the same guest.
        let guest =
            page.execute("return JSON.parse(sessionStorage.getItem('hongbao.guest')).user", Vec::new()).await.unwrap();
        page.refresh().await.unwrap();
        until(&page, "to be back", ONLINE).await;
        until(&page, "the wallet", "document.getElementById('balance').textContent !== '¥0.00'").await;
        let again =
            page.execute("return JSON.parse(sessionStorage.getItem('hongbao.guest')).user", Vec::new()).await.unwrap();
        assert_eq!(again, guest);
        assert_eq!(problems(&page, &driver).await, Vec::<String>::new());
        page.close().await.unwrap();
    });
    monitor.get_until("/api/v1/books", |books| {
        books["prizes_received"].as_u64() >= Some(1) && books["residual_fen"] == 0 && books["residual_prizes"] == 0
    });
}

/// What the browser's console complains of.
async fn problems(page: &Client, driver: &Driver) -> Vec<String> {
    let session = page.session_id().await.unwrap().unwrap();
    let url = format!("{}/session/{session}/se/log", driver.url);
    let asked = tokio::task::spawn_blocking(move || {
        reqwest::blocking::Client::new().post(url).json(&json!({ "type": "browser" })).send().unwrap().json::<Value>()
    });
    let log = asked.await.unwrap().unwrap();
    log["value"].as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
}
