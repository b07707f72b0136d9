//! What clients check of every frame that they are sent.

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode, order::State};
use hongbao_proto::{EnvelopeId, OrderId, RequestId};
use hongbao_server::ledger::{Answer, Award, Question, Recall};
use hongbao_server::market::order::{Order, OrderState};
use prost::Message as _;

use super::user::{Ask, Asked, Conn, Item, Phase, Told};
use super::watched::lock;
use super::world::World;

impl World {
    /// Takes in what a connection has read.
    pub(crate) fn take_in(&mut self, conn: &mut Conn, bytes: &[u8]) {
        conn.partial.extend_from_slice(bytes);
        loop {
            let mut rest = conn.partial.as_slice();
            let Ok(length) = prost::decode_length_delimiter(&mut rest) else { return };
            let Some(payload) = rest.get(..length) else { return };
            let frame = v1::ServerFrame::decode(payload);
            let taken = conn.partial.len() - rest.len() + length;
            conn.partial.drain(..taken);
            match frame {
                Ok(frame) => self.hear(conn, frame),
                Err(error) => return self.fail(format!("a frame of the server cannot be read: {error}")),
            }
        }
    }

    fn hear(&mut self, conn: &mut Conn, mut frame: v1::ServerFrame) {
        // Epochs are random: numbered by their first appearance, they are the same in every run of
        // a seed.
        if let Some(Event::RoomState(state)) = &mut frame.event {
            let next = self.epochs.len() as u64 + 1;
            state.epoch = *self.epochs.entry(state.epoch).or_insert(next);
        }
        self.trace.mix(&frame.encode_to_vec());
        let Some(event) = frame.event else { return self.fail("an empty frame".to_owned()) };
        let user = self.users[conn.user].id;
        if conn.phase == Phase::Over {
            return self.fail(format!("user {user} is told {event:?} after the goodbye"));
        }
        if conn.recall.is_some() && !matches!(event, Event::Reminder(_) | Event::Offers(_)) {
            return self.fail(format!("user {user} is told {event:?} in the middle of what it missed"));
        }
        let is_push = matches!(
            event,
            Event::Goodbye(_)
                | Event::Reminder(_)
                | Event::CampaignNotice(_)
                | Event::Announcement(_)
                | Event::Offers(_)
                | Event::ChatMessage(_)
        );
        if is_push {
            if frame.request_id != 0 {
                return self.fail(format!("a push with a request id: {event:?}"));
            }
            return self.pushed(conn, event);
        }
        let waiting = conn.asked.get_mut(&frame.request_id);
        let Some(asked) = waiting.and_then(std::collections::VecDeque::pop_front) else {
            return self.fail(format!("user {user} is answered what nobody asked: {} {event:?}", frame.request_id));
        };
        self.figures.answers += 1;
        let mut text = format!("user {user} is answered {}: {event:?}", frame.request_id);
        text.truncate(text.char_indices().nth(200).map_or(text.len(), |(end, _)| end));
        self.trace.note(text);
        self.answered(conn, frame.request_id, &asked, event);
    }

    fn pushed(&mut self, conn: &mut Conn, event: Event) {
        match event {
            Event::Goodbye(_) => conn.phase = Phase::Over,
            Event::Reminder(reminder) => {
                let wins = reminder.wins.iter().map(win_item);
                let orders = reminder.orders.iter().map(|order| Item::Order { id: order.order_id, state: order.state });
                let items: Vec<_> = wins.chain(orders).collect();
                for won in &reminder.wins {
                    self.told_win(conn, won);
                }
                for order in &reminder.orders {
                    self.told_order(conn, order, order.grabbed_by_request_id);
                }
                self.remind(conn, items);
            }
            Event::Offers(offers) => {
                let ids: Vec<_> = offers.offers.iter().map(|offer| offer.envelope_id).collect();
                self.users[conn.user].offers.extend(&ids);
                self.remind(conn, ids.into_iter().map(Item::Offer).collect());
            }
            Event::ChatMessage(message) => self.told_message(conn, &message),
            _ => {}
        }
    }

