//! Frames that others push to connections of a SET, and messages from user to user.

use std::sync::Mutex;

use hongbao_proto::RoomId;

use super::*;
use crate::set::delivery::{self, Count, Delivered, Delivery};
use crate::set::message::{PendingRequest, Reply, ReplyPermit};
use crate::set::room_messages::{Chat, Recipient, RoomAction, RoomRequest, RoomState};

fn user(id: u64) -> UserId {
    UserId::new(id).unwrap()
}

fn to_user(id: u64, to: u64, text: &str) -> ClientRequest {
    ClientRequest::Chat {
        request: request(id),
        chat: Box::new(Chat { to: Recipient::User(user(to)), text: text.into() }),
    }
}

fn wanted(id: u64, action: RoomAction) -> ClientRequest {
    ClientRequest::Room {
        request: request(id),
        wanted: Box::new(RoomRequest { room: RoomId::new(7).unwrap(), action }),
    }
}

fn push(text: &str) -> Bytes {
    delivery::encode(Event::Announcement(v1::Announcement { text: text.to_owned() }))
}

/// A delivery to `keys`, and where its report will be.
fn delivery(keys: &[ConnectionKey], text: &str) -> (Delivery, Arc<Mutex<Option<Delivered>>>) {
    let report = Arc::<Mutex<Option<Delivered>>>::default();
    let count = Count::new({
        let report = Arc::clone(&report);
        move |delivered| *report.lock().unwrap() = Some(delivered)
    });
    (Delivery::new(keys, push(text), count), report)
}

fn became(delivered: u32, offline: u32, dropped: u32) -> Delivered {
    Delivered { delivered, offline, dropped }
}

impl Rig {
    fn deliver(&mut self, keys: &[ConnectionKey], text: &str) -> Arc<Mutex<Option<Delivered>>> {
        let (delivery, report) = delivery(keys, text);
        self.apply(0, Message::Control(Control::Deliver(delivery)));
        report
    }

    fn receipt(&self, peer: &Peer) -> (u32, u32, u32) {
        let Event::Receipt(receipt) = peer.event() else { panic!("no receipt") };
        assert_eq!(receipt.offset, 0);
        (receipt.delivered, receipt.offline, receipt.dropped)
    }

    fn chat_counts(&self, set: usize) -> (u64, u64, u64) {
        let tally = self.tally(set);
        (tally.chat_delivered.get(), tally.chat_offline.get(), tally.chat_dropped.get())
    }
}

