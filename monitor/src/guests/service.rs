//! Guests: people who play among the simulated users. Who may, how many, under which id; what they
//! were told; how their connections end. The connections themselves are those of `bridge.rs`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{ConnectInfo, State};
use axum::{Json, Router};
use hongbao_proto::UserId;
use hongbao_proto::token::{Audience, Secret, Signer, Verifier};
use hongbao_proto::v1::{ClientFrame, ServerFrame};
use serde::{Deserialize, Serialize};
use serde_json::json;
use strum::VariantArray;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::access::operator::{Access, for_own_pages, too_many};
use crate::access::rate_limit::{Rate, RateLimit};
use crate::access::trust;
use crate::guests::guest_book::GuestBook;
use crate::limits::{
    GUEST_TOKEN_SECONDS, GUESTS_STOP_DEADLINE, GUESTS_UNSETTLED_MAX, NEW_GUESTS_BURST, NEW_GUESTS_INTERVAL_MS,
    PEERS_REMEMBERED_MAX,
};
use crate::owner::{GUESTS_SOURCE, Message, Question, ask};
use crate::run::merge::Presence;
use crate::run::second::Role;
use hongbao_telemetry::clock::{monotonic_millis, unix_millis, unix_seconds};
use hongbao_telemetry::http::{ApiError, JsonBody};
use hongbao_telemetry::lock::locked;
use hongbao_telemetry::report::names::role;
use hongbao_telemetry::report::{Key, Reporter, Sample};

/// The first id of a guest. Fleets number their users from 1 on, and never get here.
const GUEST_ID_MIN: u64 = 1 << 52;

/// How long the token is good with which guests report, seconds: longer than any run.
const REPORT_TOKEN_SECONDS: u64 = 30 * 86_400;

/// Why a guest's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum End {
    /// The browser closed it, or is gone.
    Left,
    /// Nothing came from the browser for long.
    Idle,
    /// Something other than a binary message.
    Text,
    /// A message that is no frame.
    Malformed,
    TooLong,
    /// More frames than a hand can make.
    TooFast,
    /// A request that is not for guests.
    Forbidden,
    /// The first frame was no Login of a guest.
    Stranger,
    /// The browser did not take what it was told.
    Slow,
    /// There are as many guests as there may be.
    Full,
    /// No server is known, or it does not answer.
    NoServer,
    /// The server ended its connection; its Goodbye says why.
    ServerEnded,
    /// The journal or the book of guests cannot take more.
    Books,
    /// This monitor stops.
    Stopping,
}

impl End {
    /// For metrics, and the reason that the browser is given.
    pub fn label(self) -> &'static str {
        self.into()
    }

    /// The WebSocket's close code (RFC 6455, 7.4; IANA's registry for 1012 to 1014).
    pub const fn code(self) -> u16 {
        match self {
            End::Left => 1000,
            End::Stopping => 1001,
            End::Text => 1003,
            End::Malformed => 1007,
            End::Idle | End::TooFast | End::Forbidden | End::Stranger | End::Slow => 1008,
            End::TooLong => 1009,
            End::Books => 1011,
            End::ServerEnded => 1012,
            End::Full | End::NoServer => 1013,
        }
    }
}

/// What decides over guests.
#[derive(Debug)]
pub struct Settings {
    /// How many at once; 0: there are none.
    pub max: usize,
    /// The server to play on; without it the first that reports an address of users.
    pub server: Option<SocketAddr>,
    /// Hosts whose reported addresses are believed.
    pub trusted: Vec<IpAddr>,
    pub journal: PathBuf,
}

/// Requests of a guest whose answers are still to come, with the token to ask for them again.
#[derive(Debug, Default)]
pub struct Unsettled {
    pub token: String,
    /// By request id.
    pub owed: HashMap<u64, ClientFrame>,
}

#[derive(Debug)]
pub struct Guests {
    settings: Settings,
    owner: mpsc::Sender<Message>,
    /// A place for each guest who may play.
    room: Arc<Semaphore>,
    signer: Signer,
    users: Verifier,
    minted: Mutex<RateLimit>,
    /// None before the first guest: until then there is no journal, and no source of reports.
    book: Mutex<Option<GuestBook>>,
    unsettled: Mutex<HashMap<u64, Unsettled>>,
    ends: [AtomicU64; End::VARIANTS.len()],
    /// Told when the first guest has come.
    begun: CancellationToken,
    /// Ends guests.
    pub stop: CancellationToken,
}

