//! A process that reports to a monitor, played by a test.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use hongbao_proto::frame::Codec;
use hongbao_proto::limits::REPORT_FRAME_BYTES_MAX;
use hongbao_proto::report_v1::{Hello, MonitorFrame, Report, ReporterFrame, Source, monitor_frame, reporter_frame};
use hongbao_proto::token::Audience;
use hongbao_telemetry::clock::unix_millis;
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use crate::{sign, soon};

pub fn report_token() -> String {
    sign("test", Audience::Report)
}

/// A process's first instance, started now.
pub fn source(role: &str, name: &str) -> Source {
    Source {
        role: role.into(),
        name: name.into(),
        instance: format!("{name}-1"),
        started_at_ms: unix_millis(),
        control: "127.0.0.1:7402".into(),
        listen: String::new(),
    }
}

pub struct ReporterPeer {
    pub link: Framed<TcpStream, Codec<MonitorFrame, ReporterFrame, REPORT_FRAME_BYTES_MAX>>,
}

impl ReporterPeer {
    pub async fn connect(monitor: SocketAddr) -> Self {
        Self { link: Framed::new(TcpStream::connect(monitor).await.unwrap(), Codec::default()) }
    }

    /// Connected, and accepted.
    pub async fn accepted(monitor: SocketAddr, source: Source) -> Self {
        let mut peer = Self::connect(monitor).await;
        peer.hello(report_token(), source).await;
        let answer = peer.answer().await;
        assert!(matches!(answer, Some(monitor_frame::Frame::Accepted(_))), "{answer:?}");
        peer
    }

    pub async fn hello(&mut self, token: String, source: Source) {
        let hello = Hello { token, source: Some(source) };
        self.link.send(&ReporterFrame { frame: Some(reporter_frame::Frame::Hello(hello)) }).await.unwrap();
    }

    pub async fn report(&mut self, report: Report) {
        self.link.send(&ReporterFrame { frame: Some(reporter_frame::Frame::Report(report)) }).await.unwrap();
    }

    /// The monitor's next frame; none at the end of the stream.
    async fn answer(&mut self) -> Option<monitor_frame::Frame> {
        soon("an answer to a reporter", self.link.next()).await.map(|frame| frame.unwrap().frame.unwrap())
    }

    /// The reason that the monitor gives before it hangs up.
    pub async fn refusal(&mut self) -> String {
        let frame = self.answer().await;
        let Some(monitor_frame::Frame::Refused(refused)) = frame else { panic!("{frame:?}") };
        assert_eq!(self.answer().await, None, "the stream ends after a refusal");
        refused.reason
    }
}