fn message(peer: &Peer) -> v1::ChatMessage {
    match peer.event() {
        Event::ChatMessage(message) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_reaches_its_user_in_any_set_and_its_sender_knows() {
    let mut rig = Rig::new(2);
    let (from, sender) = rig.welcomed(0, 1);
    let (_, neighbour) = rig.welcomed(0, 2);
    let (_, distant) = rig.welcomed(1, 3);
    for (id, to, receiver) in [(11, 2, &neighbour), (12, 3, &distant)] {
        rig.send(0, from, to_user(id, to, "恭喜发财"));
        assert!(sender.take().is_empty(), "no receipt before it is written");
        rig.await_replies();
        let expected = v1::ChatMessage {
            from_user_id: 1,
            room_id: 0,
            offset: 0,
            at_ms: rig.now.wall,
            text: "恭喜发财".to_owned(),
        };
        assert_eq!(message(receiver), expected);
        assert_eq!(rig.receipt(&sender), (1, 0, 0));
    }
    assert_eq!((rig.chat_counts(0), rig.chat_counts(1)), ((2, 0, 0), (0, 0, 0)));
}

#[test]
fn a_message_to_oneself_is_delivered() {
    let mut rig = Rig::new(1);
    let (from, peer) = rig.welcomed(0, 1);
    rig.send(0, from, to_user(11, 1, "memo"));
    rig.await_replies();
    let events: Vec<_> = peer.take().into_iter().filter_map(|frame| frame.event).collect();
    assert!(matches!(
        events.as_slice(),
        [Event::ChatMessage(message), Event::Receipt(v1::Receipt { delivered: 1, .. })] if message.text == "memo"
    ));
}

#[test]
fn a_message_to_nobody_or_to_one_not_yet_in_is_offline() {
    let mut rig = Rig::new(2);
    let (from, sender) = rig.welcomed(0, 1);
    rig.send(0, from, to_user(11, 2, "hello?"));
    assert_eq!(rig.receipt(&sender), (0, 1, 0), "at once");
    // It has entered the directory, and is not welcome yet.
    let (coming, receiver) = rig.connect(1);
    rig.send(1, coming, ClientRequest::Login { request: request(5), user: user(2), expires_at: u64::MAX });
    rig.send(0, from, to_user(12, 2, "hello?"));
    // The ledger's word on the login may have come first; the SET hears it last.
    let mut queued: Vec<_> = std::iter::from_fn(|| rig.inboxes[1].try_recv().ok()).collect();
    queued.sort_by_key(|message| !matches!(message, Message::Control(Control::Deliver(_))));
    assert!(matches!(queued[0], Message::Control(Control::Deliver(_))), "handed to its SET");
    for message in queued {
        rig.apply(1, message);
    }
    rig.await_replies();
    assert_eq!(rig.receipt(&sender), (0, 1, 0));
    assert!(matches!(receiver.event(), Event::Welcome(_)));
    // It was there, and has gone.
    rig.send(0, from, to_user(13, 2, "hello?"));
    rig.send(1, coming, ClientRequest::Gone(End::Closed));
    rig.await_replies();
    assert_eq!(rig.receipt(&sender), (0, 1, 0));
    assert_eq!(rig.chat_counts(0), (0, 3, 0));
}

#[test]
fn a_receiver_far_behind_is_cut_as_dropped_and_nobody_notices() {
    let mut rig = Rig::new(1);
    let (from, sender) = rig.welcomed(0, 1);
    let (_, slow) = rig.welcomed(0, 2);
    let (_, reader) = rig.welcomed(0, 3);
    slow.reads.set(false);
    slow.backlog.set(limits::OUTBOX_BYTES_MAX - 10);
    for (id, to) in [(11, 2), (12, 3)] {
        rig.send(0, from, to_user(id, to, "are you listening?"));
    }
    rig.await_replies();
    let receipts: Vec<_> = sender
        .take()
        .into_iter()
        .filter_map(|frame| match frame.event {
            Some(Event::Receipt(receipt)) => Some((frame.request_id, receipt.delivered, receipt.dropped)),
            _ => None,
        })
        .collect();
    assert_eq!(receipts, [(11, 0, 1), (12, 1, 0)]);
    assert!(slow.cut.get() && rig.ended(0, End::Slow) == 1);
    assert_eq!(message(&reader).text, "are you listening?");
    assert_eq!(rig.chat_counts(0), (1, 0, 1));
}

#[test]
fn a_receiver_whose_set_has_no_room_is_told_as_dropped() {
    let mut rig = Rig::new(2);
    let (from, sender) = rig.welcomed(0, 1);
    let (_, receiver) = rig.welcomed(1, 2);
    while rig.shared.sets[1].inbox.try_send(Message::Control(Control::Tick)).is_ok() {}
    rig.send(0, from, to_user(11, 2, "x"));
    while rig.inboxes[1].try_recv().is_ok() {}
    rig.await_replies();
    assert_eq!(rig.receipt(&sender), (0, 0, 1));
    assert!(receiver.take().is_empty());
    // The same where the SET has stopped.
    rig.inboxes[1].close();
    rig.send(0, from, to_user(12, 2, "x"));
    rig.await_replies();
    assert_eq!(rig.receipt(&sender), (0, 0, 1));
}

#[test]
fn a_message_without_a_reply_permit_is_overloaded_and_not_sent() {
    let mut rig = Rig::new(2);
    let (from, sender) = rig.welcomed(0, 1);
    rig.welcomed(1, 2);
    while rig.shared.sets[0].inbox.try_send(Message::Control(Control::Tick)).is_ok() {}
    rig.send(0, from, to_user(11, 2, "x"));
    rig.send(0, from, wanted(12, RoomAction::Look));
    assert!(sender.take().iter().all(|frame| matches!(frame.event, Some(Event::Overloaded(_)))));
    assert!(rig.inboxes[1].try_recv().is_err() && rig.room_shard.try_recv().is_err());
}

#[test]
fn chats_under_way_are_bounded_and_leave_the_queue_free() {
    let mut rig = Rig::new(1);
    let users: Vec<_> = (1..=50).map(|user| rig.welcomed(0, user)).collect();
    let mut held = Vec::new();
    for id in 0..limits::CHATS_UNDER_WAY_MAX as u64 + 3 {
        let (key, _) = users[(id % 50) as usize];
        rig.now.at += SECOND / 100;
        rig.send(0, key, wanted(100 + id, RoomAction::Look));
        held.extend(rig.room_shard.try_recv().ok());
    }
    assert_eq!(held.len(), limits::CHATS_UNDER_WAY_MAX);
    assert_eq!(rig.tally(0).owed.get(), limits::CHATS_UNDER_WAY_MAX as u64);
    assert_eq!(rig.shared.sets[0].inbox.capacity(), limits::SET_QUEUE_MAX - limits::CHATS_UNDER_WAY_MAX);
    rig.supply(0, 0..1);
    rig.send(0, users[0].0, grab(10_000));
    // A desk that ends answers what it holds.
    drop(held);
    rig.await_replies();
    let frames: Vec<_> = users.iter().flat_map(|(_, peer)| peer.take()).collect();
    let overloaded = frames.iter().filter(|frame| matches!(frame.event, Some(Event::Overloaded(_)))).count();
    assert_eq!((overloaded, frames.len()), (limits::CHATS_UNDER_WAY_MAX + 3, limits::CHATS_UNDER_WAY_MAX + 4));
    rig.send(0, users[0].0, wanted(20_000, RoomAction::Look));
    assert!(rig.room_shard.try_recv().is_ok(), "there is room again");
}

#[test]
fn a_full_desk_answers_overloaded() {
    let mut rig = Rig::new(1);
    let users: Vec<_> = (1..=50).map(|user| rig.welcomed(0, user)).collect();
    // As if other SETs had filled it.
    let mut asked = 0;
    while rig.inboxes[0].try_recv().is_err() {
        let permit = rig.shared.sets[0].inbox.clone().try_reserve_owned().unwrap();
        let permit = ReplyPermit::new(permit, users[1].0, PendingRequest::Chat { request: request(1) });
        let wanted = RoomRequest { room: RoomId::new(7).unwrap(), action: RoomAction::Look };
        rig.shared.room_shards.send(QueuedRoomRequest { user: user(2), wanted, at: 5_000, permit });
        asked += 1;
    }
    assert_eq!(asked, limits::ROOM_SHARD_QUEUE_MAX + 1);
    rig.send(0, users[0].0, wanted(100, RoomAction::Look));
    rig.await_replies();
    assert!(matches!(users[0].1.event(), Event::Overloaded(_)));
}

#[test]
fn a_frame_for_ten_thousand_is_written_by_slices_reported_once() {
    const SEATS: u64 = 10_000;
    let mut rig = Rig::new(1);
    let peers: Vec<_> = (1..=SEATS).map(|user| rig.welcomed(0, user)).collect();
    let (busy, _) = peers[0];
    let keys: Vec<_> = peers.iter().map(|(key, _)| *key).collect();
    let text = "x".repeat(1_000);
    let report = rig.deliver(&keys, &text);
    let mut steps: u64 = 0;
    while rig.sets[0].has_bulk_work() {
        assert!(report.lock().unwrap().is_none());
        // Whoever asks meanwhile is answered in the same batch.
        peers[0].1.take();
        steps += 1;
        rig.now.at += SECOND;
        rig.send(0, busy, grab(steps));
        assert!(matches!(peers[0].1.event(), Event::NoneNow(_)), "step {steps}");
        rig.sweep();
    }
    assert_eq!(steps, (SEATS - 1) / limits::DELIVER_STEP as u64, "the first slice went at once");
    assert_eq!(*report.lock().unwrap(), Some(became(10_000, 0, 0)));
    assert!(peers[1..].iter().all(|(_, peer)| texts(&peer.take()) == [&text]));
}

#[test]
fn receivers_gone_are_offline_and_those_far_behind_dropped() {
    let mut rig = Rig::new(1);
    let (here, reader) = rig.welcomed(0, 1);
    let (behind, slow) = rig.welcomed(0, 2);
    let (gone, _) = rig.welcomed(0, 3);
    let (old, _) = rig.welcomed(0, 4);
    let (kicked, dismissed) = rig.welcomed(0, 5);
    let (strange, stranger) = rig.connect(0);
    slow.reads.set(false);
    slow.backlog.set(limits::OUTBOX_BYTES_MAX);
    rig.send(0, old, ClientRequest::Gone(End::Closed));
    let (new, newcomer) = rig.welcomed(0, 6);
    assert_eq!(old.slot, new.slot);
    rig.apply(0, Message::Control(Control::Kick { key: kicked, user: user(5) }));
    dismissed.take();
    let (delivery, report) = delivery(&[here, behind, gone, old, kicked, strange], "x");
    rig.sets[0].apply(Message::Control(Control::Deliver(delivery)), &rig.now);
    // It goes between the frame's coming and its writing.
    rig.sets[0].apply(Message::Peer { key: gone, request: ClientRequest::Gone(End::Reset) }, &rig.now);
    assert!(report.lock().unwrap().is_none());
    rig.sets[0].flush(&rig.now);
    assert_eq!(*report.lock().unwrap(), Some(became(1, 4, 1)));
    assert_eq!(texts(&reader.take()), ["x"]);
    for peer in [newcomer, stranger, dismissed] {
        assert!(peer.take().is_empty());
    }
}

#[test]
fn deliveries_stay_in_order_however_large_they_are() {
    let mut rig = Rig::new(1);
    let peers: Vec<_> = (1..=3 * limits::DELIVER_STEP as u64 / 2).map(|user| rig.welcomed(0, user)).collect();
    let keys: Vec<_> = peers.iter().map(|(key, _)| *key).collect();
    let (last, peer) = peers.last().unwrap();
    let reports = [rig.deliver(&keys, "first"), rig.deliver(&[*last], "second"), rig.deliver(&[*last], "third")];
    assert!(peer.take().is_empty());
    rig.sweep();
    assert_eq!(texts(&peer.take()), ["first", "second", "third"]);
    let reports = reports.map(|report| report.lock().unwrap().unwrap().delivered);
    assert_eq!(reports.map(u64::from), [peers.len() as u64, 1, 1]);
    assert!(!rig.sets[0].has_bulk_work());
}

#[test]
fn so_many_deliveries_may_wait_in_a_set_and_the_next_is_dropped() {
    let mut rig = Rig::new(1);
    let peers: Vec<_> = (1..=limits::DELIVER_STEP as u64 + 1).map(|user| rig.welcomed(0, user)).collect();
    let keys: Vec<_> = peers.iter().map(|(key, _)| *key).collect();
    let (first, peer) = &peers[0];
    let large = rig.deliver(&keys, "large");
    let mut small: Vec<_> = (1..limits::DELIVERIES_PENDING_MAX).map(|_| rig.deliver(&[*first], "small")).collect();
    assert_eq!(*rig.deliver(&[*first], "one too many").lock().unwrap(), Some(became(0, 0, 1)));
    while rig.sets[0].has_bulk_work() {
        rig.sweep();
    }
    assert_eq!(large.lock().unwrap().unwrap().delivered as usize, limits::DELIVER_STEP + 1);
    assert!(small.drain(..).all(|report| *report.lock().unwrap() == Some(became(1, 0, 0))));
    assert_eq!(texts(&peer.take()).len(), limits::DELIVERIES_PENDING_MAX);
    assert_eq!(*rig.deliver(&[*first], "again").lock().unwrap(), Some(became(1, 0, 0)));
}

#[test]
fn a_rooms_state_does_not_overtake_what_was_handed_in_before_it() {
    let mut rig = Rig::new(1);
    let peers: Vec<_> = (1..=limits::DELIVER_STEP as u64 + 1).map(|user| rig.welcomed(0, user)).collect();
    let keys: Vec<_> = peers.iter().map(|(key, _)| *key).collect();
    let (last, peer) = peers.last().unwrap();
    rig.send(0, *last, wanted(100, RoomAction::Join(None)));
    let asked = rig.room_shard.try_recv().unwrap();
    assert_eq!((asked.user, asked.at), (user(peers.len() as u64), rig.now.wall));
    rig.deliver(&keys, "past");
    let state = v1::RoomState { room_id: 7, epoch: 1, offset: 1, members: 3, recovered: false, missed: Vec::new() };
    asked.permit.send(Reply::Room(Box::new(RoomState { state: state.clone(), held: None })));
    let answer = rig.inboxes[0].try_recv().unwrap();
    rig.apply(0, answer);
    assert!(peer.take().is_empty());
    assert_eq!(rig.tally(0).owed.get(), 1, "still owed");
    rig.deliver(&[*last], "to come");
    rig.sweep();
    let frames = peer.take();
    assert_eq!(texts(&frames), ["past", "to come"]);
    assert_eq!((frames[1].request_id, &frames[1].event), (100, &Some(Event::RoomState(state))));
    assert_eq!(rig.tally(0).owed.get(), 0);
}

#[test]
fn a_set_that_stops_reports_what_it_has_not_written_as_dropped() {
    let mut rig = Rig::new(2);
    let peers: Vec<_> = (1..=limits::DELIVER_STEP as u64 + 9).map(|user| rig.welcomed(0, user)).collect();
    let keys: Vec<_> = peers.iter().map(|(key, _)| *key).collect();
    let begun = rig.deliver(&keys, "begun");
    let (delivery, queued) = delivery(&keys, "queued");
    rig.shared.sets[0].inbox.try_send(Message::Control(Control::Deliver(delivery))).unwrap();
    rig.sets.remove(0);
    rig.inboxes.remove(0);
    let step = u32::try_from(limits::DELIVER_STEP).unwrap();
    assert_eq!(*begun.lock().unwrap(), Some(became(step, 0, 9)));
    assert_eq!(*queued.lock().unwrap(), Some(became(0, 0, step + 9)));
}

#[test]
fn chat_before_login_is_cut_and_above_the_rate_overloaded() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.connect(0);
    rig.send(0, key, to_user(1, 2, "x"));
    let frames = peer.take();
    assert_eq!(error_code(frames[0].event.as_ref().unwrap()), Some(ErrorCode::NotLoggedIn));
    assert_eq!(goodbye(&frames[1]), Some(Reason::Protocol));
    let (key, peer) = rig.welcomed(0, 1);
    for id in 1..=150 {
        rig.send(0, key, to_user(id, 9, "x"));
    }
    let frames = peer.take();
    let offline = frames.iter().filter(|frame| matches!(frame.event, Some(Event::Receipt(_)))).count();
    assert_eq!((offline, frames.len()), (99, 150));
}