impl Guests {
    /// Nobody yet.
    pub fn new(settings: Settings, secret: &Secret, owner: mpsc::Sender<Message>) -> Self {
        Self {
            room: Arc::new(Semaphore::new(settings.max)),
            settings,
            owner,
            signer: Signer::new(secret),
            users: Verifier::hs256(secret, Audience::User),
            minted: Mutex::new(RateLimit::new(
                Rate { burst: NEW_GUESTS_BURST, interval_ms: NEW_GUESTS_INTERVAL_MS },
                PEERS_REMEMBERED_MAX,
            )),
            book: Mutex::default(),
            unsettled: Mutex::default(),
            ends: Default::default(),
            begun: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }

    /// How many may play at once.
    pub fn max(&self) -> usize {
        self.settings.max
    }

    /// How many play now.
    pub fn now(&self) -> usize {
        self.settings.max.saturating_sub(self.room.available_permits())
    }

    pub fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// The guest that a Login's token names; nobody else may come this way.
    pub fn guest(&self, token: &str) -> Option<u64> {
        self.users.verify_user(token).ok().map(|(user, _)| user.get()).filter(|user| *user >= GUEST_ID_MIN)
    }

    /// A guest's connection has ended.
    pub fn ended(&self, end: End) {
        self.ends[end as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Adds ends so far and who is there, for `/metrics`.
    pub fn metrics(&self, sample: &mut Sample) {
        let ended = |&end: &End| {
            let key =
                Key::labelled("guests_ended", "reason", end.label(), "Connections of guests that ended, by reason");
            (key, self.ends[end as usize].load(Ordering::Relaxed))
        };
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        sample.counters.extend(End::VARIANTS.iter().map(ended));
        sample.gauges.extend([
            (Key::new("guests", "Guests who play at this moment"), count(self.now())),
            (Key::new("guests_max", "Guests who may play at once"), count(self.max())),
            (
                Key::new("guests_unsettled", "Guests who are gone and to whom a server still owes an answer"),
                count(locked(&self.unsettled).len()),
            ),
        ]);
    }

    /// Makes the journal with the first guest. False: it cannot be written, or the book is full.
    pub fn open_book(&self) -> bool {
        let mut book = locked(&self.book);
        if book.is_none() {
            match GuestBook::create(&self.settings.journal) {
                Ok(begun) => *book = Some(begun),
                Err(error) => {
                    let path = self.settings.journal.display();
                    tracing::error!(event = "guest_journal_failed", %error, %path, "the guests' journal cannot be written: there are no guests");
                    return false;
                }
            }
            self.begun.cancel();
        }
        book.as_ref().is_some_and(|book| !book.is_full())
    }

    /// A guest is about to be told this. False: it must not be, because the journal cannot be
    /// written.
    pub fn receive(&self, user: u64, frame: &ServerFrame, is_shake: bool) -> bool {
        let mut book = locked(&self.book);
        let Some(book) = book.as_mut() else { return false };
        if is_shake {
            book.shaken();
        }
        match book.receive(user, frame, unix_millis()) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(event = "guest_journal_failed", %error, "the guests' journal cannot be written");
                false
            }
        }
    }

    /// Remembers what a server still owes to a guest who is gone.
    pub fn leave_unsettled(&self, user: u64, unsettled: Unsettled) {
        let mut all = locked(&self.unsettled);
        if all.len() < GUESTS_UNSETTLED_MAX || all.contains_key(&user) {
            all.insert(user, unsettled);
        } else {
            tracing::warn!(
                event = "guest_unsettled_dropped",
                user,
                "too many guests are unsettled: what this one was owed is not asked for"
            );
        }
    }

    /// Takes that over, to ask for it.
    pub fn take_unsettled(&self, user: u64) -> Option<Unsettled> {
        locked(&self.unsettled).remove(&user)
    }

    /// Where users connect.
    pub async fn server(&self) -> Option<SocketAddr> {
        if self.settings.server.is_some() {
            return self.settings.server;
        }
        let points = ask(&self.owner, Question::Controls).await.ok()?;
        points
            .iter()
            .filter(|point| point.role == Role::Server && point.presence == Presence::Reporting)
            .find_map(|point| trust::address(&point.listen, point.peer, &self.settings.trusted).ok())
    }

    /// Reports what guests were told, as a machine of the fleet does, from the first guest until
    /// `leave`. Then the guests are told to go, what is owed to them comes in, and the last totals
    /// are reported.
    pub async fn report(self: Arc<Self>, monitor: SocketAddr, leave: CancellationToken) {
        let left = async {
            leave.cancelled().await;
            self.stop.cancel();
            let all = u32::try_from(self.settings.max).unwrap_or(u32::MAX);
            if tokio::time::timeout(GUESTS_STOP_DEADLINE, self.room.acquire_many(all)).await.is_err() {
                tracing::warn!(
                    event = "guests_remain",
                    guests = self.now(),
                    "guests were still there at the stop's deadline"
                );
            }
        };
        tokio::select! {
            () = leave.cancelled() => return,
            () = self.begun.cancelled() => {}
        }
        let token = match self.signer.sign(GUESTS_SOURCE, Audience::Report, unix_seconds(), REPORT_TOKEN_SECONDS) {
            Ok(token) => token,
            Err(error) => {
                tracing::error!(event = "guests_unreported", %error, "guests cannot report");
                return left.await;
            }
        };
        let sample = |_second| {
            let book = locked(&self.book);
            book.as_ref().map(|book| book.sample(self.now())).unwrap_or_default()
        };
        Reporter::new(monitor, token, role::MACHINE, GUESTS_SOURCE).run_until(left, sample).await;
    }
}

/// The routes that are open to guests.
pub fn router(guests: &Arc<Guests>, access: &Arc<Access>) -> Router {
    let open = Router::new()
        .route("/api/v1/guests", axum::routing::post(mint))
        .route("/api/v1/odds", axum::routing::get(odds))
        .with_state(Arc::clone(guests));
    for_own_pages(open, access)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGuest {}

#[derive(Debug, Serialize)]
struct Minted {
    user: u64,
    token: String,
    expires_at: u64,
}

/// A new guest.
async fn mint(
    State(guests): State<Arc<Guests>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    JsonBody(NewGuest {}): JsonBody<NewGuest>,
) -> Result<Json<Minted>, ApiError> {
    if guests.max() == 0 {
        return Err(no_guests());
    }
    let taken = locked(&guests.minted).take(peer.ip(), monotonic_millis());
    taken.map_err(|wait_ms| too_many("many guests have come from this address", wait_ms))?;
    minted(&guests).map(Json)
}

fn no_guests() -> ApiError {
    ApiError::new(
        axum::http::StatusCode::FORBIDDEN,
        "no_guests",
        "this monitor has no guests; start it with --guests N",
    )
}

fn minted(guests: &Guests) -> Result<Minted, ApiError> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|error| ApiError::internal(format!("no randomness: {error}")))?;
    let id = GUEST_ID_MIN | (u64::from_ne_bytes(random) & (GUEST_ID_MIN - 1));
    let user = UserId::new(id).map_err(|error| ApiError::internal(error.to_string()))?;
    let now = unix_seconds();
    let token = guests.signer.sign_user(user, now, GUEST_TOKEN_SECONDS);
    let token = token.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(Minted { user: id, token, expires_at: now + GUEST_TOKEN_SECONDS })
}

