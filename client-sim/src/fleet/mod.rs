//! A whole run: machines are started and connect, memory is read, it rains, each phase is announced
//! for a wall-clock second, answers come in, books are compared, one summary is drawn. [`run`] is
//! that run from above; what can be decided without a process or a socket is decided in
//! [`verdict`].

pub mod admin;
pub mod announcements;
pub mod changes;
pub mod children;
pub mod events;
pub mod http;
pub mod journals;
pub mod plan;
pub mod progress;
pub mod purchases;
pub mod storms;
pub mod table;
pub mod targets;
pub mod verdict;

use std::io;
use std::time::{Duration, Instant};

use hongbao_telemetry::program::output;
use hongbao_telemetry::summary::Memory;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use crate::clock::{self, Clock, ClockError, SECOND};
use crate::limits::ANNOUNCE_SECONDS;
use crate::ntp_responder;
use crate::results::{QpsChange, SaleOrder, Status, StormOrder};
use admin::{Admin, Stats};
use children::{Children, MachineTrouble};
use plan::Plan;
use progress::Progress;
use verdict::{Effort, Evidence, Summary};

/// Between two looks at machines that connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);

/// How much further ahead the first phase is announced where a sale is to be created in between,
/// seconds.
const SALE_LEAD_SECONDS: u64 = 2;

/// For so long a machine may be too busy to say how it is.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// For a reading of the server's processor time.
const STATS_DEADLINE: Duration = Duration::from_millis(500);

