//! The terminal dashboard: pictures of every size, and a real terminal that is given back whatever
//! happens.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Instant;

use hongbao_monitor::terminal::screen::{Choice, View, draw};
use hongbao_monitor::terminal::state::{Link, State, Update};
use hongbao_monitor::terminal::tty::Screen;
use hongbao_testing::{PATIENCE, command, eventually};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use serde_json::{Value, json};

const BEGIN: u64 = 1_800_000_000;

/// A second of a run that goes well: a wave of requests.
fn second(number: u64, residual: i64) -> Value {
    let wave = [0, 38, 71, 92, 100, 92, 71, 38][usize::try_from(number / 6 % 8).unwrap()];
    let sent = 40_000 + wave * 100;
    json!({
        "columns": {
            "second": BEGIN + number, "complete": 1, "sources_expected": 5, "sources_reported": 5,
            "users_online": 999_000 + number, "users_goal": 1_000_000, "connections": 1_000_000,
            "planned": 45_000, "sent": sent, "received": sent, "answered": sent - wave, "issued": 200, "won": 198,
            "residual_prizes": residual, "residual_fen": residual * 120,
            "latency_p50_us": 6_600 + wave * 10, "latency_p99_us": 32_000 + wave * 300, "latency_p999_us": 90_000 + wave * 1_000,
            "latency_max_us": 340_000, "send_lag_p99_us": 4_500, "ledger_commit_p99_us": 1_800, "clock_error_max_us": 90,
            "overloaded": wave / 10, "refused": 3, "disconnects": 12, "queue_depth_max": 37, "prizes_in_sets": 1_234,
            "server_cpu_us": 1_020_000, "fleet_cpu_us": 760_000, "server_resident_bytes": 828_000_000, "fleet_resident_bytes": 73_000_000,
            "open_descriptors": 18_500, "descriptors_limit": 20_000,
            "host_memory_available_bytes": 9_100_000_000u64, "host_net_received_bytes": 8_400_000, "host_net_sent_bytes": 12_600_000
        },
        "reasons": {"ended": {"idle": 9, "closed": 3}, "answers": {"none_now": sent, "won": 198}, "errors": {"malformed": 1}, "violations": {}},
        "heat": {}
    })
}

fn state(seconds: u64, machines: u64, sets: u64, residual: i64) -> State {
    let mut state = State::default();
    let event = |name: &str, data: Value| Update::Data(name.to_owned(), data);
    state.apply(Update::Connected);
    let run = json!({"started_at_ms": BEGIN * 1_000, "record_failures": 0});
    state.apply(event(
        "hello",
        json!({"id": "20270115T080000Z", "version": "0.1.0", "run": run, "now_ms": BEGIN * 1_000}),
    ));
    for number in 0..seconds {
        state.apply(event("second", second(number, residual)));
    }
    let machine = |number: u64| {
        json!({"role": "machine", "name": format!("machine-{number:02}"), "instance": "m", "started_at_ms": 1,
            "last_second": null, "older_than_run": false, "presence": if number == 3 { "lost" } else { "reporting" },
            "clock_offset_us": 120 * number, "clock_error_us": 45, "online": 17_857, "users": 17_858, "cpu_us": 13_000,
            "resident_bytes": 1_300_000, "reports": seconds, "instances": 1})
    };
    let mut sources: Vec<_> = (1..=machines).map(machine).collect();
    if machines > 0 {
        sources.push(
            json!({"role": "server", "name": "server-1", "instance": "s", "started_at_ms": 1, "last_second": null,
            "older_than_run": false, "presence": "reporting", "online": 999_000, "users": null, "cpu_us": 1_020_000, "resident_bytes": 828_000_000, "reports": seconds, "instances": 1}),
        );
    }
    state.apply(event("sources", Value::from(sources)));
    let column = |odd: u64, usual: u64| (0..sets).map(|set| if set == 7 { odd } else { usual }).collect::<Vec<_>>();
    state.apply(event(
        "sets",
        json!({"server-1": {"connections": column(17_800, 17_850), "online": column(17_800, 17_850),
        "queue_depth": column(3_977, 2), "owed": column(3_900, 1), "stock": column(0, 20)}}),
    ));
    for (at, kind, text) in [
        (0, "phase", "warm-up: 30,000 QPS"),
        (5, "campaign", "rain 1 begins: 200 a second"),
        (9, "alert", "overloaded share above 1%"),
    ] {
        state.apply(event(
            "mark",
            json!({"at_ms": (BEGIN + at) * 1_000, "kind": kind, "source": "server/server-1", "text": text}),
        ));
    }
    let sides = |count: u64| json!({"servers_count": count, "servers_fen": count * 120, "users_count": count, "users_fen": count * 120});
    let (won, seconds) = (39_600 + residual, if residual == 0 { 0 } else { 7 });
    state.apply(event(
        "books",
        json!({"won": won, "paid_fen": won * 120, "prizes_received": 39_600, "received_fen": 39_600 * 120,
        "residual_prizes": residual, "residual_fen": residual * 120, "unbalanced_seconds": seconds,
        "sales": sides(10_000), "envelopes": sides(20_000)}),
    ));
    state
}

