//! The page in a real Chromium, driven by WebDriver, over the real programs: what a person sees is
//! what was recorded, and all of it can be reached.
//!
//! Needs `chromium` and `chromedriver`; without them these tests fail, for a page that nobody has
//! looked at is not tested.

mod shake;

use hongbao_proto::token::Audience;
use hongbao_testing::browser::{Browser, Key};
use hongbao_testing::{Fleet, Monitor, Server, sign};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A page that is connected, and its monitor, to which nobody reports.
async fn live_page() -> (Monitor, Browser) {
    let (monitor, browser) = (Monitor::start(), Browser::start().await);
    browser.open(&monitor.url("/")).await;
    browser.until("the page to be connected", CONNECTED).await;
    (monitor, browser)
}

/// The same with an hour of figures on it.
async fn page_of_an_hour() -> (Monitor, Browser) {
    let (monitor, browser) = live_page().await;
    show_an_hour(&browser).await;
    (monitor, browser)
}

async fn show_an_hour(browser: &Browser) {
    // What the monitor has comes first: it would take the place of the hour.
    browser.until("the monitor's own seconds to be there", CONNECTED).await;
    browser.run(AN_HOUR).await;
    browser.until("all of it to be drawn", "document.getElementById('redraw').dataset.rows === '3600'").await;
}

const LIVE: &str = "document.getElementById('state').dataset.is === 'live'";
const CONNECTED: &str = "['live', 'empty'].includes(document.getElementById('state').dataset.is)";

/// A figure of the page back to the number that it tells, and by how much that may be off because
/// it was rounded for reading.
fn number(text: &str) -> (f64, f64) {
    let (figure, unit) = text.split_once('\u{a0}').unwrap_or((text, ""));
    let plain: String =
        figure.replace('−', "-").chars().filter(|c| c.is_ascii_digit() || matches!(c, '.' | '-')).collect();
    let scale = match unit {
        "" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        other => panic!("unit {other:?} of {text:?}"),
    };
    let decimals = plain.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let value: f64 = plain.parse().unwrap_or_else(|_| panic!("{text:?} is no figure"));
    let off = if decimals == 0 && matches!(unit, "" | "µs") {
        0.0
    } else {
        0.5 / 10f64.powi(i32::try_from(decimals).unwrap())
    };
    // Half of the last digit, and a little for what a float cannot hold.
    (value * scale, off * scale * 1.001)
}

/// Fails unless a text of the page is a recorded value, or a dash where nothing was measured: no
/// latency is recorded as 0 in a second without answers.
fn assert_tells(what: &str, text: &str, recorded: Option<&str>) {
    if text == "–" {
        let nothing = recorded.is_none() || (what.starts_with("latency_") && recorded == Some("0"));
        return assert!(nothing, "{what}: the page has no figure, recorded is {recorded:?}");
    }
    let recorded = recorded.unwrap_or_else(|| panic!("{what}: the page says {text:?}, nothing is recorded"));
    let recorded: f64 = recorded.parse().unwrap_or_else(|_| panic!("{what} is recorded as {recorded:?}"));
    let (told, off) = number(text);
    assert!((told - recorded).abs() <= off, "{what}: the page says {text:?}, recorded is {recorded}");
}

