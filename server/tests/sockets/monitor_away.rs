//! The monitor may be away, or go away: reports are dropped and counted, and users never notice.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::BytesMut;
use hongbao_proto::frame::{self, Split, split};
use hongbao_proto::limits::REPORT_FRAME_BYTES_MAX;
use hongbao_proto::report_v1::{Accepted, Hello, MonitorFrame, Report, ReporterFrame, monitor_frame, reporter_frame};
use hongbao_proto::token::{Audience, Verifier};
use prost::Message;

use hongbao_testing::{PATIENCE, Server, eventually, free_address, secret, until};

/// One reporter's connection to a monitor that this test plays.
struct Ingest {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Ingest {
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, unread: Vec::new() }
    }

    fn frame(&mut self) -> reporter_frame::Frame {
        loop {
            if let Split::Frame { payload, consumed } = split(&self.unread, REPORT_FRAME_BYTES_MAX).unwrap() {
                let frame = ReporterFrame::decode(payload).unwrap();
                self.unread.drain(..consumed);
                return frame.frame.unwrap();
            }
            let mut buffer = [0; 64 * 1024];
            let read = self.stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the reporter has hung up");
            self.unread.extend_from_slice(&buffer[..read]);
        }
    }

    fn welcome(&mut self) -> Hello {
        let reporter_frame::Frame::Hello(hello) = self.frame() else { panic!("Hello comes first") };
        let mut answer = BytesMut::new();
        frame::append(&MonitorFrame { frame: Some(monitor_frame::Frame::Accepted(Accepted {})) }, &mut answer);
        self.stream.write_all(&answer).unwrap();
        hello
    }

    fn report(&mut self) -> Report {
        match self.frame() {
            reporter_frame::Frame::Report(report) => report,
            reporter_frame::Frame::Hello(_) => panic!("a second Hello"),
        }
    }
}

fn counter(report: &Report, name: &str) -> u64 {
    report.counters.iter().find(|counter| counter.name == name).unwrap_or_else(|| panic!("no {name}")).total
}

#[test]
fn reports_are_dropped_while_the_monitor_is_away_then_resumed() {
    let address = free_address();
    let server = Server::with(&["--monitor", &address.to_string(), "--name", "server-7"]);
    let mut user = server.login(1);
    until("reports to be dropped", || server.metric("reports_dropped_total") >= 1);
    assert_eq!(server.metric("reports_sent_total"), 0);
    user.ping();

    let listener = TcpListener::bind(address).unwrap();
    let mut first = Ingest::accept(&listener);
    let hello = first.welcome();
    let source = hello.source.unwrap();
    assert_eq!((source.role.as_str(), source.name.as_str()), ("server", "server-7"));
    let verifier = Verifier::hs256(&secret(), Audience::Report);
    assert_eq!(verifier.verify(&hello.token).map(|grant| grant.subject).as_deref(), Ok("server-7"));
    // The latest few were kept; then comes one with everything in it: totals make up for what was
    // dropped.
    let kept = first.report();
    let latest = eventually("a report of the login and the ping", || {
        Some(first.report()).filter(|report| counter(report, "requests_received") == 2)
    });
    assert!(latest.second > kept.second);
    assert_eq!(counter(&latest, "requests_answered"), 2);
    assert!(counter(&latest, "reports_dropped") >= 1);
    assert!(server.metric("reports_sent_total") >= 2);

    // It goes away in the middle of everything, and comes back.
    drop(first);
    user.ping();
    let mut second = Ingest::accept(&listener);
    assert_eq!(second.welcome().source.unwrap().instance, source.instance);
    let later = eventually("a report of the ping meanwhile", || {
        Some(second.report()).filter(|report| counter(report, "requests_received") == 3)
    });
    assert!(later.second > latest.second);
    user.ping();
    server.check_books();
}

#[test]
fn a_monitor_that_never_answers_costs_users_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::with(&["--monitor", &listener.local_addr().unwrap().to_string()]);
    let mut user = server.login(1);
    let silent = Ingest::accept(&listener);
    until("reports to be dropped", || {
        user.ping();
        server.metric("reports_dropped_total") >= 1
    });
    drop(silent);
    server.check_books();
}