    /// Part of what a user is told after its welcome; or pushed at another time, and then true or
    /// not like any other word.
    fn remind(&mut self, conn: &mut Conn, items: Vec<Item>) {
        let Some((count, mut heard)) = conn.recall.take() else { return };
        heard.extend(items);
        if heard.len() < count {
            conn.recall = Some((count, heard));
        } else {
            self.recalled(conn, &heard);
        }
    }

    /// All that a user was told after a welcome: what the ledger had said, and nothing that the
    /// user had acknowledged before it logged in.
    fn recalled(&mut self, conn: &Conn, heard: &[Item]) {
        let user = &self.users[conn.user];
        for item in heard {
            let seen = match item {
                Item::Win { campaign, serial, .. } => user.seen_wins.get(&(*campaign, *serial)),
                Item::Offer(envelope) => user.seen_envelopes.get(envelope),
                Item::Order { .. } => None,
            };
            if let Some(step) = seen
                && *step < conn.login_at
            {
                let what = format!("user {} is told of {item:?} again, which was acknowledged at step {step}", user.id);
                return self.fail(what);
            }
        }
        let mut heard = heard.to_vec();
        heard.sort_unstable();
        let mut watch = lock(&self.watch);
        let recalls = watch.recalls.entry(user.id).or_default();
        let found = recalls.iter().position(|recall| items_of(recall) == heard);
        let expected: Vec<_> = recalls.iter().map(items_of).collect();
        match found {
            Some(position) => drop(recalls.remove(position)),
            None => {
                drop(watch);
                let what = format!("user {} is told {heard:?} at login; the ledger said {expected:?}", user.id);
                self.fail(what);
            }
        }
    }

    fn told_win(&mut self, conn: &Conn, won: &v1::Won) {
        let told = Told::Win { campaign: won.campaign_id, serial: won.serial, amount: won.amount_fen };
        self.told(conn, won.won_by_request_id, told);
        let user = &mut self.users[conn.user];
        if !user.seen_wins.contains_key(&(won.campaign_id, won.serial)) {
            user.wins.insert((won.campaign_id, won.serial));
        }
    }

    fn told_order(&mut self, conn: &Conn, order: &v1::Order, request: u64) {
        let told = Told::Order { id: order.order_id, campaign: order.campaign_id, serial: order.serial };
        self.told(conn, request, told);
        let known = self.order(conn, order.order_id);
        let may_be = known.is_some_and(|known| {
            let state = state_of(&known);
            state == order.state() || order.state() == State::Reserved
        });
        let user = &mut self.users[conn.user];
        user.orders.insert(order.order_id, order.state);
        if !may_be {
            let what = format!("user {} is told {order:?}; the model has {known:?}", user.id);
            self.fail(what);
        }
    }

    /// A Grab got this, somebody says: once and for all, and durably.
    fn told(&mut self, conn: &Conn, request: u64, told: Told) {
        let user = &mut self.users[conn.user];
        let before = *user.told.entry(request).or_insert(told);
        let id = user.id;
        if before != told {
            return self.fail(format!("Grab {request} of user {id} got {before:?}, and now {told:?}"));
        }
        let Ok(grab) = RequestId::new(request) else { return self.fail(format!("Grab {request} of user {id}")) };
        let Answer::FirstAnswer(award) = lock(&self.watch).model.ask(id, &Question::FirstAnswer(grab)) else { return };
        let durable = award.map(|award| match award {
            Award::Win(win) => Told::Win { campaign: win.campaign.get(), serial: win.serial.0, amount: win.amount.0 },
            Award::Order(order) => {
                Told::Order { id: order.id.get(), campaign: order.campaign.get(), serial: order.serial.0 }
            }
        });
        if durable != Some(told) {
            self.fail(format!("Grab {request} of user {id}: told {told:?}, durable is {durable:?}"));
        }
    }

    /// The order as the model has it.
    fn order(&self, conn: &Conn, id: u64) -> Option<Order> {
        let before = OrderId::new(id + 1).ok()?;
        let question = Question::Orders { before: Some(before), limit: 1 };
        match lock(&self.watch).model.ask(self.users[conn.user].id, &question) {
            Answer::Orders(page) => page.items.into_iter().find(|order| order.id.get() == id),
            _ => None,
        }
    }