#[tokio::test]
async fn the_numbers_on_the_page_are_those_recorded() {
    let mut monitor = Monitor::start();
    let mut server = Server::with(&["--monitor", &monitor.ingest.to_string()]);
    let flags = ["--users", "120", "--phases", "60x600s", "--rain", "20:1-200"];
    let mut fleet = Fleet::start(&server, Some(&monitor), &flags);
    let browser = Browser::start().await;
    browser.open(&monitor.url("/")).await;
    browser.until("the fleet's answers", "hongbao.store.get('answered', hongbao.store.length - 3) > 0").await;
    browser.until("the page to be live", LIVE).await;
    browser.until("charts", "document.querySelectorAll('[data-chart=rates] .uplot').length === 1").await;

    // Paused, the top line and the side tell the same second, and go on telling it.
    browser.press(Key::Char('p')).await;
    browser.until("the pause", "document.getElementById('state').dataset.is === 'paused'").await;
    let read = "const text = (id) => document.getElementById(id).textContent;
        const column = (name) => document.querySelector(`#side [data-column=${name}]`).textContent;
        const side = ['users_online', 'planned', 'sent', 'received', 'answered', 'won', 'latency_p50_us', 'latency_p99_us', 'send_lag_p99_us'];
        return {
            second: document.getElementById('side-title').dataset.second,
            glance: Object.fromEntries(['users', 'sent', 'answered', 'p99', 'won'].map((key) => [key, text(`figure-${key}`)])),
            side: Object.fromEntries(side.map((name) => [name, column(name)])),
        }";
    let paused = browser.run(read).await;
    let last = browser.run("return hongbao.store.until").await.as_u64().unwrap();
    browser.until("data to go on being collected", &format!("hongbao.store.until >= {last} + 2")).await;
    assert_eq!(browser.run(read).await, paused);

    // The second under the pointer.
    browser.hover("[data-chart=rates] .u-over", 0.7).await;
    browser.until("the hovered second", "hongbao.view.hover !== null").await;
    browser.frame().await;
    let hovered = browser.run(read).await;
    assert_ne!(hovered["second"], paused["second"]);
    // A step back by keyboard.
    browser.focus(".strip").await;
    browser.press(Key::Left).await;
    browser.frame().await;
    let stepped = browser.run(read).await;

    let problems = browser.problems().await;
    fleet.process.stop();
    server.signal(Signal::SIGTERM);
    server.exit_code();
    monitor.process.stop();
    browser.until("the end of the run", "document.getElementById('state').dataset.is === 'ended'").await;
    browser.close().await;

    let recorded = rusqlite::Connection::open(monitor.record().join("run.sqlite")).unwrap();
    let of = |second: &Value, name: &str| -> Option<String> {
        let figure = format!("SELECT CAST({name} AS TEXT) FROM seconds WHERE second = {second}");
        recorded.query_row(&figure, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{name} of {second}: {error}"))
    };
    for (key, column) in [
        ("users", "users_online"),
        ("sent", "sent"),
        ("answered", "answered"),
        ("p99", "latency_p99_us"),
        ("won", "won"),
    ] {
        assert_tells(key, paused["glance"][key].as_str().unwrap(), of(&paused["second"], column).as_deref());
    }
    for seen in [&paused, &hovered, &stepped] {
        for (column, text) in seen["side"].as_object().unwrap() {
            assert_tells(column, text.as_str().unwrap(), of(&seen["second"], column).as_deref());
        }
    }
    assert!(of(&paused["second"], "answered").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(problems, Vec::<String>::new());
}

/// An hour as the interface would tell it.
const AN_HOUR: &str = "
    const seconds = Array.from({ length: 3600 }, (_, at) => 1_800_000_000 + at);
    const wave = (of, size) => seconds.map((_, at) => Math.round(size * (1 + Math.sin(at / of) / 2 + (at * 7919 % 101) / 400)));
    const columns = { second: seconds, complete: seconds.map(() => 1) };
    for (const name of ['users_online', 'users_goal', 'connections']) columns[name] = wave(900, 1_000_000);
    for (const name of ['planned', 'sent', 'received', 'answered', 'issued', 'won', 'overloaded', 'refused', 'disconnects']) columns[name] = wave(77, 60_000);
    for (const name of ['latency_p50_us', 'latency_p99_us', 'latency_p999_us', 'latency_max_us', 'send_lag_p50_us', 'send_lag_p99_us', 'send_lag_max_us', 'ledger_commit_p50_us', 'ledger_commit_p99_us']) columns[name] = wave(33, 20_000);
    for (const name of ['server_cpu_us', 'fleet_cpu_us', 'server_resident_bytes', 'fleet_resident_bytes', 'open_descriptors', 'descriptors_limit']) columns[name] = wave(50, 900_000);
    for (const name of ['residual_prizes', 'residual_fen', 'residual_units', 'residual_sale_fen', 'residual_shares', 'residual_share_fen']) columns[name] = seconds.map(() => 0);
    const reasons = { ended: {}, answers: {} };
    for (const name of ['closed', 'reset', 'idle', 'slow']) reasons.ended[name] = wave(20, 40);
    for (const name of ['won', 'none_now', 'overloaded']) reasons.answers[name] = wave(20, 20_000);
    const bounds_us = Array.from({ length: 21 }, (_, at) => 100 * 10 ** (at / 4));
    const counts = seconds.map((_, at) => Array.from({ length: 22 }, (_, bucket) => Math.max(0, 9 - Math.abs(bucket - 9 - (at % 5))) * 500));
    hongbao.store.clear();
    hongbao.store.load({ run: 'hour', every: 1, columns, reasons, heat: { bounds_us, latency: counts, send_lag: counts } });
    hongbao.follow(0);";

#[tokio::test]
async fn an_hour_of_data_is_drawn_anew_with_each_second() {
    let (_monitor, browser) = page_of_an_hour().await;
    // As each second does: a row more, everything that is in sight drawn anew.
    let took = browser
        .wait_for(
            "const took = [];
            const row = (second) => ({ columns: Object.fromEntries(Object.keys(hongbao.store.columns).map((name) => [name, name === 'second' ? second : hongbao.store.get(name, hongbao.store.length - 1)])), reasons: {}, heat: { latency: hongbao.store.heat.latency.at(-1) } });
            const again = () => {
                if (took.length === 20) return done(took);
                hongbao.store.append(row(hongbao.store.until + 1));
                hongbao.draw();
                requestAnimationFrame(() => requestAnimationFrame(() => { took.push(hongbao.redraws.at(-1)); again(); }));
            };
            again();",
        )
        .await;
    let mut took: Vec<f64> = took.as_array().unwrap().iter().map(|ms| ms.as_f64().unwrap()).collect();
    took.sort_by(f64::total_cmp);
    println!("a redraw of an hour: median {:.1} ms, longest {:.1} ms", took[10], took[19]);
    assert_eq!(browser.run("return hongbao.store.length").await, 3_620);
    assert_eq!(browser.problems().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn the_page_fits_every_screen_from_a_phone_on() {
    let (monitor, browser) = live_page().await;
    let paint = browser
        .run("return performance.getEntriesByType('paint').find((entry) => entry.name === 'first-contentful-paint').startTime")
        .await
        .as_f64()
        .unwrap();
    println!("first contentful paint: {paint:.0} ms");
    show_an_hour(&browser).await;
    for (width, height) in [(360, 740), (390, 844), (768, 1_024), (1_024, 768), (1_440, 900)] {
        browser.size(width, height).await;
        for path in ["/", "/?lang=zh", "/?view=runs"] {
            browser.open(&monitor.url(path)).await;
            browser
                .until("words", "document.title.length > 0 && document.querySelectorAll('.top nav a').length === 3")
                .await;
            browser.frame().await;
            let wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]").await;
            assert!(wide[0].as_u64() <= wide[1].as_u64(), "{path} at {width}: {wide}");
        }
    }
    assert_eq!(browser.problems().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn everything_can_be_reached_and_done_by_keyboard() {
    let (_monitor, browser) = page_of_an_hour().await;

    browser.run("hongbao.sets.take({ 'server-1': { connections: [1, 2, 3, 4], queue_depth: [0, 0, 0, 0] } })").await;

    // The first stop skips what is the same on every page; then all that can be used follows, each
    // with a name and a visible focus.
    let mut stops = Vec::new();
    let focused = "const one = document.activeElement;
        const style = getComputedStyle(one);
        const name = one.getAttribute('aria-label') || (one.getAttribute('aria-labelledby') ?? '').split(' ').map((id) => document.getElementById(id)?.textContent ?? '').join(' ').trim() || one.textContent.trim() || one.title;
        return { what: one.id || one.className || one.tagName, name, ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2, end: one === document.body }";
    for _ in 0..200 {
        browser.press(Key::Tab).await;
        let stop = browser.run(focused).await;
        if stop["end"] == true {
            break;
        }
        assert_ne!(stop["name"], "", "{stop} has no name");
        assert_eq!(stop["ring"], true, "{stop} does not show that it has the focus");
        stops.push(stop["what"].as_str().unwrap().to_owned());
    }
    assert_eq!(stops[0], "skip");
    for wanted in
        ["operator", "language", "theme", "pause", "copy", "help", "events", "strip", "second-back", "grid", "sort"]
    {
        assert!(stops.iter().any(|stop| stop == wanted), "{wanted} is not among {stops:?}");
    }

    let view = "return [hongbao.view.following, hongbao.view.window, hongbao.view.second]";
    browser.run("document.activeElement.blur()").await;
    browser.press(Key::Char('2')).await;
    assert_eq!(browser.run(view).await, json!([true, 300, null]));
    browser.press(Key::Char(' ')).await;
    assert_eq!(browser.run(view).await[0], false);
    browser.press(Key::Left).await;
    browser.press(Key::Left).await;
    assert_eq!(browser.run(view).await[2], 1_800_003_597_u64);
    browser.press(Key::Char('+')).await;
    let zoomed = browser.run("return hongbao.view.fixed[1] - hongbao.view.fixed[0]").await.as_u64().unwrap();
    assert!(zoomed < 200, "{zoomed}");
    browser.press(Key::Escape).await;
    assert_eq!(browser.run(view).await, json!([true, 300, null]));

    // A dialog keeps the focus, and gives it back.
    browser.focus("#operator").await;
    browser.press(Key::Enter).await;
    browser.until("the dialog", "document.querySelector('dialog[open]')").await;
    for _ in 0..12 {
        browser.press(Key::Tab).await;
        let inside = "return document.activeElement === document.body || !!document.activeElement.closest('dialog')";
        assert_eq!(browser.run(inside).await, true, "the focus left the dialog");
    }
    browser.press(Key::Escape).await;
    browser.until("the dialog to be gone", "!document.querySelector('dialog')").await;
    assert_eq!(browser.run("return document.activeElement.id").await, "operator");
    assert_eq!(browser.problems().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_link_reproduces_the_view_in_either_language_and_theme() {
    let (monitor, browser) = live_page().await;
    let seen = "return [document.documentElement.lang, document.querySelector('nav a').textContent, getComputedStyle(document.body).backgroundColor]";
    let english = browser.run(seen).await;
    assert_eq!((&english[0], &english[1]), (&json!("en"), &json!("Live")));

    browser.press(Key::Char('l')).await;
    browser.press(Key::Char('t')).await;
    let chinese = browser.run(seen).await;
    assert_eq!((&chinese[0], &chinese[1]), (&json!("zh-Hans"), &json!("实时")));
    assert_ne!(english[2], chinese[2], "the other theme has another ground");
    // No word is left in the other language.
    let untold = browser.run("return [...document.querySelectorAll('[data-t]')].filter((node) => /[a-z]{4}/.test(node.textContent) && !node.closest('[hidden]')).map((node) => node.textContent)").await;
    assert_eq!(untold, json!([]));
    // Both are remembered.
    browser.open(&monitor.url("/")).await;
    assert_eq!(browser.run(seen).await, chinese);

    show_an_hour(&browser).await;
    browser.run("hongbao.zoom(1_800_000_600, 1_800_000_900); hongbao.sets.choose('stock')").await;
    let link = browser.run("return hongbao.address()").await.as_str().unwrap().to_owned();
    for part in ["from=1800000600", "until=1800000900", "set=stock", "lang=zh", "theme=dark"] {
        assert!(link.contains(part), "{part} is not in {link}");
    }
    browser.run("localStorage.clear()").await;
    browser.open(&link).await;
    assert_eq!(browser.run(seen).await, chinese);
    let view = browser.run("return [hongbao.view.fixed, hongbao.state.set]").await;
    assert_eq!(view, json!([[1_800_000_600, 1_800_000_900], "stock"]));
    browser.close().await;
}

#[tokio::test]
async fn a_report_opens_from_a_disk_without_a_monitor() {
    let (recording, out) =
        (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/recording"), tempfile::tempdir().unwrap());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hongbao-monitor"));
    assert!(command.args(["report", recording, "--out"]).arg(out.path()).output().unwrap().status.success());
    let browser = Browser::start().await;
    browser.open(&format!("file://{}/report.html", out.path().display())).await;
    // Charts out of sight are not drawn.
    let in_sight = "(document.querySelector('[data-chart=rates]').scrollIntoView(), true)";
    browser.until("the cards", in_sight).await;
    browser.until("charts", "document.querySelectorAll('[data-chart=rates] .uplot').length === 1").await;
    let shown = "return [hongbao.store.length, document.querySelectorAll('.pictures img').length,
        document.querySelectorAll('#machines tbody tr').length, document.querySelector('.verdict').dataset.state]";
    assert_eq!(browser.run(shown).await, json!([30, 15, 2, "ok"]));
    assert_eq!(browser.problems().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_stretch_chosen_by_dragging_is_shown_by_all_charts() {
    let (_monitor, browser) = page_of_an_hour().await;
    browser.drag("[data-chart=rates] .u-over", 0.25, 0.5).await;
    browser.until("the zoom", "!hongbao.view.following").await;
    browser.frame().await;
    let shown = "return hongbao.charts.cards.filter((card) => card.plot && card.visible).map((card) => [card.plot.scales.x.min, card.plot.scales.x.max])";
    let spans = browser.run(shown).await;
    let spans = spans.as_array().unwrap();
    assert!(spans.len() > 1 && spans.iter().all(|span| *span == spans[0]), "{spans:?}");
    let length = spans[0][1].as_u64().unwrap() - spans[0][0].as_u64().unwrap();
    assert!((850..=950).contains(&length), "a quarter of an hour, not {length} s");
    browser.drag(".strip", 0.5, 0.6).await;
    browser.until("another stretch", "hongbao.view.fixed[0] > 1800001700 && hongbao.view.fixed[1] < 1800002300").await;
    browser.click("#reset").await;
    browser.until("the way back", "hongbao.view.following").await;
    assert_eq!(browser.problems().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn beyond_loopback_the_page_asks_who_is_there_before_it_acts() {
    let monitor = Monitor::with(&["--http", "0.0.0.0:0"]);
    let _server = Server::with(&["--monitor", &monitor.ingest.to_string()]);
    let browser = Browser::start().await;
    browser.open(&monitor.url("/")).await;
    browser
        .until("the gate", "!document.getElementById('gate').hidden && document.getElementById('main').hidden")
        .await;
    browser.write("#gate input", "not a token").await;
    browser.press(Key::Enter).await;
    browser.until("the refusal", "!document.querySelector('#gate .problem').hidden").await;
    let token = sign("nora", Audience::Admin);
    browser.write("#gate input", &token).await;
    browser.press(Key::Enter).await;
    browser.until("the page behind the gate", LIVE).await;
    browser.until("the server to report", "hongbao.machines.sources.length === 1").await;
    browser.until("the controls", "document.querySelectorAll('#controls button').length === 7").await;
    assert_eq!(browser.run("return document.getElementById('operator-name').textContent").await, "nora");
    let kept = browser.run("return JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href, document.body.innerHTML])").await;
    assert!(!kept.as_str().unwrap().contains(&token), "the page keeps the token");

    let said = "return document.querySelector('dialog .says').textContent";
    browser.click("[data-control=announce]").await;
    browser.write("dialog textarea", "early tea").await;
    browser.click("dialog button.primary").await;
    browser.until("the question", "document.querySelector('dialog .says.strong')").await;
    assert!(browser.run(said).await.as_str().unwrap().contains("“early tea”"));
    // Whoever thinks better of it loses nothing, and nothing has happened.
    browser.click("dialog footer button:first-child").await;
    assert_eq!(browser.run("return document.querySelector('dialog textarea').value").await, "early tea");
    assert_eq!(browser.run("return document.querySelectorAll('#events [data-kind=announcement]').length").await, 0);
    browser.click("dialog button.primary").await;
    browser.until("the question again", "document.querySelector('dialog .says.strong')").await;
    browser.click("dialog button.primary").await;
    browser.until("the outcome", "document.querySelector('dialog .outcome')").await;
    let outcome = browser.run("return document.querySelector('dialog .outcome').innerText").await;
    assert!(outcome.as_str().unwrap().contains("server-1"), "{outcome}");
    assert_eq!(browser.run("return document.querySelectorAll('dialog [data-state=ok]').length").await, 1, "{outcome}");
    browser.until("its mark", "/nora/.test(document.getElementById('events').innerText)").await;
    browser.click("dialog footer button").await;

    // What is running is proposed and listed.
    browser.click("[data-control=stop]").await;
    let list = "document.querySelector('dialog select')?.innerText";
    browser.until("the list of campaigns", &format!("{list} === 'no campaign is open or scheduled'")).await;
    browser.press(Key::Escape).await;
    // A click on one's own name asks; only the button in it leaves.
    browser.click("#operator").await;
    browser.until("who is logged in", "document.querySelector('dialog .leave')").await;
    assert_eq!(browser.run("return document.getElementById('operator-name').textContent").await, "nora");
    browser.click("dialog .leave").await;
    browser.until("nobody to be", "document.getElementById('controls').hidden").await;
    browser.close().await;
}

#[tokio::test]
async fn every_tab_of_a_browser_is_live_however_many() {
    let (monitor, browser) = live_page().await;
    // Over HTTP/1.1 a browser has six connections to a host.
    for number in 2..=9 {
        browser.tab().await;
        browser.open(&monitor.url("/")).await;
        browser.until(&format!("tab {number} to be live"), CONNECTED).await;
        let told = browser.wait_for("fetch('/api/v1/run').then((answer) => done(answer.status))").await;
        assert_eq!(told, 200, "tab {number}");
    }
    assert_eq!(browser.problems().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_page_without_reports_says_how_to_begin() {
    let (monitor, browser) = live_page().await;
    let shown = "return [document.getElementById('empty').innerText.includes('hongbao-server --listen'), getComputedStyle(document.getElementById('glance')).display, document.getElementById('state').dataset.is]";
    assert_eq!(browser.run(shown).await, json!([true, "none", "empty"]));
    let _server = Server::with(&["--monitor", &monitor.ingest.to_string()]);
    browser.until("figures", "document.getElementById('empty').hidden").await;
    browser.until("the page to be live", LIVE).await;
    browser.close().await;
}

#[tokio::test]
async fn a_past_run_opens_on_its_verdict() {
    let monitor = Monitor::start();
    let parent = monitor.record().parent().unwrap().join("before");
    std::fs::create_dir(&parent).unwrap();
    for file in ["run.sqlite", "summary.json"] {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/recording");
        std::fs::copy(format!("{fixture}/{file}"), parent.join(file)).unwrap();
    }
    let browser = Browser::start().await;
    browser.open(&monitor.url("/?view=runs")).await;
    browser.until("the list", "document.querySelector('tr[data-run=before]')").await;
    let listed = browser.run("return document.querySelector('tr[data-run=before]').innerText").await;
    assert!(listed.as_str().unwrap().contains("PASSED"), "{listed}");
    browser.open(&monitor.url("/?run=before")).await;
    browser.until("the verdict", "!document.getElementById('summary').hidden").await;
    let told = browser.run("return document.getElementById('summary').innerText").await;
    let told = told.as_str().unwrap();
    assert!(told.contains("PASSED") && told.contains("±") && told.contains(" of "), "{told}");
    browser.until("the moment of the figures", "document.getElementById('moment').dataset.held === 'true'").await;
    assert_eq!(browser.problems().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_click_on_a_legend_shows_that_line_alone() {
    let (_monitor, browser) = page_of_an_hour().await;
    let hidden =
        "return hongbao.charts.cards[0].lines.filter((line) => hongbao.charts.cards[0].hidden.has(line.column)).length";
    for left in [3, 0] {
        browser.click("[data-chart=rates] .legend li:nth-child(2) button").await;
        assert_eq!(browser.run(hidden).await, left);
    }
    browser.hover("[data-chart=rates] .u-over", 0.5).await;
    browser
        .until("figures at the pointer", "document.querySelector('.tip:not([hidden])')?.innerText.includes('answered')")
        .await;
    browser.close().await;
}

#[tokio::test]
async fn a_monitor_that_goes_away_is_said_to_be_and_is_found_again() {
    let (mut monitor, browser) = live_page().await;
    monitor.process.kill();
    browser.until("the loss to be said", "document.getElementById('state').dataset.is === 'lost'").await;
    let _again = Monitor::with(&["--http", &monitor.http.to_string(), "--record", "recordings/again"]);
    browser.until("the new run", CONNECTED).await;
    assert_eq!(browser.run("return document.getElementById('run-name').textContent").await, "again");
    browser.close().await;
}