fn picture(state: &State, choice: &Choice, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let draw = |frame: &mut ratatui::Frame<'_>| {
        draw(frame, state, choice, BEGIN);
    };
    terminal.draw(draw).unwrap();
    terminal
}

fn text(terminal: &Terminal<TestBackend>) -> String {
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in buffer.content().chunks(buffer.area.width.into()) {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn view() -> impl Strategy<Value = View> {
    prop::sample::select(View::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn no_size_and_no_state_makes_it_panic(
        width in 1u16..=300, height in 1u16..=80, view in view(), scroll in 0usize..200, help: bool, colours: bool,
        seconds in 0u64..90, machines in 0u64..70, sets in 0u64..60, residual in -1i64..2,
    ) {
        let state = state(seconds, machines, sets, residual);
        picture(&state, &Choice { view, scroll, paused: scroll % 2 == 0, help, colours }, width, height);
    }
}

#[test]
fn what_counts_most_is_on_every_screen_from_forty_by_twelve_up() {
    for (width, height) in [(40, 12), (60, 16), (80, 24), (100, 30), (120, 40), (160, 50), (200, 60), (300, 80)] {
        let good = text(&picture(&state(70, 56, 56, 0), &Choice::default(), width, height));
        for part in ["hongbao", "00:01:09", "live", "999,069"] {
            assert!(good.contains(part), "{part} at {width}x{height}:\n{good}");
        }
        assert!(good.contains("✓ residual 0") || good.contains("✓ they agree"), "{width}x{height}:\n{good}");
        let bad = text(&picture(&state(70, 56, 56, 2), &Choice::default(), width, height));
        assert!(bad.contains("✗ RESIDUAL") || bad.contains("✗ THEY DIFFER"), "{width}x{height}:\n{bad}");
        assert!(width < 76 || good.contains("p99"), "{width}x{height}:\n{good}");
    }
}

#[test]
fn no_figure_of_the_books_loses_its_beginning() {
    for width in 76..200 {
        let text = text(&picture(&state(70, 56, 56, 0), &Choice::default(), width, 40));
        for line in text.lines().filter(|line| line.contains("sales") || line.contains("envelopes ")) {
            let figures = line.split('│').nth(1).unwrap();
            let words: Vec<_> = figures.split_whitespace().filter(|word| *word != "/").collect();
            let whole = ["sales", "envelopes", "10,000", "20,000", "12,000.00", "24,000.00", "✓", "0", "0.00"];
            assert!(words.iter().all(|word| whole.contains(word)), "{width}: {figures}");
        }
    }
}

#[test]
fn a_list_scrolls_to_its_end_and_no_further() {
    let state = state(10, 56, 56, 0);
    let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
    let mut scrollable = 0;
    let choice = Choice { view: View::Machines, scroll: 1_000, ..Choice::default() };
    terminal.draw(|frame| scrollable = draw(frame, &state, &choice, BEGIN)).unwrap();
    let text = text(&terminal);
    // 57 sources; border, head and two lines of the screen take five rows.
    assert_eq!(scrollable, 57 - 19, "{text}");
    assert!(text.contains("machine/machine-56") && !text.contains("machine/machine-02"), "{text}");
}

#[test]
fn colours_are_the_terminals_sixteen_and_none_if_not_wanted() {
    for view in View::ALL {
        let state = state(70, 56, 56, 2);
        for colours in [true, false] {
            let terminal = picture(&state, &Choice { view, colours, help: true, ..Choice::default() }, 160, 50);
            let used: Vec<_> =
                terminal.backend().buffer().content().iter().flat_map(|cell| [cell.fg, cell.bg]).collect();
            assert!(!used.iter().any(|colour| matches!(colour, Color::Rgb(..) | Color::Indexed(_))));
            assert_eq!(used.iter().all(|colour| *colour == Color::Reset), !colours);
        }
    }
}

#[test]
fn a_monitor_that_is_away_is_said_with_the_reason() {
    let mut state = State { link: Link::Connecting, ..State::default() };
    state.apply(Update::Away("connection refused\u{1b}[2J".to_owned()));
    let text = text(&picture(&state, &Choice::default(), 80, 24));
    assert!(text.contains("○ monitor away") && text.contains("cannot be reached: connection refused"), "{text}");
}

#[test]
fn pictures_are_as_they_were_looked_at() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/top");
    let overview = Choice::default();
    let of = |view| Choice { view, ..Choice::default() };
    let pictures = [
        ("overview-40x12", overview, 40, 12),
        ("overview-80x24", overview, 80, 24),
        ("overview-120x40", overview, 120, 40),
        ("overview-200x60", overview, 200, 60),
        ("machines-100x20", of(View::Machines), 100, 20),
        ("sets-100x24", of(View::Sets), 100, 24),
        ("events-80x24", of(View::Events), 80, 24),
        ("help-60x16", Choice { help: true, paused: true, ..overview }, 60, 16),
    ];
    for (name, choice, width, height) in pictures {
        let path = folder.join(format!("{name}.txt"));
        let now = text(&picture(&state(70, 12, 56, 0), &choice, width, height));
        if std::env::var_os("HONGBAO_WRITE_PAGES").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &now).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(now == kept, "{name} has changed; look at it, and write it with HONGBAO_WRITE_PAGES=1:\n{now}");
    }
}

// ---- A real terminal

/// `hongbao-monitor top` on a terminal that this test holds the other end of.
struct Top {
    child: Child,
    terminal: OpenptyResult,
    before: Termios,
    shown: mpsc::Receiver<Vec<u8>>,
    text: String,
    picture: Picture,
}

/// What a terminal shows of the few things that are written to it: text, and where it stands.
struct Picture {
    cells: Vec<Vec<char>>,
    place: (usize, usize),
    /// An escape sequence of which the end has not come.
    escape: Option<String>,
}

impl Picture {
    fn new() -> Self {
        Self { cells: vec![vec![' '; COLUMNS.into()]; ROWS.into()], place: (0, 0), escape: None }
    }

    fn write(&mut self, text: &str) {
        for c in text.chars() {
            match &mut self.escape {
                Some(escape) => {
                    escape.push(c);
                    if c.is_ascii_alphabetic() {
                        self.obey();
                    }
                }
                None if c == '\u{1b}' => self.escape = Some(String::new()),
                None => {
                    let (row, column) = self.place;
                    if let Some(cell) = self.cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                        *cell = c;
                    }
                    self.place.1 += 1;
                }
            }
        }
    }

    fn obey(&mut self) {
        let escape = self.escape.take().unwrap();
        if let Some(place) = escape.strip_prefix('[').and_then(|rest| rest.strip_suffix('H')) {
            let mut numbers = place.split(';').map(|number| number.parse::<usize>().unwrap_or(1) - 1);
            self.place = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        }
    }

    fn shows(&self, what: &str) -> bool {
        self.cells.iter().any(|row| row.iter().collect::<String>().contains(what))
    }
}