    fn answered(&mut self, conn: &mut Conn, request: u64, asked: &Asked, event: Event) {
        let index = conn.user;
        let user = self.users[index].id;
        let illegal = |event: &Event| format!("user {user}: {asked:?}, request {request}, is answered {event:?}");
        match (&asked.what, event) {
            (_, Event::Error(error)) => {
                if !may_be_refused(asked, error.code()) {
                    return self.fail(illegal(&Event::Error(error)));
                }
                if asked.what == Ask::Login && conn.phase == Phase::LoggingIn {
                    conn.phase = Phase::Fresh;
                }
            }
            (Ask::Login, Event::Overloaded(later)) => {
                conn.phase = Phase::Fresh;
                conn.appointment = Some(self.now.wall + u64::from(later.retry_after_ms));
            }
            (_, Event::Overloaded(_)) => {}
            (Ask::Hostile, event) => self.fail(illegal(&event)),
            (Ask::Login, Event::Welcome(welcome)) => {
                conn.phase = Phase::Online;
                let count = welcome.unacknowledged as usize;
                if count == 0 {
                    self.recalled(conn, &[]);
                } else {
                    conn.recall = Some((count, Vec::new()));
                }
            }
            (Ask::Ping, Event::Pong(_)) | (Ask::Orders, Event::OrderList(_)) => {}
            (Ask::Statement, Event::StatementPage(page)) => {
                let known: u64 = page.movements.iter().map(|movement| movement.entry_id).max().unwrap_or(0);
                if known > lock(&self.watch).model.entries.len() as u64 {
                    self.fail(illegal(&Event::StatementPage(page)));
                }
            }
            (Ask::Inspect(_), Event::EnvelopeView(_)) => {}
            (Ask::Grab(campaign), event) => self.grabbed(conn, request, asked, *campaign, event),
            (Ask::Acknowledge { wins, orders, envelopes }, Event::Acknowledged(_)) => {
                let step = self.trace.step;
                let user = &mut self.users[index];
                for win in wins {
                    user.seen_wins.entry(*win).or_insert(step);
                    user.wins.remove(win);
                }
                for envelope in envelopes {
                    user.seen_envelopes.entry(*envelope).or_insert(step);
                }
                self.figures.acknowledged += (wins.len() + orders.len() + envelopes.len()) as u64;
            }
            (Ask::Open(envelope), Event::Opened(opened)) if opened.envelope_id == *envelope => {
                let share = (opened.share, opened.amount_fen);
                let step = self.trace.step;
                let known = *self.users[index].shares.entry(*envelope).or_insert(share);
                self.users[index].seen_envelopes.entry(*envelope).or_insert(step);
                let question = EnvelopeId::new(*envelope).map(Question::Envelope);
                let view = question.map(|question| lock(&self.watch).model.ask(user, &question));
                let durable = match view {
                    Ok(Answer::Envelope(Some(view))) => {
                        view.opened.get(share.0 as usize).map(|(opener, amount, _)| (*opener, amount.0))
                    }
                    _ => None,
                };
                if known != share || durable != Some((user, share.1)) {
                    self.fail(format!("user {user} is told {opened:?}; before {known:?}, durable {durable:?}"));
                }
                self.figures.shares += 1;
            }
            (Ask::Open(envelope), Event::EnvelopeEmpty(empty)) if empty.envelope_id == *envelope => {}
            (Ask::Open(_) | Ask::Pay(_), Event::TooLate(_)) => {}
            (Ask::Send, Event::EnvelopeSent(sent)) => {
                let known = *self.users[index].sent.entry(request).or_insert(sent.envelope_id);
                let question = EnvelopeId::new(sent.envelope_id).map(Question::Envelope);
                let view = question.map(|question| lock(&self.watch).model.ask(user, &question));
                let is_there = matches!(view, Ok(Answer::Envelope(Some(view))) if view.offer.sender == Some(user));
                if known != sent.envelope_id || !is_there {
                    self.fail(illegal(&Event::EnvelopeSent(sent)));
                }
                self.figures.envelopes += 1;
            }
            (Ask::Pay(id), Event::Order(order)) if order.order_id == *id && order.state() == State::Paid => {
                self.told_order(conn, &order, order.grabbed_by_request_id);
            }
            (Ask::Cancel(id), Event::Order(order))
                if order.order_id == *id && matches!(order.state(), State::Cancelled | State::Expired) =>
            {
                self.told_order(conn, &order, order.grabbed_by_request_id);
            }
            (Ask::ChatTo, Event::Receipt(receipt)) => {
                if receipt.delivered + receipt.offline + receipt.dropped != 1 || receipt.offset != 0 {
                    self.fail(illegal(&Event::Receipt(receipt)));
                }
            }
            (Ask::ChatIn { room, text }, Event::Receipt(receipt)) => {
                let heard = receipt.delivered + receipt.offline + receipt.dropped;
                let known = *self.texts.entry(text.clone()).or_insert((*room, receipt.offset));
                if heard as usize >= self.users.len() || known != (*room, receipt.offset) || receipt.offset == 0 {
                    self.fail(illegal(&Event::Receipt(receipt)));
                }
            }
            (Ask::Join { room, epoch, offset }, Event::RoomState(state)) if state.room_id == *room => {
                self.joined(conn, (*epoch, *offset), &state);
            }
            (Ask::Look(room), Event::RoomState(state)) if state.room_id == *room => {
                self.stand(conn, &state);
            }
            (Ask::Leave(room), Event::RoomState(state)) if state.room_id == *room => {
                conn.rooms.remove(room);
                self.users[index].rooms.remove(room);
            }
            (_, event) => self.fail(illegal(&event)),
        }
    }