/// What a guest may know of the others: the last whole second's shakes and wins.
async fn odds(State(guests): State<Arc<Guests>>) -> Result<Json<serde_json::Value>, ApiError> {
    if guests.max() == 0 {
        return Err(no_guests());
    }
    let seconds = ask(&guests.owner, |reply| Question::Seconds { from: None, limit: 5, reply }).await?;
    let seconds: Vec<_> = seconds.iter().map(|second| second.headline).collect();
    let last = seconds.last();
    Ok(Json(json!({
        "second": last.map(|last| last.second),
        "users_online": last.map(|last| last.users_online),
        "seconds": seconds.len(),
        "shakes": seconds.iter().map(|second| second.received).sum::<i64>(),
        "issued": seconds.iter().map(|second| second.issued).sum::<i64>(),
        "wins": seconds.iter().map(|second| second.won).sum::<i64>(),
        "guests": guests.now(),
        "guests_max": guests.max(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guests(max: usize) -> Guests {
        let secret = Secret::from_text("0123456789abcdef0123456789abcdef").unwrap();
        let journal = "/dev/null/guests.csv".into();
        let settings = Settings { max, server: None, trusted: Vec::new(), journal };
        Guests::new(settings, &secret, mpsc::channel(1).0)
    }

    #[test]
    fn a_guests_id_is_no_fleets_and_only_guests_come_this_way() {
        let guests = guests(1);
        let minted = minted(&guests).unwrap();
        assert!((GUEST_ID_MIN..=UserId::MAX).contains(&minted.user));
        assert_eq!(guests.guest(&minted.token), Some(minted.user));
        let sign = |user| guests.signer.sign_user(UserId::new(user).unwrap(), unix_seconds(), 60).unwrap();
        assert_eq!(guests.guest(&sign(GUEST_ID_MIN - 1)), None);
        assert_eq!((guests.guest(&sign(1)), guests.guest("")), (None, None));
    }

    #[test]
    fn places_are_bounded_and_those_who_leave_make_room() {
        let guests = guests(1);
        let place = guests.enter().unwrap();
        assert_eq!((guests.now(), guests.enter().is_none()), (1, true));
        drop(place);
        assert_eq!((guests.now(), guests.enter().is_some()), (0, true));
    }

    #[test]
    fn without_a_journal_nobody_plays() {
        assert!(!guests(1).open_book());
    }

    #[test]
    fn what_is_owed_to_those_who_left_is_bounded() {
        let guests = guests(1);
        for user in 0..=GUESTS_UNSETTLED_MAX as u64 {
            guests.leave_unsettled(user, Unsettled::default());
        }
        assert!(guests.take_unsettled(0).is_some() && guests.take_unsettled(0).is_none());
        assert!(guests.take_unsettled(GUESTS_UNSETTLED_MAX as u64).is_none());
    }

    #[test]
    fn every_end_has_a_code_that_a_browser_may_be_sent() {
        for (index, &end) in End::VARIANTS.iter().enumerate() {
            assert_eq!(end as usize, index);
            assert!(![1004, 1005, 1006, 1015].contains(&end.code()) && (1000..1016).contains(&end.code()));
        }
        let labels: Vec<_> = End::VARIANTS.iter().map(|end| end.label()).collect();
        let counted = "left idle text malformed too_long too_fast forbidden stranger slow full no_server server_ended \
                       books stopping";
        assert_eq!(labels.join(" "), counted);
    }
}