const ROWS: u16 = 40;
const COLUMNS: u16 = 120;

/// Terminals are made and programs started one after the other: no program may inherit a terminal
/// that is not its own.
static MAKING: Mutex<()> = Mutex::new(());

fn making() -> MutexGuard<'static, ()> {
    MAKING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn terminal() -> OpenptyResult {
    let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    for end in [&terminal.master, &terminal.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    terminal
}

fn spawn(command: &mut Command) -> Top {
    let _one_by_one = making();
    let terminal = terminal();
    let before = tcgetattr(&terminal.slave).unwrap();
    let end = || Stdio::from(terminal.slave.try_clone().unwrap());
    let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    let mut master = File::from(terminal.master.try_clone().unwrap());
    let (sender, shown) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = master.read(&mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    Top { child, terminal, before, shown, text: String::new(), picture: Picture::new() }
}

fn top(monitor: &str) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_hongbao-monitor"));
    command.args(["top", "--monitor", monitor]);
    command
}

impl Top {
    fn until(&mut self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.text.contains(what) && !self.picture.shows(what) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes =
                self.shown.recv_timeout(left).unwrap_or_else(|_| panic!("never saw {what:?} in {:?}", self.text));
            // A character that is cut in two is none that is looked for.
            let text = String::from_utf8_lossy(&bytes);
            self.text.push_str(&text);
            self.picture.write(&text);
        }
    }

    fn press(&self, keys: &[u8]) {
        File::from(self.terminal.master.try_clone().unwrap()).write_all(keys).unwrap();
    }

    /// The exit code, once it has ended, and the terminal is as it was.
    fn ended(mut self) -> Option<i32> {
        let status = ending(&mut self.child);
        let after = tcgetattr(&self.terminal.slave).unwrap();
        assert_eq!((after.local_flags, after.input_flags), (self.before.local_flags, self.before.input_flags));
        self.until("\u{1b}[?1049l");
        self.until("\u{1b}[?25h");
        status.code()
    }
}