    fn grabbed(&mut self, conn: &mut Conn, request: u64, asked: &Asked, campaign: u32, event: Event) {
        let user = self.users[conn.user].id;
        let illegal = |event: &Event| format!("user {user}: {asked:?}, request {request}, is answered {event:?}");
        if asked.first.is_some() && !matches!(event, Event::Won(_) | Event::Order(_)) {
            return self.fail(illegal(&event));
        }
        let terms = {
            let watch = lock(&self.watch);
            watch.model.campaigns.iter().find(|known| known.id.get() == campaign).cloned()
        };
        match event {
            Event::Won(won) if won.won_by_request_id == request => {
                self.told_win(conn, &won);
                self.figures.wins += 1;
            }
            Event::Order(order) if order.grabbed_by_request_id == request => {
                self.told_order(conn, &order, request);
                self.figures.orders += 1;
            }
            Event::NoneNow(_) => {}
            Event::SoldOut(_) if terms.as_ref().is_some_and(|known| known.won == known.terms.total) => {}
            Event::LimitReached(reached)
                // Of any rain, where none was named.
                if campaign == 0
                    || terms.as_ref().is_some_and(|known| known.terms.per_user_limit == Some(reached.limit)) =>
            {
                self.users[conn.user].limited.insert(campaign);
            }
            Event::TooEarly(early)
                if terms.as_ref().is_some_and(|known| known.terms.starts_at == early.starts_at_ms) => {}
            Event::TooLate(_)
                if terms.as_ref().is_some_and(|known| {
                    known.stopped_at.is_some()
                        || known.settlement.is_some()
                        || known.terms.ends_at.is_some_and(|end| end <= self.latest_wall)
                }) => {}
            event => self.fail(illegal(&event)),
        }
    }

    // ---- Rooms

    fn told_message(&mut self, conn: &mut Conn, message: &v1::ChatMessage) {
        let from = message.text.split(':').next().and_then(|text| text.parse().ok());
        let user = self.users[conn.user].id;
        if from != Some(message.from_user_id) {
            return self.fail(format!("user {user} is told {message:?}, of another"));
        }
        if message.room_id == 0 {
            return;
        }
        self.figures.messages += 1;
        let known = *self.texts.entry(message.text.clone()).or_insert((message.room_id, message.offset));
        // A leave of whose answer the user has not heard: the room may have begun anew since, and
        // shows so by its offsets.
        let left = |asked: &Asked| asked.what == Ask::Leave(message.room_id);
        let mut others = self.conns.values().filter(|other| other.user == conn.user);
        let may_be_new = self.users[conn.user].left.contains(&message.room_id)
            || others.any(|other| other.asked.values().flatten().any(left));
        let (_, last) = conn.rooms.entry(message.room_id).or_insert((0, 0));
        if (message.offset <= *last && !may_be_new) || known != (message.room_id, message.offset) {
            let what = format!("user {user} is told {message:?} after offset {last}; it was said at {known:?}");
            return self.fail(what);
        }
        *last = message.offset;
    }

