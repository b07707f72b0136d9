//! Everything that users do besides shaking, over real sockets: against a server that does well,
//! and against one that lies.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{Ask, FakeServer, Machine, PRICE, SALE, wall_ms};
use hongbao_proto::v1::order::State;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ServerFrame};
use hongbao_sim::limits::REACTION_TRIES_MAX;
use hongbao_sim::machine::chat::Circle;
use hongbao_sim::machine::config::{MachineArgs, UserRange};
use hongbao_sim::machine::labels::Violation;
use hongbao_sim::results::{Results, Status};
use serde_json::json;

fn mix(text: &'static str) -> impl FnOnce(&mut MachineArgs) {
    move |config| {
        config.common.mix = text.parse().unwrap();
        config.sale = Some(SALE);
    }
}

async fn online(machine: &Machine, users: u64) {
    machine.until("login of all", |status| status.online == users && status.reactions_outstanding == 0).await;
}

/// Nothing is awaited any more.
fn is_settled(status: &Status) -> bool {
    status.outstanding + status.reactions_outstanding + status.acknowledges_outstanding == 0
}

fn no_violations(results: &Results) {
    assert!(results.totals.violations.is_empty(), "{:?}", results.totals.violations);
    assert_eq!((results.outstanding, results.reactions_outstanding), (0, 0));
}

