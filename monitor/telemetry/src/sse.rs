//! Reading server-sent events: what `top` and the server's `trace` follow a process with.
//!
//! [`Parser`] is pure and bounded; [`Stream`] feeds it from a response.

use std::error::Error;
use std::iter;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::ACCEPT;

/// Bytes of one event at most; a longer one ends the stream.
pub const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// From asking until the stream begins.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Streams say something, if only a comment, every 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(35);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// `message`, unless it says otherwise.
    pub name: String,
    /// Its lines, joined.
    pub data: String,
    /// What to ask from after a reconnection.
    pub id: Option<String>,
}

/// Why a stream does not go on.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It cannot be reached, or has broken.
    #[error("{}", root_cause(.0))]
    Broken(#[from] reqwest::Error),
    /// It was refused; trying again changes nothing, unless it is a 429 or 5xx.
    #[error("{status}: {message}")]
    Refused {
        status: StatusCode,
        /// What was said, one line.
        message: String,
    },
    /// It has ended.
    #[error("the stream has ended")]
    Ended,
    /// Nothing came for too long.
    #[error("nothing for {} s", SILENCE_MAX.as_secs())]
    Silent,
    /// An event longer than [`EVENT_BYTES_MAX`].
    #[error("an event of more than {EVENT_BYTES_MAX} bytes")]
    TooLong,
}

/// The innermost cause of an error of a client: it says what happened, and what is around it repeats
/// the address.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    iter::successors(Some(error), |&error| error.source()).last().map_or_else(String::new, ToString::to_string)
}

/// Bytes become events.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    event: Event,
    has_data: bool,
}

impl Parser {
    /// Takes more bytes; calls `take` with each event that they complete. `false`: an event is too
    /// long.
    #[must_use = "after an event that is too long nothing can be understood"]
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Event)) -> bool {
        for &byte in bytes {
            match byte {
                b'\n' if std::mem::take(&mut self.after_cr) => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    self.end_line(&mut take);
                }
                byte => {
                    self.after_cr = false;
                    if self.line.len() + self.event.data.len() >= EVENT_BYTES_MAX {
                        return false;
                    }
                    self.line.push(byte);
                }
            }
        }
        true
    }

    fn end_line(&mut self, take: &mut impl FnMut(Event)) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                let name = if event.name.is_empty() { "message".to_owned() } else { event.name };
                take(Event { name, ..event });
            }
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            // A comment, or something of a later version.
            _ => {}
        }
    }
}

/// Events of one response.
#[derive(Debug)]
pub struct Stream {
    response: reqwest::Response,
    parser: Parser,
    events: std::collections::VecDeque<Event>,
}

impl Stream {
    /// Asks for a stream. `token`: a bearer token; `last_id`: of the last event heard on an earlier
    /// one.
    pub async fn open(
        client: &reqwest::Client,
        url: &str,
        token: Option<&str>,
        last_id: Option<&str>,
    ) -> Result<Self, StreamError> {
        let mut request = client.get(url).header(ACCEPT, "text/event-stream");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(last_id) = last_id {
            request = request.header("Last-Event-ID", last_id);
        }
        let response =
            tokio::time::timeout(CONNECT_DEADLINE, request.send()).await.map_err(|_| StreamError::Silent)??;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        Ok(Self { response, parser: Parser::default(), events: std::collections::VecDeque::new() })
    }

    pub async fn next(&mut self) -> Result<Event, StreamError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let chunk = tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await;
            let chunk = chunk.map_err(|_| StreamError::Silent)??.ok_or(StreamError::Ended)?;
            let events = &mut self.events;
            if !self.parser.feed(&chunk, |event| events.push_back(event)) {
                return Err(StreamError::TooLong);
            }
        }
    }
}

/// What a refusal says: the message of our own errors, else its beginning.
async fn refusal(mut response: reqwest::Response) -> StreamError {
    let status = response.status();
    let mut body = Vec::new();
    while body.len() < 4096 {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            // What has come so far will do.
            Ok(None) | Err(_) => break,
        }
    }
    let said = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|value| Some(value["error"]["message"].as_str()?.to_owned()))
        .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    let message = said.chars().filter(|c| !c.is_control()).take(300).collect();
    StreamError::Refused { status, message }
}

/// A client for streams: no deadline for the whole, and no proxy between a process and its
/// operator.
pub fn client() -> Result<reqwest::Client, StreamError> {
    Ok(reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_DEADLINE).build()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> Vec<Event> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for chunk in chunks {
            assert!(parser.feed(chunk, |event| events.push(event)));
        }
        events
    }

    #[test]
    fn events_have_names_data_of_several_lines_and_ids() {
        let text = b": a comment\n\nevent: second\nid: 7\ndata: {\"a\":\ndata: 1}\n\ndata:x\r\n\r\nevent: nothing\n\n";
        let events = parse(&[text]);
        let expected = [
            Event { name: "second".into(), data: "{\"a\":\n1}".into(), id: Some("7".into()) },
            Event { name: "message".into(), data: "x".into(), id: None },
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; 1 << 20];
        assert!((0..7).all(|_| parser.feed(&chunk, |_| {})));
        assert!(!parser.feed(&chunk, |_| {}) || !parser.feed(&chunk, |_| {}));
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_events_are_the_same(
            lines in prop::collection::vec("(data: [a-z:]{0,5}|event: [a-z]{0,3}|id: [0-9]|: c|)\r?\n", 0..20),
            cuts in prop::collection::vec(0usize..200, 0..10),
        ) {
            let text = lines.concat().into_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let edges: Vec<_> = std::iter::once(0).chain(cuts).chain([text.len()]).collect();
            let chunks: Vec<_> = edges.windows(2).map(|edge| &text[edge[0]..edge[1]]).collect();
            prop_assert_eq!(parse(&chunks), parse(&[&text]));
        }
    }
}
