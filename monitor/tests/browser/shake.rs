//! A person on the page, in a real Chromium: shakes, wins, sees it in the wallet; with keys as with
//! a finger, in two languages.

use hongbao_testing::browser::{Browser, Key};
use hongbao_testing::{Monitor, Server, soon};
use serde_json::{Value, json};
use tokio::runtime::Builder;

const ONLINE: &str = "document.getElementById('state').dataset.state === 'online'";

async fn text(page: &Browser, id: &str) -> String {
    let text = page.run(&format!("return document.getElementById('{id}').innerText")).await;
    text.as_str().unwrap().to_owned()
}

/// The page takes no shake within 200 ms of the last one.
async fn until_it_may_be_shaken_again(page: &Browser) {
    page.run("window.shaken = performance.now()").await;
    page.until("the pause between shakes", "performance.now() > window.shaken + 250").await;
}

async fn guest(page: &Browser) -> Value {
    page.run("return JSON.parse(sessionStorage.getItem('hongbao.guest')).user").await
}

/// With a finger, until it wins.
async fn win(page: &Browser) {
    loop {
        page.click("#shake").await;
        page.until("an answer", "!document.getElementById('shake').classList.contains('asking')").await;
        if page.run("return document.getElementById('answer').dataset.kind === 'won'").await == true {
            return;
        }
        until_it_may_be_shaken_again(page).await;
    }
}

async fn shake(monitor: &Monitor) {
    let page = Browser::start().await;
    page.size(390, 844).await;
    page.open(&monitor.url("/shake?lang=en")).await;
    page.until("to be let in", ONLINE).await;
    assert_eq!(text(&page, "state-words").await, "You are in");

    soon("a win", win(&page)).await;
    assert_eq!(text(&page, "answer").await, "You won ¥1.23!");
    page.until("the envelope to open", "document.getElementById('drop').classList.contains('open')").await;
    assert_eq!(text(&page, "drop-yuan").await, "¥1.23");
    page.until("the wallet", "document.getElementById('balance').textContent === '¥1.23'").await;
    assert!(text(&page, "movements").await.contains("Won in the rain"));

    // With a key, from anywhere.
    let shaken = page.run("return Number(document.getElementById('mine').textContent)").await;
    page.run("document.activeElement.blur()").await;
    until_it_may_be_shaken_again(&page).await;
    page.press(Key::Char(' ')).await;
    page.until("a shake by key", &format!("Number(document.getElementById('mine').textContent) > {shaken}")).await;

    // In Chinese, with all that is shown.
    page.click("#language").await;
    assert_eq!(text(&page, "state-words").await, "已进入");
    assert!(text(&page, "movements").await.contains("摇红包"));

    // Loaded anew it is the same guest.
    let before = guest(&page).await;
    page.open(&monitor.url("/shake?lang=en")).await;
    page.until("to be back", ONLINE).await;
    page.until("the wallet", "document.getElementById('balance').textContent !== '¥0.00'").await;
    assert_eq!(guest(&page).await, before);
    assert_eq!(page.problems().await, Vec::<String>::new());
    page.close().await;
}

#[test]
fn a_person_shakes_wins_and_has_it_in_the_wallet() {
    let monitor = Monitor::start();
    let server = Server::with(&["--monitor", &monitor.ingest.to_string()]);
    server.rain(5_000, 100, &json!({ "min_fen": 123, "max_fen": 123 }));
    monitor.knows_a_server();
    Builder::new_current_thread().enable_all().build().unwrap().block_on(shake(&monitor));
    monitor.get_until("/api/v1/books", |books| {
        books["prizes_received"].as_u64() >= Some(1) && books["residual_fen"] == 0 && books["residual_prizes"] == 0
    });
}