/// Rows of one kind in a machine's journal: user, request, item, fen.
fn rows(directory: &Path, what: &str) -> Vec<(u64, u64, String, u64)> {
    let journal = std::fs::read_to_string(directory.join("journal.csv")).unwrap();
    let of_kind = journal.lines().filter_map(|line| line.strip_prefix(what)?.strip_prefix(','));
    let row = |line: &str| {
        let mut cells = line.split(',');
        let mut number = || cells.next().unwrap().to_owned();
        let (user, request, item, fen) = (number(), number(), number(), number());
        (user.parse().unwrap(), request.parse().unwrap(), item, fen.parse().unwrap())
    };
    of_kind.map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_schedule_keeps_its_qps_and_each_operation_its_part() {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 50, mix("grab=5,open=2,chat=2,ticket=1")).await;
    online(&machine, 50).await;
    (1..=20).for_each(|envelope| server.offer(1..=50, envelope, usize::MAX));
    machine.until("all offers", |status| status.totals.envelopes.offered == 1_000).await;
    machine.hold(1_000, 1).await;
    // Some orders are left to expire, long after this test.
    let quiet = |status: &Status| {
        status.totals.answered == 1_000
            && status.reactions_outstanding == status.totals.orders.waiting
            && status.acknowledges_outstanding == 0
    };
    machine.until("all answers", quiet).await;
    let (results, directory) = machine.stop().await;
    assert!(results.totals.violations.is_empty(), "{:?}", results.totals.violations);

    let of = |name: &str| &results.operations[name];
    for (name, planned) in [("grab", 500), ("open", 200), ("chat", 200), ("ticket", 100)] {
        let one = of(name);
        assert_eq!((one.planned, one.sent, one.answered), (planned, planned, planned), "{name}");
        assert!(!one.latency.is_empty());
    }
    assert_eq!(
        (results.totals.stand_ins, of("open").outcomes["opened"], of("ticket").outcomes["order"]),
        (0, 200, 100)
    );
    let chat = results.totals.chat;
    assert_eq!((chat.delivered, chat.received, chat.offline, chat.dropped), (200, 200, 0, 0));

    let seen = server.seen.lock().unwrap();
    assert_eq!(results.totals.prizes, seen.won.len() as u64);
    let shares = rows(directory.path(), "share");
    let items: BTreeSet<&String> = shares.iter().map(|(_, _, item, _)| item).collect();
    assert_eq!((shares.len(), items.len()), (200, 200));
    assert_eq!(shares.iter().map(|(_, _, _, fen)| fen).sum::<u64>(), results.totals.envelopes.opened_fen);
    let orders = rows(directory.path(), "order");
    assert_eq!(orders.len(), 100);
    for (user, request, item, fen) in orders {
        let order = item.split('/').next().unwrap().parse::<usize>().unwrap();
        let (owner, known) = &seen.orders[order - 1];
        assert_eq!((user, request, fen), (*owner, known.grabbed_by_request_id, PRICE));
        assert_eq!(item, format!("{order}/{SALE}/{}", known.serial));
    }
    let counted = results.totals.orders;
    assert_eq!(rows(directory.path(), "paid").len() as u64, counted.paid);
    assert_eq!(rows(directory.path(), "cancelled").len() as u64, counted.cancelled);
    let in_state = |state| seen.orders.iter().filter(|(_, order)| order.state() == state).count() as u64;
    assert_eq!((counted.paid, counted.cancelled), (in_state(State::Paid), in_state(State::Cancelled)));
    assert_eq!(counted.paid + counted.cancelled + counted.waiting, 100);
    assert_eq!((results.sales[0].campaign, results.sales[0].paid_fen), (SALE, PRICE * counted.paid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_without_anything_to_open_or_buy_is_a_grab_instead() {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 10, |config| config.common.mix = "open=1,ticket=1".parse().unwrap()).await;
    online(&machine, 10).await;
    machine.hold(100, 1).await;
    machine.until("all answers", |status| status.totals.answered == 100).await;
    let (results, _directory) = machine.stop().await;
    no_violations(&results);
    assert_eq!((results.totals.stand_ins, results.operations["grab"].answered), (100, 100));
    assert_eq!(server.seen.lock().unwrap().grabs.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phase_may_have_its_own_mix_and_a_sale_may_be_named_later() {
    let server = FakeServer::start().await;
    let machine = Machine::start(&server, 10).await;
    online(&machine, 10).await;
    assert_eq!(machine.post("/v1/sale", json!({"campaign": SALE, "limit": null})).await.status(), 200);
    let from = machine.hold(50, 1).await + 1;
    let second = |at: u64, qps: u32, mix: &str| json!({"qps": qps, "at": at, "mix": mix});
    assert_eq!(machine.post("/v1/qps", second(from + 1, 50, "ticket=1")).await.status(), 200);
    assert_eq!(machine.post("/v1/qps", json!({"qps": 0, "at": from + 2})).await.status(), 200);
    assert_eq!(machine.post("/v1/qps", second(from + 9, 5, "ticket=0")).await.status(), 422);
    machine.until("all answers", |status| status.totals.answered == 100).await;
    let (results, _directory) = machine.stop().await;
    assert!(results.totals.violations.is_empty(), "{:?}", results.totals.violations);
    assert_eq!((results.operations["grab"].answered, results.operations["ticket"].answered), (50, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_open_envelopes_offered_and_acknowledge_empty_ones() {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 40, |config| config.react = true).await;
    online(&machine, 40).await;
    // Some are refused at first, and one loses its connection with the question.
    server.mischief.refuse_deals.store(5, Ordering::SeqCst);
    server.mischief.cut_open.store(true, Ordering::SeqCst);
    (1..=4).for_each(|envelope| server.offer(1..=40, envelope, 30));
    let status = machine
        .until("all envelopes", |status| {
            let envelopes = status.totals.envelopes;
            (envelopes.opened, envelopes.empty) == (4 * 30, 4 * 10) && is_settled(status)
        })
        .await;
    assert_eq!((status.totals.planned, status.totals.envelopes.offered), (0, 160));
    let (results, directory) = machine.stop().await;
    no_violations(&results);
    let opens = &results.reactions["open"];
    // Those asked again, of which one share in sixteen is; and the five refused.
    assert!((165..200).contains(&opens.sent), "{}", opens.sent);
    assert_eq!((opens.outcomes["overloaded"], opens.outcomes["envelope_empty"], results.totals.reconnects), (5, 40, 1));
    assert_eq!(rows(directory.path(), "share").len(), 120);
    let seen = server.seen.lock().unwrap();
    assert_eq!(results.totals.envelopes.opened_fen, 4 * (30 * 31 / 2));
    assert_eq!(seen.acknowledged_envelopes, BTreeSet::from([1, 2, 3, 4]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_refuses_too_often_is_given_up() {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 1, |config| config.react = true).await;
    online(&machine, 1).await;
    server.mischief.refuse_deals.store(1_000, Ordering::SeqCst);
    server.offer(1..=1, 1, usize::MAX);
    let refused = u64::from(REACTION_TRIES_MAX) + 1;
    let tried = |status: &Status| status.totals.reactions.get("open") == Some(&refused) && is_settled(status);
    machine.until("the last try", tried).await;
    let (results, _directory) = machine.stop().await;
    no_violations(&results);
    assert_eq!(results.reactions["open"].outcomes["overloaded"], refused);
    assert_eq!(server.seen.lock().unwrap().opens, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_who_do_not_react_open_in_their_turns_only() {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 10, |config| config.common.mix = "grab=1,open=1".parse().unwrap()).await;
    online(&machine, 10).await;
    (1..=10).for_each(|envelope| server.offer(1..=10, envelope, usize::MAX));
    machine.until("all offers", |status| status.totals.envelopes.offered == 100).await;
    machine.hold(100, 1).await;
    machine.until("all answers", |status| status.totals.answered == 100).await;
    let (results, _directory) = machine.stop().await;
    no_violations(&results);
    assert_eq!((results.totals.envelopes.opened, results.reactions.len()), (50, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_orders_are_asked_after_and_only_true_limits_believed() {
    let server = FakeServer::start().await;
    server.mischief.hold_ms.store(300, Ordering::SeqCst);
    server.mischief.limit.store(5, Ordering::SeqCst);
    let machine = Machine::start_as(&server, 20, mix("ticket=1")).await;
    online(&machine, 20).await;
    machine.hold(400, 1).await;
    machine
        .until("all orders decided", |status| {
            status.totals.answered == 400 && is_settled(status) && status.totals.orders.waiting == 0
        })
        .await;
    let (results, _directory) = machine.stop().await;
    no_violations(&results);
    let orders = results.totals.orders;
    assert_eq!(orders.paid + orders.cancelled + orders.expired, orders.reserved);
    assert!(orders.expired > 0 && orders.cancelled > 0, "{orders:?}");
    assert!(results.operations["ticket"].outcomes["limit_reached"] > 100);
    assert!(results.reactions["orders"].answered > 0);
    let seen = server.seen.lock().unwrap();
    let told: BTreeSet<_> = seen.acknowledged_orders.iter().collect();
    assert_eq!(told.len(), seen.orders.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recalled_item_is_journaled_acted_on_and_acknowledged_once() {
    let server = FakeServer::start().await;
    let machine = Machine::start(&server, 2).await;
    online(&machine, 2).await;
    let order = v1::Order { order_id: 100, ..order(7, State::Paid) };
    let won = v1::Won { campaign_id: 1, serial: 4, amount_fen: 9, won_by_request_id: 5 };
    for _ in 0..2 {
        server.push(1, Event::Reminder(v1::Reminder { wins: vec![won; 40], orders: vec![order; 40] }));
    }
    machine.until("all told", |status| status.totals.acknowledges >= 2 && is_settled(status)).await;
    let (results, directory) = machine.stop().await;
    no_violations(&results);
    assert_eq!(rows(directory.path(), "win"), [(1, 5, "1/4".to_owned(), 9)]);
    assert_eq!(rows(directory.path(), "order"), [(1, 77, format!("100/{SALE}/7"), PRICE)]);
    assert_eq!(rows(directory.path(), "paid"), [(1, 0, "100".to_owned(), PRICE)]);
    let seen = server.seen.lock().unwrap();
    assert_eq!((seen.acknowledged_orders.len(), seen.acknowledged.len()), (80, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_join_rooms_follow_them_and_catch_up_after_a_reconnect() {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 12, |config| {
        config.common.mix = "chat=1".parse().unwrap();
        config.common.rooms = 3;
    })
    .await;
    server.until("joins of all", |seen| seen.rooms.values().map(|room| room.0.len()).sum::<usize>() == 12).await;
    online(&machine, 12).await;
    let from = machine.hold(60, 3).await;
    let storm = json!({"share": 300_000, "at": from + 1, "watch_seconds": 10});
    assert_eq!(machine.post("/v1/storm", storm).await.status(), 200);
    machine
        .until("all answers", |status| {
            status.totals.answered == 180 && is_settled(status) && status.online == 12 && status.totals.reconnects == 3
        })
        .await;
    // Three others hear each message, sooner or later: nothing is missed for good.
    machine.until("all heard", |status| status.totals.chat.received == 3 * 180).await;
    let (results, _directory) = machine.stop().await;
    no_violations(&results);
    assert_eq!((results.totals.chat.missed, results.operations["chat"].outcomes["receipt"]), (0, 180));
    assert!(results.totals.chat.recovered > 0);
    assert_eq!(results.reactions["join"].answered, 12 + 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_read_page_by_page_and_hold_all_that_is_known() {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 20, |config| {
        mix("grab=2,ticket=1")(config);
        config.react = true;
    })
    .await;
    online(&machine, 20).await;
    (1..=3).for_each(|envelope| server.offer(1..=20, envelope, usize::MAX));
    machine.hold(200, 1).await;
    let quiet = |status: &Status| {
        status.totals.answered == 200
            && status.totals.envelopes.opened == 60
            && status.outstanding + status.acknowledges_outstanding == 0
    };
    machine.until("all answers", quiet).await;
    assert_eq!(machine.post("/v1/statements", json!({"users": 10})).await.status(), 202);
    machine.until("ten statements", |status| status.totals.statements == 10).await;
    let (results, _directory) = machine.stop().await;
    assert!(results.totals.violations.is_empty(), "{:?}", results.totals.violations);
    assert!(results.reactions["statement"].sent > 10, "several pages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unanswered_off_schedule_is_counted_after_the_timeout() {
    let server = FakeServer::start().await;
    let ask = Ask { users: UserRange { first: 1, last: 2 }, total: 2, answer_timeout: Duration::from_millis(300) };
    let machine = Machine::start_changed(&server, ask, |config| config.react = true).await;
    online(&machine, 2).await;
    // Such an answer is none.
    server.mischief.twist.set(|event| {
        if matches!(event, Event::Opened(_)) {
            *event = Event::Pong(v1::Pong::default());
        }
    });
    server.offer(1..=2, 1, usize::MAX);
    machine.until("the timeout", |status| status.totals.reactions_unanswered == 2 && is_settled(status)).await;
    let (results, _directory) = machine.stop().await;
    assert_eq!(results.totals.violations.get("wrong_kind"), Some(&2));
}

// ---- A server that lies

fn order(serial: u64, state: State) -> v1::Order {
    v1::Order {
        order_id: 50 + serial,
        campaign_id: SALE,
        serial,
        state: state.into(),
        price_fen: PRICE,
        reserved_at_ms: 1_000,
        // Nobody comes to the end of it.
        pay_by_ms: wall_ms() + 3_600_000,
        decided_at_ms: u64::from(state != State::Reserved) * (wall_ms() + 3_600_000),
        grabbed_by_request_id: 77,
        ..Default::default()
    }
}

fn reminded_of(order: v1::Order) -> Event {
    Event::Reminder(v1::Reminder { wins: Vec::new(), orders: vec![order] })
}

/// Words that were believed, and words that were not.
fn heard(status: &Status) -> u64 {
    let totals = &status.totals;
    totals.prizes + totals.orders.paid + totals.chat.received + totals.violations.values().sum::<u64>()
}

/// Words that contradict what was said before them, and the violation that each is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_false_word_is_counted_under_its_name() {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 6, |config| config.common.rooms = 2).await;
    server.until("joins of all", |seen| seen.rooms.values().map(|room| room.0.len()).sum::<usize>() == 6).await;
    online(&machine, 6).await;
    assert_eq!(machine.post("/v1/sale", json!({"campaign": SALE, "limit": 1})).await.status(), 200);
    let won = |serial, amount_fen| {
        let won = v1::Won { campaign_id: 9, serial, amount_fen, won_by_request_id: 5 };
        Event::Reminder(v1::Reminder { wins: vec![won], orders: Vec::new() })
    };
    let paid = order(0, State::Paid);
    // Users 2, 4 and 6 are in room 1.
    let said = |from: u64, offset| v1::ChatMessage {
        from_user_id: from,
        room_id: 1,
        offset,
        at_ms: 0,
        text: Circle::text(from, 5),
    };
    let late = v1::Order { decided_at_ms: 1, ..order(3, State::Expired) };
    for (user, event) in [
        (1, won(1, 5)),
        (2, won(1, 5)), // prize_told_to_two
        (1, won(1, 6)), // prize_changed
        (1, won(2, 0)), // amount_zero
        (1, reminded_of(paid)),
        (1, reminded_of(v1::Order { state: State::Cancelled.into(), ..paid })), // order_backwards
        (1, reminded_of(v1::Order { price_fen: 1, ..paid })),                   // order_changed
        (2, reminded_of(paid)),                                                 // order_told_to_two
        (2, reminded_of(v1::Order { order_id: 90, ..paid })),                   // serial_paid_twice
        (2, reminded_of(late)),                                                 // order_expired_early
        (1, reminded_of(order(1, State::Paid))),                                // limit_exceeded
        (2, Event::ChatMessage(said(4, 1))),
        (2, Event::ChatMessage(said(4, 1))), // chat_repeated
        (2, Event::ChatMessage(v1::ChatMessage { from_user_id: 6, ..said(4, 2) })), // chat_untrue
        (3, Event::ChatMessage(said(4, 1))), // chat_untrue: not in that room
        (4, Event::Pong(v1::Pong::default())), // wrong_kind
    ] {
        // Each is heard before the next is said.
        let before = heard(&machine.status().await);
        server.push(user, event);
        machine.until("the next word", |status| heard(status) > before).await;
    }
    // The first id of a user's own accord was that of a Join, which has its answer; the others were
    // never given out.
    for request_id in [16, 9_999, 1 << 40] {
        let event = Some(Event::NoneNow(v1::NoneNow {}));
        server.pushes.send((5, ServerFrame { request_id, event })).unwrap();
    }
    let expected = [
        ("amount_zero", 1),
        ("chat_repeated", 1),
        ("chat_untrue", 2),
        ("duplicate_answer", 1),
        ("limit_exceeded", 1),
        ("order_backwards", 1),
        ("order_changed", 1),
        ("order_expired_early", 1),
        ("order_told_to_two", 1),
        ("prize_changed", 1),
        ("prize_told_to_two", 1),
        ("serial_paid_twice", 1),
        ("unknown_request", 2),
        ("wrong_kind", 1),
    ];
    let all = expected.iter().map(|(_, count)| count).sum::<u64>();
    let told = |status: &Status| status.totals.violations.values().sum::<u64>() >= all;
    let status = machine.until("all violations", told).await;
    let violations = status.totals.violations.iter().map(|(label, count)| (label.as_str(), *count));
    assert_eq!(violations.collect::<Vec<_>>(), expected);
    machine.stop().await;
}

/// A machine whose users do everything, against a server that twists its answers.
async fn twisted(twist: impl FnMut(&mut Event) + Send + 'static, label: Violation) -> Results {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 8, |config| {
        mix("chat=1,ticket=1")(config);
        config.react = true;
    })
    .await;
    online(&machine, 8).await;
    server.mischief.twist.set(twist);
    (1..=16).for_each(|envelope| server.offer(1..=8, envelope, usize::MAX));
    machine.hold(40, 1).await;
    let quiet = |status: &Status| {
        let (orders, envelopes) = (status.totals.orders, status.totals.envelopes);
        status.totals.answered == 40
            && status.totals.reactions.get("open").copied() >= Some(128)
            && status.reactions_outstanding <= orders.waiting
            && envelopes.offered == 128
    };
    machine.until("all answers", quiet).await;
    assert_eq!(machine.post("/v1/statements", json!({"users": 8})).await.status(), 202);
    let told = |status: &Status| {
        status.totals.violations.get(label.label()).copied() >= Some(1)
            && status.reactions_outstanding <= status.totals.orders.waiting
    };
    machine.until(label.label(), told).await;
    let (results, _directory) = machine.stop().await;
    let others: Vec<_> = results.totals.violations.keys().filter(|key| *key != label.label()).collect();
    assert!(others.is_empty(), "{label:?} and {others:?}");
    results
}

/// Applies a change to the first event for which it can.
fn once(change: impl Fn(&mut Event) -> bool + Send + 'static) -> impl FnMut(&mut Event) + Send + 'static {
    let mut done = false;
    move |event| {
        if !done {
            done = change(event);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_another_envelope_is_found_out() {
    let change = once(|event| match event {
        Event::Opened(opened) => {
            opened.envelope_id += 1_000;
            true
        }
        _ => false,
    });
    twisted(change, Violation::OpenedUnoffered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_told_with_two_amounts_is_found_out() {
    let mut told = BTreeSet::new();
    let change = move |event: &mut Event| {
        if let Event::Opened(opened) = event
            && !told.insert((opened.envelope_id, opened.share))
        {
            opened.amount_fen += 1;
        }
    };
    twisted(change, Violation::ShareChanged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_told_to_two_users_is_found_out() {
    let mut first = None;
    // All who open the first envelope that anybody opens get its first share.
    let change = move |event: &mut Event| {
        if let Event::Opened(opened) = event {
            let first = *first.get_or_insert(*opened);
            if first.envelope_id == opened.envelope_id {
                *opened = first;
            }
        }
    };
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 2, |config| config.react = true).await;
    online(&machine, 2).await;
    server.mischief.twist.set(change);
    server.offer(1..=2, 1, usize::MAX);
    machine.until("one owner", |status| status.totals.violations.get("share_told_to_two") >= Some(&1)).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_nothing_is_found_out() {
    // It comes to nothing in the statement, too, but that one is right.
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 1, |config| config.react = true).await;
    online(&machine, 1).await;
    server.mischief.twist.set(|event| {
        if let Event::Opened(opened) = event {
            opened.amount_fen = 0;
        }
    });
    server.offer(1..=1, 1, usize::MAX);
    machine.until("nothing", |status| status.totals.violations.get("amount_zero") >= Some(&1)).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_was_not_reached_is_found_out() {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 2, mix("ticket=1")).await;
    online(&machine, 2).await;
    server.mischief.twist.set(once(|event| {
        let lies = matches!(event, Event::Order(_));
        if lies {
            *event = Event::LimitReached(v1::LimitReached { limit: 1 });
        }
        lies
    }));
    machine.hold(4, 1).await;
    machine.until("all answers", |status| status.totals.answered == 4).await;
    let (results, _directory) = machine.stop().await;
    assert_eq!(results.totals.violations.get("limit_untrue"), Some(&1), "{:?}", results.totals.violations);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_that_does_not_add_up_is_found_out() {
    let change = once(|event| match event {
        Event::Receipt(receipt) => {
            receipt.offline += 1;
            true
        }
        _ => false,
    });
    twisted(change, Violation::ReceiptUntrue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balance_that_is_not_the_sum_is_found_out() {
    let change = once(|event| match event {
        Event::StatementPage(page) => {
            page.balance_fen = page.balance_fen.wrapping_add(1);
            true
        }
        _ => false,
    });
    let results = twisted(change, Violation::BalanceUntrue).await;
    assert_eq!(results.totals.statements, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_without_something_that_was_told_is_found_out() {
    // Nothing went through any wallet, says the server: it adds up.
    let change = |event: &mut Event| {
        if let Event::StatementPage(page) = event {
            *page = v1::StatementPage::default();
        }
    };
    twisted(change, Violation::StatementContradicts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_and_wrong_answers_off_schedule_are_violations_too() {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 1, |config| config.react = true).await;
    online(&machine, 1).await;
    server.offer(1..=1, 1, usize::MAX);
    machine.until("the share", |status| status.totals.envelopes.opened == 1 && is_settled(status)).await;
    let opened = Some(Event::Opened(v1::Opened { envelope_id: 1, share: 0, amount_fen: 1 }));
    server.pushes.send((1, ServerFrame { request_id: 16, event: opened })).unwrap();
    machine.until("the second", |status| status.totals.violations.get("duplicate_answer") == Some(&1)).await;
    let (results, _directory) = machine.stop().await;
    assert_eq!(results.totals.violations.values().sum::<u64>(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_answer_to_a_turn_that_was_no_grab_is_one_too() {
    let server = FakeServer::start().await;
    let machine = Machine::start_as(&server, 1, mix("ticket=1")).await;
    online(&machine, 1).await;
    machine.hold(1, 1).await;
    machine.until("the order", |status| status.totals.answered == 1).await;
    let (user, order) = server.seen.lock().unwrap().orders[0];
    let frame = |event| ServerFrame { request_id: order.grabbed_by_request_id, event: Some(event) };
    server.pushes.send((user, frame(Event::Order(order)))).unwrap();
    server.pushes.send((user, frame(Event::Opened(v1::Opened::default())))).unwrap();
    let violations = |status: &Status| {
        let of = |label: &str| status.totals.violations.get(label).copied();
        (of("duplicate_answer"), of("wrong_kind")) == (Some(1), Some(1))
    };
    machine.until("both", violations).await;
    machine.stop().await;
}

#[test]
fn every_violation_is_provoked_by_some_test() {
    let tests = concat!(include_str!("deals.rs"), include_str!("machine.rs"));
    for violation in Violation::ALL {
        let named = [format!("\"{}\"", violation.label()), format!("Violation::{violation:?}")];
        assert!(named.iter().any(|name| tests.contains(name)), "{violation:?}");
    }
}