/// For machines to close their connections and end, beyond the answer timeout.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// What ends a run before its summary. One line each.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("{what}: {source}")]
    Host { what: String, source: io::Error },
    #[error(transparent)]
    Clock(#[from] ClockError),
    #[error(transparent)]
    Machine(#[from] MachineTrouble),
    #[error("admin: {0}")]
    Admin(#[from] http::CallError),
    #[error(transparent)]
    Token(#[from] hongbao_proto::token::TokenError),
    #[error("interrupted")]
    Interrupted,
}

fn host(what: impl Into<String>) -> impl FnOnce(io::Error) -> FleetError {
    let what = what.into();
    move |source| FleetError::Host { what, source }
}

/// Runs the plan, prints the summary and writes it. No machine is left behind, however it ends;
/// `stop`: ends it early.
pub fn run(plan: &Plan, stop: impl Future<Output = ()>) -> Result<Summary, FleetError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(host("runtime"))?;
    runtime.block_on(async {
        std::fs::create_dir_all(&plan.journal_dir).map_err(host(plan.journal_dir.display().to_string()))?;
        let (ntp, clock) = time_source(plan).await?;
        let mut children = Children::new(plan, clock.now() / SECOND)?;
        let conducted = tokio::select! {
            conducted = conduct(plan, &clock, &ntp, &mut children) => conducted,
            () = stop => Err(FleetError::Interrupted),
        };
        children.end().await;
        let summary = conducted?;
        output::print(format!("{}\n", table::render(&summary)));
        if let Some(path) = &plan.summary {
            let json = serde_json::to_vec_pretty(&summary).map_err(|error| host("summary")(error.into()))?;
            std::fs::write(path, json).map_err(host(path.display().to_string()))?;
        }
        Ok(summary)
    })
}

/// Where machines take their time from, and the fleet's own clock by the same.
async fn time_source(plan: &Plan) -> Result<(String, Clock), FleetError> {
    if let Some(ntp) = &plan.ntp {
        return Ok((ntp.clone(), Clock::new(clock::measure(ntp).await?)));
    }
    Ok((ntp_responder::start().await.map_err(host("SNTP responder"))?, Clock::own()))
}

async fn conduct(plan: &Plan, clock: &Clock, ntp: &str, children: &mut Children) -> Result<Summary, FleetError> {
    let mut progress = Progress::default();
    if plan.ntp.is_none() {
        progress.print("no --ntp: machines share this host's clock, by the fleet's own SNTP responder");
    }
    progress.print(&format!("journals: {}", plan.journal_dir.display()));
    let admin = plan.admin.as_ref().map(|url| Admin::new(url, &plan.secret, clock.now() / SECOND)).transpose()?;
    let before = stats(admin.as_ref()).await?;

    children.start(plan, ntp).await?;
    let mut evidence = Evidence::default();
    (evidence.connected, evidence.connect_seconds) = connect(plan, children, &mut progress).await?;
    if evidence.connected < u64::from(plan.users) {
        // Phases with fewer users would measure something else.
        return Ok(verdict::judge(plan, evidence));
    }
    sleep(plan.settle).await;
    evidence.memory = memory(plan, before, stats(admin.as_ref()).await?, &statuses(children).await?);

    let campaign = match (&admin, plan.rain) {
        (Some(admin), Some(rain)) => Some(admin.create_rain(plan, rain).await?),
        _ => None,
    };
    if let (Some(admin), Some(fen)) = (&admin, plan.deposit) {
        // Unique to this run: a key is good for one deposit.
        admin.deposit(plan.users, fen, &format!("fleet run {}", clock.now())).await?;
    }
    let first =
        clock.now() / SECOND + 1 + if plan.tickets.is_some() { SALE_LEAD_SECONDS } else { 0 } + ANNOUNCE_SECONDS;
    evidence.first_second = first;
    let sale = open_sale(plan, first, admin.as_ref(), children).await?;
    announce(plan, first, children).await?;
    let (efforts, (posted, refused), (run, trouble)) = tokio::try_join!(
        watch(plan, clock, first, admin.as_ref(), children, &mut progress),
        async { Ok(announcements::post(plan, clock, first, admin.as_ref()).await) },
        async { Ok(purchases::run_envelopes(plan, clock, first, admin.as_ref()).await) },
    )?;
    evidence.efforts = efforts;
    evidence.troubles.extend(refused.into_iter().chain(trouble));

    if let (Some(admin), Some(campaign)) = (&admin, campaign) {
        evidence.note(admin.stop(campaign).await.map_err(FleetError::Admin));
    }
    let deliveries = posted.len() as u64 * u64::from(plan.users);
    await_answers(plan, first, storms_over_by(plan, clock, first), deliveries, children, &mut progress).await?;
    if plan.statements > 0 {
        children.statements(plan.statements).await?;
        await_answers(plan, first, Instant::now(), deliveries, children, &mut progress).await?;
    }
    progress.end();
    (evidence.posted, evidence.run) = (posted, run);
    if let Some(admin) = &admin {
        announcements::ask(&mut evidence.posted, admin).await;
        if let Some(campaign) = campaign {
            evidence.campaign = evidence.note(admin.campaign(campaign).await.map_err(FleetError::Admin));
        }
        if let Some(sale) = sale {
            evidence.note(admin.stop(sale).await.map_err(FleetError::Admin));
            evidence.sale = evidence.note(admin.campaign(sale).await.map_err(FleetError::Admin));
        }
    }
    let (results, silent) = children.results().await;
    evidence.results = results;
    evidence.troubles.extend(silent);
    evidence.troubles.extend(children.stop(plan.common.answer_timeout + STOP_PATIENCE).await?);
    let journals = (0..plan.machines).map(|index| plan.journal(index));
    evidence.words = evidence.note(journals::read_all(journals, plan.guest_journal.as_deref())).unwrap_or_default();
    Ok(verdict::judge(plan, evidence))
}

/// Puts the plan's tickets on sale and tells the machines. Returns the campaign's id.
async fn open_sale(
    plan: &Plan,
    first: u64,
    admin: Option<&Admin>,
    children: &mut Children,
) -> Result<Option<u32>, FleetError> {
    let (Some(admin), Some(tickets)) = (admin, plan.tickets) else { return Ok(None) };
    let starts_at_ms = (plan.phases_begin(first) + tickets.at_second) * 1_000;
    let campaign = admin.create_sale(plan, tickets, starts_at_ms).await?;
    children.post("/v1/sale", &SaleOrder { campaign, limit: tickets.limit }).await?;
    Ok(Some(campaign))
}

async fn stats(admin: Option<&Admin>) -> Result<Option<Stats>, FleetError> {
    match admin {
        Some(admin) => Ok(Some(admin.stats().await?)),
        None => Ok(None),
    }
}

/// What every machine says of itself, once all do, if they ever do.
async fn statuses(children: &mut Children) -> Result<Vec<Status>, FleetError> {
    let begun = Instant::now();
    loop {
        match children.statuses().await? {
            Some(statuses) => return Ok(statuses),
            None if begun.elapsed() > SILENCE_MAX => {
                let silent = format!("some machine has not said how it is for {SILENCE_MAX:?}");
                return Err(MachineTrouble::Other(silent).into());
            }
            None => sleep(CONNECT_PAUSE).await,
        }
    }
}

/// Waits until every user is logged in, and in its room if there are rooms; or the time for that is
/// over. Returns how many are, and after how many seconds.
async fn connect(plan: &Plan, children: &mut Children, progress: &mut Progress) -> Result<(u64, f64), FleetError> {
    let (begun, users) = (Instant::now(), u64::from(plan.users));
    progress.begin(users);
    loop {
        let statuses = statuses(children).await?;
        let online = statuses.iter().map(|status| status.online).sum();
        let joining = plan.common.rooms > 0 && statuses.iter().any(|status| status.reactions_outstanding > 0);
        let elapsed = begun.elapsed();
        progress.show_connecting(online, users, &statuses);
        if (online == users && !joining) || elapsed > plan.connect_timeout {
            return Ok((online, elapsed.as_secs_f64()));
        }
        sleep(CONNECT_PAUSE).await;
    }
}

/// What all idle connections have added, by the connection.
fn memory(plan: &Plan, before: Option<Stats>, after: Option<Stats>, statuses: &[Status]) -> Memory {
    let users = u64::from(plan.users);
    let server =
        before.zip(after).map(|(before, after)| after.process.rss_bytes.saturating_sub(before.process.rss_bytes));
    let fleet: u64 = statuses
        .iter()
        .map(|status| status.process.rss_bytes.saturating_sub(status.process.rss_bytes_before_users))
        .sum();
    Memory {
        server_rss_bytes_per_connection: server.map(|bytes| bytes / users),
        fleet_rss_bytes_per_user: Some(fleet / users),
    }
}

/// Tells every machine of every phase, the first of which begins in second `first`, of the pause
/// behind the last, and of every storm.
async fn announce(plan: &Plan, first: u64, children: &mut Children) -> Result<(), FleetError> {
    let mut at = first;
    for phase in plan.stretches() {
        children.post("/v1/qps", &QpsChange { qps: phase.qps, at, mix: phase.mix, planned: true }).await?;
        at += phase.seconds;
    }
    children.post("/v1/qps", &QpsChange { qps: 0, at, mix: None, planned: true }).await?;
    let watch_seconds = u32::try_from(plan.storm_deadline.as_secs()).unwrap_or(u32::MAX);
    for storm in &plan.storm {
        let at = plan.storm_at(first, storm);
        children.post("/v1/storm", &StormOrder { share: storm.share, at, watch_seconds }).await?;
    }
    Ok(())
}

/// Looks on once a second until the last phase is over.
async fn watch(
    plan: &Plan,
    clock: &Clock,
    first: u64,
    admin: Option<&Admin>,
    children: &mut Children,
    progress: &mut Progress,
) -> Result<Vec<Effort>, FleetError> {
    let (mut efforts, mut from, mut admin_answers) = (Vec::new(), first, true);
    for phase in plan.stretches() {
        let end = from + phase.seconds;
        progress.begin(phase.seconds);
        for second in from..end {
            // A little into each second, when machines have closed the one before.
            tokio::time::sleep_until(clock.instant(second * SECOND + SECOND / 5).into()).await;
            // A machine that is slow to say how it is may be no slower at what counts: that is
            // judged at the end.
            let Some(statuses) = children.statuses().await? else { continue };
            let left = end - second;
            progress.show(second - from, phase.seconds, &progress::running(&statuses, &phase.name, left));
            let server_cpu_us = server_cpu(admin).await.unwrap_or_else(|error| {
                // The books are what counts, and they are read at the end; this costs the processor
                // time only.
                if std::mem::replace(&mut admin_answers, false) {
                    progress.print(&format!("admin: {error}"));
                }
                None
            });
            efforts.push(Effort {
                at: clock.now(),
                server_cpu_us,
                fleet_cpu_us: statuses.iter().map(|status| status.process.cpu_micros).sum(),
                answered: statuses.iter().map(|status| status.totals.answered).sum(),
            });
        }
        from = end;
    }
    tokio::time::sleep_until(clock.instant(from * SECOND).into()).await;
    Ok(efforts)
}

/// Server's processor time so far, microseconds.
async fn server_cpu(admin: Option<&Admin>) -> Result<Option<u64>, String> {
    let Some(admin) = admin else { return Ok(None) };
    match timeout(STATS_DEADLINE, admin.stats()).await {
        Ok(Ok(stats)) => Ok(Some(micros(stats.process.cpu_seconds))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", STATS_DEADLINE.as_millis())),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a process's seconds")]
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// When the last storm has had its time; now, where there is none.
fn storms_over_by(plan: &Plan, clock: &Clock, first: u64) -> Instant {
    let last = plan.storm.last().map(|storm| plan.storm_at(first, storm) + plan.storm_deadline.as_secs());
    last.map_or_else(Instant::now, |second| clock.instant(second * SECOND))
}

/// Waits until no machine awaits an answer or a user whom a storm has cut, and all `deliveries` of
/// announcements were made; or none of that can come any more.
async fn await_answers(
    plan: &Plan,
    first: u64,
    storms_over_by: Instant,
    deliveries: u64,
    children: &mut Children,
    progress: &mut Progress,
) -> Result<(), FleetError> {
    let begun = Instant::now();
    // Some orders are left to expire, and asked after then.
    let lapsing = if plan.tickets.is_some() { plan.hold } else { Duration::ZERO };
    let deadline = storms_over_by.max(begun + lapsing) + plan.common.answer_timeout + STOP_PATIENCE;
    loop {
        let statuses = statuses(children).await?;
        // One that somebody else has ordered has as much time.
        let is_planned = |at| plan.storm.iter().any(|storm| plan.storm_at(first, storm) == at);
        let unplanned =
            statuses.iter().flat_map(|status| &status.storms).any(|storm| !storm.over && !is_planned(storm.storm.at));
        let storms_over_by = if unplanned { storms_over_by.max(begun + plan.storm_deadline) } else { storms_over_by };
        let deadline = deadline.max(storms_over_by + plan.common.answer_timeout + STOP_PATIENCE);
        let open: u64 = statuses
            .iter()
            .map(|status| status.outstanding + status.acknowledges_outstanding + status.reactions_outstanding)
            .sum();
        let stormy = statuses.iter().flat_map(|status| &status.storms).any(|storm| !storm.over);
        // Who reconnected may never hear one, so these are not waited for longer than an answer.
        let delivered: u64 = statuses.iter().map(|status| status.totals.announcements).sum();
        let undelivered = delivered < deliveries && begun.elapsed() < plan.common.answer_timeout;
        let waiting = open > 0 || undelivered || (stormy && Instant::now() <= storms_over_by);
        if !waiting || Instant::now() > deadline {
            return Ok(());
        }
        progress.show(0, open, "answers awaited");
        sleep(CONNECT_PAUSE).await;
    }
}
