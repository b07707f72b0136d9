//! The HTTP control surface of a machine. Handlers may run anywhere, the state may not: they send
//! commands to one task next to it and wait for what it says.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use hongbao_proto::token::{Audience, Secret, Verifier};
use hongbao_telemetry::http::{self, ApiError, JsonBody};
use hongbao_telemetry::metrics::{self, CumulativeHistograms, Format};
use hongbao_telemetry::report::Sample;
use hongbao_telemetry::report::names::event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::clock::SECOND;
use crate::limits::{CLOSE_STEP, COMMANDS_MAX, STORM_PAUSE};
use crate::machine::crowd::QpsError;
use crate::machine::shared::Shared;
use crate::machine::storms::StormError;
use crate::machine::view;
use crate::results::{QpsChange, Results, SaleOrder, StatementsOrder, Status, StopAt, StormOrder};

/// What a handler wants; each carries where the answer goes.
#[derive(Debug)]
enum Command {
    Status(oneshot::Sender<Status>),
    Results(oneshot::Sender<Results>),
    Order(Order, oneshot::Sender<Done>),
    Metrics(oneshot::Sender<(Sample, CumulativeHistograms)>),
}

#[derive(Debug)]
enum Order {
    Qps(QpsChange),
    Storm(StormOrder),
    Sale(SaleOrder),
    Statements(StatementsOrder),
    Stop(StopAt),
}

type Done = Result<(), ApiError>;

type Commands = mpsc::Sender<Command>;

/// Serves until `shutdown`.
pub async fn serve(
    shared: Rc<Shared>,
    listener: TcpListener,
    secret: &Secret,
    shutdown: oneshot::Receiver<()>,
) -> io::Result<()> {
    let (commands, mut inbox) = mpsc::channel(COMMANDS_MAX);
    let router = router(commands, secret);
    let until = async {
        // The machine's end, said or dropped.
        shutdown.await.ok();
    };
    let mut serving = std::pin::pin!(http::serve(http::CONNECTIONS_MAX, listener, router, until));
    loop {
        tokio::select! {
            served = &mut serving => return served,
            Some(command) = inbox.recv() => apply(&shared, command),
        }
    }
}

fn router(commands: Commands, secret: &Secret) -> Router {
    let guarded = Router::new()
        .route("/v1/status", view_of(Command::Status))
        .route("/v1/results", view_of(Command::Results))
        .route("/v1/qps", order(Order::Qps, StatusCode::OK))
        .route("/v1/storm", order(Order::Storm, StatusCode::OK))
        .route("/v1/sale", order(Order::Sale, StatusCode::OK))
        .route("/v1/statements", order(Order::Statements, StatusCode::ACCEPTED))
        .route("/v1/stop", order(Order::Stop, StatusCode::ACCEPTED))
        .with_state(commands.clone());
    let open =
        Router::new().route("/healthz", get(|| async { "ok\n" })).route("/metrics", get(metrics)).with_state(commands);
    http::require_admin(guarded, Arc::new(Verifier::hs256(secret, Audience::Admin))).merge(open)
}

/// A caller who has gone does not want the answer any more.
fn apply(shared: &Rc<Shared>, command: Command) {
    match command {
        Command::Status(reply) => drop(reply.send(view::status(shared))),
        Command::Results(reply) => drop(reply.send(view::results(shared))),
        Command::Order(order, reply) => drop(reply.send(carry_out(shared, order))),
        Command::Metrics(reply) => {
            let sample = match shared.config.common.monitor {
                // The reporter takes the histograms.
                Some(_) => view::sample(shared, u64::MAX),
                None => view::sample_of_seconds(shared, u64::MAX),
            };
            drop(reply.send((sample, shared.cumulative.borrow().clone())));
        }
    }
}

fn carry_out(shared: &Rc<Shared>, order: Order) -> Done {
    match order {
        Order::Qps(change) => announce(shared, change).map_err(conflict)?,
        Order::Storm(order) => announce_storm(shared, order).map_err(conflict)?,
        Order::Sale(order) => shared.crowd.borrow_mut().sale = Some(order),
        Order::Statements(order) => shared.crowd.borrow_mut().read_statements(order.users, shared.clock.now()),
        Order::Stop(StopAt { at: None }) => shared.ask_to_stop(0),
        Order::Stop(StopAt { at: Some(at) }) => {
            announce(shared, QpsChange { qps: 0, at, mix: None, planned: true }).map_err(conflict)?;
            shared.ask_to_stop(at.saturating_mul(SECOND));
        }
    }
    Ok(())
}

/// From second `at` on the fleet sends `qps` requests a second.
pub fn announce(shared: &Shared, QpsChange { qps, at, mix, planned }: QpsChange) -> Result<(), QpsError> {
    let now = shared.clock.now();
    shared.crowd.borrow_mut().announce(at.saturating_mul(SECOND), qps, mix, now)?;
    shared.schedule_changed.notify_one();
    tracing::info!(event = "qps_announced", qps, at, "announced");
    let kind = if planned { event::PHASE } else { event::QPS };
    // The same words on every machine: the monitor makes one mark of them.
    let text = match qps {
        0 => "no more requests".to_owned(),
        _ => format!("{qps} requests a second"),
    };
    shared.events.push(at.saturating_mul(1_000), kind, text);
    Ok(())
}

/// At the storm's second its users are cut, as fast as this machine can while others get their
/// turns.
fn announce_storm(shared: &Rc<Shared>, order: StormOrder) -> Result<(), StormError> {
    shared.crowd.borrow_mut().storms.announce(order, shared.clock.now())?;
    tracing::info!(event = "storm_announced", share = %order.share, at = order.at, "storm announced");
    shared.events.push(order.at.saturating_mul(1_000), event::STORM, format!("{} of the users are cut", order.share));
    let shared = Rc::clone(shared);
    tokio::task::spawn_local(async move {
        tokio::time::sleep_until(shared.clock.instant(order.at.saturating_mul(SECOND)).into()).await;
        let hit = shared.crowd.borrow_mut().storm_begins(order);
        for users in hit.chunks(CLOSE_STEP as usize) {
            shared.crowd.borrow_mut().cut(users, shared.clock.now());
            // The other machines of this host are at it too, and there are requests to send.
            tokio::time::sleep(STORM_PAUSE).await;
        }
        shared.crowd.borrow_mut().storms.spend();
    });
    Ok(())
}

fn conflict(error: impl ToString) -> ApiError {
    ApiError::conflict(error.to_string())
}

fn view_of<T: Serialize + Send + 'static>(command: fn(oneshot::Sender<T>) -> Command) -> MethodRouter<Commands> {
    get(move |State(commands): State<Commands>| async move { ask(&commands, command).await.map(Json) })
}

/// A route that takes an order and echoes it, once the machine has accepted it.
fn order<T>(order_of: fn(T) -> Order, status: StatusCode) -> MethodRouter<Commands>
where
    T: Copy + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    post(move |State(commands): State<Commands>, JsonBody(order): JsonBody<T>| async move {
        ask(&commands, |reply| Command::Order(order_of(order), reply)).await??;
        Ok::<_, ApiError>((status, Json(order)))
    })
}

async fn ask<T>(commands: &Commands, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ApiError> {
    let (reply, answer) = oneshot::channel();
    let stopping = || ApiError::unavailable("the machine is stopping");
    commands.send(command(reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

async fn metrics(State(commands): State<Commands>, format: Format) -> Result<Response, ApiError> {
    let (sample, histograms) = ask(&commands, Command::Metrics).await?;
    Ok(metrics::response("machine", &sample, &histograms, format))
}
