//! A Grab for any rain, where one of them may give its user no more.

use super::*;

fn rain(id: u64) -> CampaignId {
    CampaignId::new(id).unwrap()
}

/// A rig with so many open rains in SET 0; two prizes of each are a user's limit.
fn rig_with_rains(count: u64) -> Rig {
    let mut rig = Rig::new(1);
    for id in 2..=count {
        assert_eq!(rig.create(terms()), rain(id));
        let phase = Control::Phase { campaign: rain(id), terms: Arc::new(terms()), phase: SalePhase::Open };
        rig.apply(0, Message::Control(phase));
    }
    rig
}

fn supply(rig: &mut Rig, id: u64, serials: std::ops::Range<u64>) {
    let supply = Control::Supply { campaign: rain(id), serials: serials.map(Serial).collect() };
    rig.apply(0, Message::Control(supply));
}

/// A user who has had as much of rains 1 to `rains` as one may; the next Grab has id 100.
fn sated(rig: &mut Rig, rains: u64) -> (ConnectionKey, Peer) {
    let (key, peer) = rig.welcomed(0, 1);
    for id in 1..=rains {
        supply(rig, id, 0..2);
        for _ in 0..2 {
            let next = 2 * id + rig.tally(0).grabs.get();
            rig.send(0, key, ClientRequest::Grab { request: request(next), campaign: Some(rain(id)) });
            rig.await_replies();
            assert!(matches!(peer.event(), Event::Won(_)));
        }
    }
    (key, peer)
}

#[test]
fn a_user_who_may_have_no_more_of_one_rain_wins_of_the_next() {
    let mut rig = rig_with_rains(2);
    let (key, peer) = sated(&mut rig, 1);
    supply(&mut rig, 1, 2..3);
    supply(&mut rig, 2, 0..1);
    rig.send(0, key, grab(100));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Won(v1::Won { campaign_id: 2, serial: 0, .. })));
    // What was refused lies where it lay.
    let (key, peer) = rig.welcomed(0, 2);
    rig.send(0, key, grab(1));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Won(v1::Won { campaign_id: 1, serial: 2, .. })));
}

#[test]
fn the_limit_is_told_only_where_no_open_rain_is_left() {
    let mut rig = rig_with_rains(2);
    let (key, peer) = sated(&mut rig, 1);
    supply(&mut rig, 1, 2..3);
    rig.send(0, key, grab(100));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::NoneNow(_)), "the second rain may have something later");
    let closed = Control::Phase { campaign: rain(2), terms: Arc::new(terms()), phase: SalePhase::SoldOut };
    rig.apply(0, Message::Control(closed));
    rig.send(0, key, grab(101));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::LimitReached(v1::LimitReached { limit: 2 })));
}

#[test]
fn one_grab_asks_about_a_bounded_number_of_rains() {
    let most = u64::from(limits::RAINS_PER_GRAB_MAX);
    let mut rig = rig_with_rains(most + 1);
    let (key, peer) = sated(&mut rig, most);
    for id in 1..=most + 1 {
        supply(&mut rig, id, 2..3);
    }
    rig.send(0, key, grab(100));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::NoneNow(_)));
}
