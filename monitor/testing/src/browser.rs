//! Chromium without a window, and what a person does with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::actions::{InputSource, KeyAction, KeyActions, MOUSE_BUTTON_LEFT, MouseActions, PointerAction};
use fantoccini::wd::{Capabilities, TimeoutConfiguration};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

/// For what is awaited in the page: a browser on a busy machine is slower than the programs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with a profile of its own.
pub struct Browser {
    client: Client,
    driver: Child,
    /// Of the driver's own interface, for what WebDriver does not have.
    session: String,
    _profile: TempDir,
}

/// A key, named by what it does.
#[derive(Debug, Clone, Copy)]
pub enum Key {
    Char(char),
    Tab,
    Enter,
    Escape,
    Left,
}

impl Key {
    /// As WebDriver numbers it.
    fn value(self) -> char {
        match self {
            Key::Char(value) => value,
            Key::Tab => '\u{e004}',
            Key::Enter => '\u{e007}',
            Key::Escape => '\u{e00c}',
            Key::Left => '\u{e012}',
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A test that failed has not closed the browser; told to end in order, the driver does.
        if kill(Pid::from_raw(self.driver.id().cast_signed()), Signal::SIGTERM).is_ok() {
            self.driver.wait().expect("chromedriver ends");
        }
    }
}

impl Browser {
    pub async fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("hongbao-browser-").tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is needed: apt-get install chromium chromium-driver");
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port: u16 = said
            .by_ref()
            .find_map(|line| line.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok())
            .expect("chromedriver tells its port");
        // It goes on talking, and must not find the pipe closed.
        std::thread::spawn(move || said.for_each(drop));
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--lang=en-US",
            "--window-size=1440,900",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let Value::Object(wanted) = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }) else {
            unreachable!("an object is written there")
        };
        let driver_url = format!("http://127.0.0.1:{port}");
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(Capabilities::from_iter(wanted));
        let client = builder.connect(&driver_url).await.expect("chromium is needed: apt-get install chromium");
        let patience = TimeoutConfiguration::new(Some(PATIENCE), Some(PATIENCE), None);
        client.update_timeouts(patience).await.unwrap();
        let session = format!("{driver_url}/session/{}", client.session_id().await.unwrap().unwrap());
        Self { client, driver, session, _profile: profile }
    }

    pub async fn close(self) {
        self.client.clone().close().await.unwrap();
    }

    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// Another tab of the same browser, which orders go to from now on; its name.
    pub async fn tab(&self) -> String {
        let tab = self.client.new_window(true).await.unwrap().handle;
        self.client.switch_to_window(tab.clone()).await.unwrap();
        String::from(tab)
    }

    /// The size of what is shown, without a window's frame.
    pub async fn size(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        let order = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": size });
        self.ask("goog/cdp/execute", &order).await;
    }

    async fn ask(&self, path: &str, body: &Value) -> Value {
        let request = reqwest::Client::new().post(format!("{}/{path}", self.session)).json(body);
        request.send().await.unwrap().json().await.unwrap()
    }

    /// A script's answer.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap_or_else(|error| panic!("{error}\n{script}"))
    }

    /// The answer of a script that calls `done`.
    pub async fn wait_for(&self, script: &str) -> Value {
        let script = format!("const done = arguments[arguments.length - 1];\n{script}");
        self.client.execute_async(&script, vec![]).await.unwrap_or_else(|error| panic!("{error}\n{script}"))
    }

    /// Looks in each frame until a condition holds.
    pub async fn until(&self, what: &str, condition: &str) {
        let script = format!(
            "const done = arguments[arguments.length - 1];
            const look = () => {{
                let seen = false;
                try {{ seen = !!({condition}); }} catch {{ /* Not there yet. */ }}
                if (seen) done(true); else requestAnimationFrame(look);
            }};
            look();"
        );
        if let Err(error) = self.client.execute_async(&script, vec![]).await {
            let page = self.run("return document.body.innerText.slice(0, 600)").await;
            panic!("{what} did not come: {error}\n{page}\n{:?}", self.problems().await);
        }
    }

    /// Until what was asked for has been drawn.
    pub async fn frame(&self) {
        self.wait_for("requestAnimationFrame(() => requestAnimationFrame(() => done(null)));").await;
    }

    pub async fn press(&self, key: Key) {
        let value = key.value();
        let stroke = KeyActions::new("keys".into()).then(KeyAction::Down { value }).then(KeyAction::Up { value });
        self.client.perform_actions(stroke).await.unwrap();
    }

    pub async fn focus(&self, selector: &str) {
        self.run(&format!("document.querySelector({selector:?}).focus()")).await;
    }

    pub async fn click(&self, selector: &str) {
        // What lies half under the top would be taken for in sight.
        self.run(&format!("document.querySelector({selector:?}).scrollIntoView({{ block: 'center' }})")).await;
        self.client.find(Locator::Css(selector)).await.unwrap().click().await.unwrap();
    }

    /// Types into a field.
    pub async fn write(&self, selector: &str, text: &str) {
        let field = self.client.find(Locator::Css(selector)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Moves the pointer over an element, `share` of its width from the left.
    pub async fn hover(&self, selector: &str, share: f64) {
        let script = format!(
            "const node = document.querySelector({selector:?});
            node.scrollIntoView({{ block: 'center' }});
            const box = node.getBoundingClientRect();
            return [Math.round(box.left + box.width * {share}), Math.round(box.top + box.height / 2)]"
        );
        let at = self.run(&script).await;
        let place = |index: usize| at[index].as_f64().unwrap();
        let (x, y) = (place(0), place(1));
        let there = PointerAction::MoveTo { duration: None, x, y };
        self.client.perform_actions(MouseActions::new("mouse".into()).then(there)).await.unwrap();
    }

    /// Drags from one share of an element's width to another.
    pub async fn drag(&self, selector: &str, from: f64, to: f64) {
        let script = format!(
            "const node = document.querySelector({selector:?});
            node.scrollIntoView({{ block: 'center' }});
            const box = node.getBoundingClientRect();
            return [{from}, {to}].map((share) => Math.round(box.left + box.width * share)).concat(Math.round(box.top + box.height / 2))"
        );
        let at = self.run(&script).await;
        let place = |index: usize| at[index].as_f64().unwrap();
        let to = |x| PointerAction::MoveTo { duration: None, x, y: place(2) };
        let pulled = MouseActions::new("mouse".into())
            .then(to(place(0)))
            .then(PointerAction::Down { button: MOUSE_BUTTON_LEFT })
            .then(to(place(1)))
            .then(PointerAction::Up { button: MOUSE_BUTTON_LEFT });
        self.client.perform_actions(pulled).await.unwrap();
    }

    /// What the browser complains of since it was last asked: errors of scripts, of the policy, of
    /// missing files.
    pub async fn problems(&self) -> Vec<String> {
        let log = self.ask("se/log", &json!({ "type": "browser" })).await;
        let entries = log["value"].as_array().unwrap_or_else(|| panic!("no log: {log}"));
        entries.iter().filter(|entry| entry["level"] != "INFO").map(|entry| entry["message"].to_string()).collect()
    }
}