    /// A room's state divides what is pushed before it from what comes after.
    fn stand(&mut self, conn: &mut Conn, state: &v1::RoomState) {
        let (epoch, last) = conn.rooms.entry(state.room_id).or_insert((0, 0));
        if *epoch == state.epoch && state.offset < *last {
            let what = format!("{state:?} after a message of offset {last}");
            return self.fail(what);
        }
        (*epoch, *last) = (state.epoch, state.offset);
    }

    fn joined(&mut self, conn: &mut Conn, (epoch, seen): (u64, u64), state: &v1::RoomState) {
        self.stand(conn, state);
        let first = state.missed.first().map_or(state.offset + 1, |message| message.offset);
        let in_order = state.missed.iter().zip(first..).all(|(message, offset)| message.offset == offset);
        let whole = first + state.missed.len() as u64 == state.offset + 1;
        let honest = if state.recovered { epoch == state.epoch && first == seen + 1 } else { true };
        if !(in_order && whole && honest) {
            return self.fail(format!("joined with {epoch}/{seen}, told {state:?}"));
        }
        for message in &state.missed {
            let known = *self.texts.entry(message.text.clone()).or_insert((state.room_id, message.offset));
            if known != (state.room_id, message.offset) {
                return self.fail(format!("{message:?} was said at {known:?}"));
            }
        }
        if state.recovered {
            self.figures.recovered += 1;
        }
        self.users[conn.user].rooms.insert(state.room_id, (state.epoch, state.offset));
    }
}

fn may_be_refused(asked: &Asked, code: ErrorCode) -> bool {
    match code {
        ErrorCode::LedgerUnavailable => !matches!(
            asked.what,
            Ask::Ping | Ask::ChatTo | Ask::ChatIn { .. } | Ask::Join { .. } | Ask::Leave(_) | Ask::Look(_)
        ),
        ErrorCode::NotLoggedIn => !asked.online,
        ErrorCode::AlreadyLoggedIn => matches!(asked.what, Ask::Login | Ask::Hostile),
        ErrorCode::NoSuchCampaign => matches!(asked.what, Ask::Grab(_)),
        ErrorCode::NoSuchEnvelope => matches!(asked.what, Ask::Open(_) | Ask::Inspect(_)),
        ErrorCode::NoSuchOrder => matches!(asked.what, Ask::Pay(_) | Ask::Cancel(_)),
        ErrorCode::InsufficientFunds => matches!(asked.what, Ask::Pay(_) | Ask::Send),
        ErrorCode::OrderPaid => matches!(asked.what, Ask::Cancel(_)),
        ErrorCode::NoSuchRoom => {
            matches!(asked.what, Ask::ChatIn { .. } | Ask::Leave(_) | Ask::Look(_) | Ask::Send)
        }
        _ => asked.what == Ask::Hostile,
    }
}

fn win_item(won: &v1::Won) -> Item {
    Item::Win { campaign: won.campaign_id, serial: won.serial, amount: won.amount_fen, request: won.won_by_request_id }
}

fn items_of(recall: &Recall) -> Vec<Item> {
    let awards = recall.unacknowledged.iter().map(|award| match award {
        Award::Win(win) => Item::Win {
            campaign: win.campaign.get(),
            serial: win.serial.0,
            amount: win.amount.0,
            request: win.request.get(),
        },
        Award::Order(order) => Item::Order { id: order.id.get(), state: state_of(order).into() },
    });
    let offers = recall.offers.iter().map(|offer| Item::Offer(offer.envelope.get()));
    let mut items: Vec<_> = awards.chain(offers).collect();
    items.sort_unstable();
    items
}

fn state_of(order: &Order) -> State {
    match order.state {
        OrderState::Reserved => State::Reserved,
        OrderState::Paid => State::Paid,
        OrderState::Cancelled => State::Cancelled,
        OrderState::Expired => State::Expired,
    }
}