/// How it ends; one that does not is ended with its terminal.
fn ending(child: &mut Child) -> ExitStatus {
    eventually("it to end", || child.try_wait().unwrap())
}

/// An address at which nobody answers.
const NOWHERE: &str = "http://127.0.0.1:1";

#[test]
fn keys_and_signals_end_it_and_the_terminal_is_as_it_was() {
    for key in [b"q".as_slice(), b"\x03", b"\x1b"] {
        let mut top = spawn(&mut top(NOWHERE));
        top.until("monitor away");
        top.press(key);
        assert_eq!(top.ended(), Some(0), "{key:?}");
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut top = spawn(&mut top(NOWHERE));
        top.until("monitor away");
        kill(Pid::from_raw(top.child.id().cast_signed()), signal).unwrap();
        assert_eq!(top.ended(), Some(0), "{signal}");
    }
}

#[test]
fn a_closed_output_ends_it_and_restores_the_inputs_mode() {
    let one_by_one = making();
    let (input, output) = (terminal(), terminal());
    let before = tcgetattr(&input.slave).unwrap();
    let mut child = top(NOWHERE)
        .stdin(Stdio::from(input.slave.try_clone().unwrap()))
        .stdout(Stdio::from(output.slave))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(one_by_one);
    let mut master = File::from(output.master);
    let mut shown = String::new();
    let mut buffer = [0; 4096];
    while !shown.contains("monitor away") {
        let read = master.read(&mut buffer).unwrap();
        shown.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert_ne!(tcgetattr(&input.slave).unwrap().local_flags, before.local_flags);
    drop(master);
    // It finds out when it draws.
    File::from(input.master.try_clone().unwrap()).write_all(b"?").unwrap();
    assert_eq!(ending(&mut child).code(), Some(1));
    assert_eq!(tcgetattr(&input.slave).unwrap().local_flags, before.local_flags);
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_reported() {
    const CHILD: &str = "HONGBAO_TEST_PANIC";
    if std::env::var_os(CHILD).is_some() {
        let _screen = Screen::take().unwrap();
        panic!("as a test wants it");
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "top::a_panic_gives_the_terminal_back_before_it_is_reported", "--nocapture"])
        .env(CHILD, "1");
    let mut child = spawn(&mut command);
    child.until("as a test wants it");
    let given_back = child.text.find("\u{1b}[?1049l").expect("the screen is left");
    assert!(given_back < child.text.find("as a test wants it").unwrap());
    assert_ne!(child.ended(), Some(0));
}

#[test]
fn what_is_no_terminal_is_refused_in_one_line() {
    let output = top(NOWHERE).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("must be a terminal"), "{said}");
    let output = top("ftp://nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// A monitor of a few recorded words; each stream is told what is sent to `streams`.
fn monitor() -> (String, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, streams) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            if request.starts_with("GET /api/v1/stream ") {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
                stream.write_all(head.as_bytes()).unwrap();
                if sender.send(stream).is_err() {
                    return;
                }
            } else {
                let body = if request.starts_with("GET /api/v1/series") {
                    json!({"run": "x", "every": 1, "columns": {"second": [BEGIN], "users_online": [4_321]}, "reasons": {}})
                } else {
                    Value::Null
                };
                let body = body.to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                // Whoever asked may have gone.
                stream.write_all((head + &body).as_bytes()).ok();
            }
        }
    });
    (url, streams)
}

fn say(stream: &mut TcpStream, event: &str, data: &Value) {
    stream.write_all(format!("event: {event}\ndata: {data}\n\n").as_bytes()).unwrap();
}

#[test]
fn it_shows_past_and_present_and_reconnects_to_a_monitor() {
    let (url, streams) = monitor();
    let mut top = spawn(&mut top(&url));
    let hello = json!({"id": "x", "version": "1", "run": {"started_at_ms": BEGIN * 1_000}, "now_ms": BEGIN * 1_000});
    let mut stream = streams.recv_timeout(PATIENCE).unwrap();
    say(&mut stream, "hello", &hello);
    top.until("4,321");
    say(&mut stream, "second", &second(1, 0));
    top.until("999,001");
    drop(stream);
    // It comes back so soon that nobody may have seen it away.
    let mut stream = streams.recv_timeout(PATIENCE).unwrap();
    say(&mut stream, "hello", &hello);
    say(&mut stream, "second", &second(7, 1));
    top.until("RESIDUAL");
    top.press(b"q");
    assert_eq!(top.ended(), Some(0));
}
