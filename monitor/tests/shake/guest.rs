//! A guest on a real server: what it wins is paid, told, written down and acknowledged, and both
//! books hold it.

use futures_util::{SinkExt, StreamExt};
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{Acknowledge, ClientFrame, Grab, Login, PrizeId, ServerFrame, Statement};
use nix::sys::signal::Signal;
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use hongbao_testing::{Monitor, PATIENCE, Server, eventually, free_address};

pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub struct Guest<'a> {
    runtime: &'a Runtime,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub user: u64,
}

impl<'a> Guest<'a> {
    /// Comes, and is welcome.
    pub fn come(monitor: &Monitor, runtime: &'a Runtime) -> Self {
        let minted = reqwest::blocking::Client::new()
            .post(format!("http://{}/api/v1/guests", monitor.http))
            .json(&json!({}))
            .send()
            .unwrap();
        let minted: serde_json::Value = minted.json().unwrap();
        let url = format!("ws://{}/api/v1/shake", monitor.http);
        let (socket, _) = runtime.block_on(connect_async(url)).unwrap();
        let mut guest = Self { runtime, socket, user: minted["user"].as_u64().unwrap() };
        let token = minted["token"].as_str().unwrap().to_owned();
        let welcome = guest.ask(1, Request::Login(Login { token }));
        assert!(matches!(&welcome, Event::Welcome(welcome) if welcome.user_id == guest.user), "{welcome:?}");
        guest
    }

    /// The answer to a request; pushes in between are passed over.
    pub fn ask(&mut self, request_id: u64, request: Request) -> Event {
        let frame = ClientFrame { request_id, request: Some(request) }.encode_to_vec();
        let socket = &mut self.socket;
        let answered = async {
            socket.send(Message::binary(frame)).await.unwrap();
            loop {
                match socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => {
                        let told = ServerFrame::decode(bytes).unwrap();
                        if told.request_id == request_id {
                            return told.event.unwrap();
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        let answered = async { tokio::time::timeout(PATIENCE, answered).await };
        self.runtime.block_on(answered).unwrap()
    }
}

#[test]
fn a_guests_wins_are_in_both_books_and_in_an_audited_journal() {
    let (mut monitor, runtime) = (Monitor::with(&["--expect-balanced"]), runtime());
    let mut server = Server::with(&["--monitor", &monitor.ingest.to_string()]);
    server.rain(1_000, 200, &json!({}));
    monitor.knows_a_server();
    let mut guest = Guest::come(&monitor, &runtime);
    let mut ids = 10..;
    let wins: Vec<_> = eventually("three wins", || {
        let mut wins = Vec::new();
        while wins.len() < 3 {
            if let Event::Won(won) = guest.ask(ids.next().unwrap(), Request::Grab(Grab { campaign_id: 0 })) {
                wins.push(won);
            }
            // A hand is no faster, and the bridge holds it to that.
            std::thread::park_timeout(std::time::Duration::from_millis(60));
        }
        Some(wins)
    });
    let prizes = wins.iter().map(|won| PrizeId { campaign_id: won.campaign_id, serial: won.serial }).collect();
    let seen = Request::Acknowledge(Acknowledge { prizes, ..Acknowledge::default() });
    assert!(matches!(guest.ask(ids.next().unwrap(), seen), Event::Acknowledged(told) if told.count == 3));
    let total: u64 = wins.iter().map(|won| won.amount_fen).sum();
    let wallet = guest.ask(ids.next().unwrap(), Request::Statement(Statement::default()));
    assert!(matches!(wallet, Event::StatementPage(page) if page.balance_fen == total));

    let agree = |books: &serde_json::Value| books["prizes_received"] == 3 && books["residual_fen"] == 0;
    let books = monitor.get_until("/api/v1/books", agree);
    assert_eq!((&books["received_fen"], &books["residual_prizes"]), (&json!(total), &json!(0)), "{books}");
    drop(guest);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    let said = server.audit(&[monitor.guest_journal()]);
    assert!(said.contains("1 files, 3 wins"), "{said}");
    assert!(monitor.process.stop().success(), "{}", monitor.process.log());
}

#[test]
fn a_guests_wins_survive_its_server_killed_under_a_shake() {
    let (monitor, runtime) = (Monitor::with(&["--expect-balanced"]), runtime());
    // Addresses that were free a moment ago: the server must come back to them.
    let (listen, admin) = (free_address().to_string(), free_address().to_string());
    let flags =
        ["--monitor", &monitor.ingest.to_string(), "--listen", &listen, "--admin", &admin, "--name", "server-1"];
    let mut server = Server::with(&flags);
    server.rain(10_000, 1_000, &json!({}));
    monitor.knows_a_server();
    let mut guest = Guest::come(&monitor, &runtime);
    // So many at once that some are surely under way when it dies.
    let frames =
        (10..50).map(|id| ClientFrame { request_id: id, request: Some(Request::Grab(Grab { campaign_id: 0 })) });
    runtime.block_on(async {
        for frame in frames {
            guest.socket.send(Message::binary(frame.encode_to_vec())).await.unwrap();
        }
    });
    server.kill();
    server.start_again();
    let served =
        |controls: &serde_json::Value| controls["servers"][0]["control"] == true && controls["guests"]["now"] == 0;
    drop(guest);
    monitor.get_until("/api/v1/controls", served);
    let won = server.stats()["ledger"]["won"].as_u64().unwrap();
    let books = monitor.get_until("/api/v1/books", |books| books["prizes_received"] == won);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    let said = server.audit(&[monitor.guest_journal()]);
    assert!(
        said.contains(&format!("1 files, {won} wins")) && said.contains("0 wins nobody has heard of"),
        "{said}\n{books}"
    );
}
