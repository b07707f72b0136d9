//! Following one user live, over real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use hongbao_proto::token::Audience;
use hongbao_proto::v1::{self, client_frame::Request};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::BINARY;
use hongbao_testing::client::{framed, next_id};
use hongbao_testing::{PATIENCE, Server, command, eventually, free_address, sign};

/// `hongbao-server trace --json`, and the lines that it prints.
struct Tracing {
    child: Child,
    lines: Receiver<Value>,
    heard: Vec<Value>,
}

impl Tracing {
    fn of(server: &Server, user: u64) -> Self {
        let mut trace = command(BINARY);
        trace.args(["trace", "--json", "--user", &user.to_string(), "--admin", &format!("http://{}", server.admin)]);
        let mut child = trace.arg("--secret-file").arg(server.path("secret")).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                // Whoever has heard enough listens no more.
                if sender.send(serde_json::from_str(&line.unwrap()).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, heard: Vec::new() }
    }

    /// Reads until a line is as wanted, which is returned.
    fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("never heard {what}; so far: {:#?}", self.heard));
            self.heard.push(line.clone());
            if wanted(&line) {
                return line;
            }
        }
    }

    fn step(&mut self, what: &str, name: &str, value: &str) -> Value {
        self.until(&format!("{what} {value}"), |line| line["what"] == what && line[name] == value)
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_followed_users_story_is_told_in_order_through_reconnects() {
    let server = Server::start();
    let campaign = server.rain(1_000, 500, &json!({}));
    let mut trace = Tracing::of(&server, 7);
    let begun = trace.until("the beginning", |line| line["what"] == "following");
    assert_eq!((&begun["user"], &begun["online"]), (&json!(7), &json!(false)));

    // Followed from the login on, although nobody was there when it began.
    let mut other = server.login(8);
    let mut first = server.login(7);
    let login = trace.step("request", "kind", "login");
    trace.step("ledger", "decision", "recalled");
    let welcome = trace.step("answer", "kind", "welcome");
    assert_eq!(login["request"], welcome["request"]);
    assert!(welcome["latency_us"].is_u64() && welcome["at_us"].as_u64() >= login["at_us"].as_u64(), "{welcome}");

    let (request, won) = first.win(campaign);
    other.ping();
    let decided = trace.until("the win in the ledger", |line| line["what"] == "ledger" && line["decision"] == "won");
    assert_eq!((&decided["request"], &decided["serial"]), (&json!(request), &json!(won.serial)));
    let told = trace.step("answer", "kind", "won");
    assert_eq!((&told["request"], &told["amount_fen"]), (&json!(request), &json!(won.amount_fen)));
    assert!(told["latency_us"].as_u64().unwrap() > 0, "{told}");
    first.acknowledge(&[(campaign, won.serial)]);
    trace.step("request", "kind", "acknowledge");
    assert_eq!(trace.step("ledger", "decision", "acknowledged")["count"], 1);
    trace.step("answer", "kind", "acknowledged");
    server.announce("新年快乐");
    trace.step("push", "kind", "announcement");
    other.ask(Request::Chat(v1::Chat { user_id: 7, text: "a private word".to_owned(), ..Default::default() }));
    trace.step("push", "kind", "chat_message");

    // The newer connection, perhaps in another SET, ends the older one.
    let mut second = server.login(7);
    trace.step("request", "kind", "login");
    assert_eq!(trace.step("end", "reason", "replaced")["fault"], "nobody");
    trace.step("answer", "kind", "welcome");
    first.ending();
    server.call(Method::DELETE, "/v1/sessions/7", None);
    assert_eq!(trace.step("end", "reason", "kicked")["fault"], "us");
    second.ending();
    server.login(7).ping();
    trace.step("answer", "kind", "pong");

    let all = Value::from(trace.heard.clone()).to_string();
    assert!(!all.contains("private") && !all.contains("新年") && !all.contains("eyJ"), "{all}");
    let command_line = std::fs::read_to_string(format!("/proc/{}/cmdline", trace.child.id())).unwrap();
    assert!(!command_line.contains("eyJ"), "{command_line}");
    kill(Pid::from_raw(trace.child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert!(trace.child.wait().unwrap().success());
    server.check_books();
}

#[test]
fn a_tracer_survives_a_restart_and_hears_of_the_stop() {
    let listen = free_address().to_string();
    let mut server = Server::with(&["--admin", &listen]);
    let mut trace = Tracing::of(&server, 7);
    trace.until("the beginning", |line| line["what"] == "following");
    server.stop_and_audit();
    trace.until("the stop", |line| line["what"] == "stopping");
    assert!(!server.log().contains("http_cut"), "the stream ends by itself:\n{}", server.log());
    server.start_again();
    trace.until("the beginning again", |line| line["what"] == "following");
    server.login(7);
    trace.step("answer", "kind", "welcome");
}

#[test]
fn at_most_eight_follow_and_whoever_goes_makes_room() {
    let server = Server::start();
    let token = sign("tests", Audience::Admin);
    let client = reqwest::blocking::Client::new();
    let url = format!("http://{}/v1/users/7/trace", server.admin);
    let follow = || client.get(&url).bearer_auth(&token).send().unwrap();
    let mut followers: Vec<_> = (0..8).map(|_| follow()).collect();
    assert!(followers.iter().all(|follower| follower.status() == 200));
    let refused = follow();
    assert_eq!(refused.status(), 429);
    assert!(refused.text().unwrap().contains("8 tracers"));
    let trace = command(BINARY)
        .args(["trace", "--user", "7", "--admin", &format!("http://{}", server.admin), "--secret-file"])
        .arg(server.path("secret"))
        .output()
        .unwrap();
    let said = String::from_utf8(trace.stderr).unwrap();
    assert!(trace.status.code() == Some(2) && said.contains("end one of them first"), "{said}");
    drop(followers.pop());
    eventually("room for another", || (follow().status() == 200).then_some(()));
    assert_eq!(server.call_as(None, Method::GET, "/v1/users/7/trace", None).status(), 401);
    assert_eq!(server.call(Method::GET, "/v1/users/0/trace", None).status(), 400);
}

#[test]
fn a_slow_tracer_loses_counted_steps_and_costs_the_user_nothing() {
    const PINGS: u64 = 60_000;
    let server = Server::with(&["--max-connection-qps", "100000000"]);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.admin.into()).unwrap();
    let mut slow: TcpStream = socket.into();
    let token = sign("tests", Audience::Admin);
    let request = format!("GET /v1/users/7/trace HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    slow.write_all(request.as_bytes()).unwrap();
    eventually("the tracer to be taken in", || server.log().contains("tracer_joined").then_some(()));
    let mut client = server.login(7);
    for _ in 0..PINGS / 500 {
        let ids: Vec<_> = (0..500).map(|_| next_id()).collect();
        let pings: Vec<u8> = ids.iter().flat_map(|id| framed(*id, Request::Ping(v1::Ping {})).to_vec()).collect();
        client.send_raw(&pings);
        ids.iter().for_each(|id| drop(client.answer(*id)));
    }
    // Now it reads: everything that is there, and how much is not.
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut text, mut buffer) = (String::new(), vec![0; 1 << 16]);
    let told = || (2 * PINGS) + 3;
    let count = |text: &str| {
        let steps = text.matches("event: step").count() as u64;
        let lost: u64 = text
            .split("event: lost\ndata: {\"count\":")
            .skip(1)
            .map(|rest| rest.split('}').next().unwrap().parse::<u64>().unwrap())
            .sum();
        (steps, lost)
    };
    while !text.contains("event: lost") || {
        let (steps, lost) = count(&text);
        steps + lost < told()
    } {
        let read = slow.read(&mut buffer).expect("what is missing is told");
        assert!(read > 0, "the stream has ended");
        // Chunks of the transfer begin on lines of their own, and cut no event.
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    let (steps, lost) = count(&text);
    assert!(lost > 0 && steps >= 1_024, "{steps} told, {lost} lost");
    assert_eq!(steps + lost, told());
    server.check_books();
}
