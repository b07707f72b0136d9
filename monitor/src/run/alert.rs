//! What is worth a person's look, told from the seconds: when it begins, and when it is over.
//!
//! Pure. Each condition must hold for a while before it is said, and be gone for a while before it
//! is taken back, so that a figure at its threshold does not fill the timeline.

use std::collections::{BTreeMap, VecDeque};

use crate::run::books::{Balance, Book};
use crate::run::mark::{ALERT, Mark, RESOLVED};
use crate::run::merge::{Presence, SourceStatus};
use crate::run::second::Headline;

/// A residual that is older than this stands: what was won later may be on its way to its user.
const STANDING_SECONDS: u64 = 5;

/// Sends may be so much below the plan, percent.
const BELOW_PLAN_PERCENT: i64 = 5;

/// Requests a second below which a share of them says nothing.
const REQUESTS_MIN: i64 = 20;

/// Requests that may be answered Overloaded, percent.
const OVERLOADED_PERCENT: i64 = 1;

/// What a machine's clock may be off by at most, microseconds: the default of the fleet's
/// --clock-budget.
const CLOCK_ERROR_MAX_US: i64 = 50_000;

/// Descriptors of a table that may be in use, percent.
const DESCRIPTORS_PERCENT: i64 = 90;

/// What can be wrong, in the order in which it is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Residual(Book),
    BelowPlan,
    Overloaded,
    Lost(String),
    Clock(String),
    Descriptors(String),
    Recording,
}

impl What {
    /// Seconds for which it must hold, and be gone.
    const fn patience(&self) -> (u32, u32) {
        match self {
            What::BelowPlan => (3, 3),
            What::Overloaded => (2, 5),
            What::Clock(_) | What::Descriptors(_) => (1, 5),
            What::Residual(_) | What::Lost(_) | What::Recording => (1, 1),
        }
    }

    fn over(&self) -> String {
        match self {
            What::Residual(book) => format!("the books of {} agree again", book.name()),
            What::BelowPlan => "the fleet sends as planned again".to_owned(),
            What::Overloaded => "fewer requests are answered Overloaded again".to_owned(),
            What::Lost(source) => format!("{source} reports again, or has ended"),
            What::Clock(source) => format!("the clock of {source} is good again"),
            What::Descriptors(source) => format!("{source} has descriptors to spare again"),
            What::Recording => "the recording works again".to_owned(),
        }
    }
}

/// How a condition has been lately.
#[derive(Debug, Default)]
struct State {
    raised: bool,
    /// Seconds in a row in which it was other than `raised` says.
    otherwise: u32,
}

/// What a look at a second needs.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The second's figures.
    pub headline: &'a Headline,
    pub books: &'a Balance,
    pub sources: &'a [SourceStatus],
    /// Whether the latest write to the recording failed.
    pub recording_fails: bool,
}

/// All conditions of a run.
#[derive(Debug, Default)]
pub struct Alerts {
    states: BTreeMap<What, State>,
    /// The books of the last [`STANDING_SECONDS`].
    books: VecDeque<Balance>,
}

impl Alerts {
    /// Looks at the next second: what has begun, and what is over.
    pub fn look(&mut self, evidence: Evidence<'_>) -> Vec<Mark> {
        let Evidence { headline, books, sources, recording_fails } = evidence;
        let mut found: BTreeMap<What, Option<String>> = BTreeMap::new();
        let before = self.books.iter().rfind(|before| before.second + STANDING_SECONDS <= books.second);
        for book in Book::ALL {
            found.insert(What::Residual(book), before.and_then(|before| standing(book, before, books)));
        }
        self.books.push_back(*books);
        while self.books.get(1).is_some_and(|next| next.second + STANDING_SECONDS <= books.second) {
            self.books.pop_front();
        }
        // Of a second that is not whole nothing can be said.
        if headline.complete {
            found.insert(What::BelowPlan, below_plan(headline));
            found.insert(What::Overloaded, overloaded(headline));
        }
        for source in sources {
            let label = format!("{}/{}", source.role, source.name);
            let (figures, is_there) = (&source.figures, source.presence == Presence::Reporting);
            let lost = (source.presence == Presence::Lost).then(|| format!("{label} has vanished without its leave"));
            let clock = figures.clock_error_us.filter(|error| is_there && *error > CLOCK_ERROR_MAX_US);
            let clock = clock.map(|error| format!("the clock of {label} may be off by {} ms", error / 1_000));
            let full = figures.open_descriptors.zip(figures.descriptors_limit).filter(|_| is_there);
            let full = full.filter(|(open, limit)| *limit > 0 && open * 100 > limit * DESCRIPTORS_PERCENT);
            let full = full.map(|(open, limit)| format!("{label} has {open} of {limit} descriptors in use"));
            found.insert(What::Lost(label.clone()), lost);
            found.insert(What::Clock(label.clone()), clock);
            found.insert(What::Descriptors(label), full);
        }
        let recording = recording_fails.then(|| "the recording cannot be written; the run goes on".to_owned());
        found.insert(What::Recording, recording);
        let at_ms = headline.second * 1_000;
        found.into_iter().filter_map(|(what, text)| self.step(at_ms, what, text)).collect()
    }

    fn step(&mut self, at_ms: u64, what: What, text: Option<String>) -> Option<Mark> {
        let (to_raise, to_clear) = what.patience();
        let state = self.states.entry(what.clone()).or_default();
        if text.is_some() == state.raised {
            state.otherwise = 0;
            return None;
        }
        state.otherwise += 1;
        if state.otherwise < if state.raised { to_clear } else { to_raise } {
            return None;
        }
        *state = State { raised: !state.raised, otherwise: 0 };
        let (kind, text) = text.map_or_else(|| (RESOLVED, what.over()), |text| (ALERT, text));
        Some(Mark { at_ms, kind: kind.to_owned(), source: "monitor".to_owned(), text })
    }
}

/// Of a residual, what cannot be on its way: it is more than all that came into the leading book
/// meanwhile.
fn standing(book: Book, before: &Balance, now: &Balance) -> Option<String> {
    let (then, sides) = (before.claims.sides(book), now.claims.sides(book));
    let unexplained = |residual: i64, servers: i64, users: i64| {
        let lately = if residual > 0 { servers } else { users };
        residual.abs() > lately.max(0)
    };
    let count = unexplained(
        sides.residual_count(),
        sides.servers_count - then.servers_count,
        sides.users_count - then.users_count,
    );
    let fen = unexplained(sides.residual_fen(), sides.servers_fen - then.servers_fen, sides.users_fen - then.users_fen);
    (count || fen).then(|| {
        format!(
            "the books of {} have not agreed for more than {STANDING_SECONDS} s: residual {}, {} fen",
            book.name(),
            sides.residual_count(),
            sides.residual_fen()
        )
    })
}

fn below_plan(headline: &Headline) -> Option<String> {
    let (planned, sent) = (headline.planned, headline.sent);
    let below = planned >= REQUESTS_MIN && sent * 100 < planned * (100 - BELOW_PLAN_PERCENT);
    below.then(|| format!("{sent} of {planned} planned requests were sent"))
}

fn overloaded(headline: &Headline) -> Option<String> {
    let (overloaded, answered) = headline.overloaded.zip(headline.requests_answered)?;
    let many = answered >= REQUESTS_MIN && overloaded * 100 > answered * OVERLOADED_PERCENT;
    many.then(|| format!("{overloaded} of {answered} requests were answered Overloaded"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::books::Claims;
    use crate::run::second::{Figures, Role};

    fn good(second: u64) -> Headline {
        Headline {
            second,
            complete: true,
            planned: 1_000,
            sent: 1_000,
            overloaded: Some(0),
            requests_answered: Some(1_000),
            ..Headline::default()
        }
    }

    fn machine(presence: Presence, figures: Figures) -> SourceStatus {
        SourceStatus {
            role: Role::Machine,
            name: "m0".into(),
            instance: "a".into(),
            started_at_ms: 0,
            instances: 1,
            presence,
            last_second: None,
            reports: 1,
            older_than_run: false,
            figures,
        }
    }

    /// Looks at seconds one after the other; what was said, and when.
    fn said(
        seconds: impl IntoIterator<Item = (Headline, Claims, Option<SourceStatus>, bool)>,
    ) -> Vec<(u64, String, String)> {
        let (mut alerts, mut books, mut said) = (Alerts::default(), Balance::default(), Vec::new());
        for (headline, claims, source, recording_fails) in seconds {
            books = books.after(headline.second, claims);
            let sources: Vec<SourceStatus> = source.into_iter().collect();
            let evidence = Evidence { headline: &headline, books: &books, sources: &sources, recording_fails };
            said.extend(alerts.look(evidence).into_iter().map(|mark| (mark.at_ms / 1_000, mark.kind, mark.text)));
        }
        said
    }

    fn kinds(said: &[(u64, String, String)]) -> Vec<(u64, &str)> {
        said.iter().map(|(at, kind, _)| (*at, kind.as_str())).collect()
    }

    #[test]
    fn sends_below_plan_raise_and_clear_an_alert_in_three_seconds() {
        let sent = |second, sent| (Headline { sent, ..good(second) }, Claims::default(), None, false);
        let amounts = [1_000, 940, 940, 1_000, 940, 940, 940, 940, 1_000, 940, 1_000, 960, 951, 1_000];
        let said = said((100..).zip(amounts).map(|(second, amount)| sent(second, amount)));
        assert_eq!(kinds(&said), [(106, ALERT), (112, RESOLVED)]);
        assert!(said[0].2.contains("940 of 1000"), "{said:?}");
    }

    #[test]
    fn nothing_is_said_of_a_second_that_is_not_whole() {
        let torn = |second| (Headline { complete: false, sent: 0, ..good(second) }, Claims::default(), None, false);
        assert!(said((100..120).map(torn)).is_empty());
    }

    #[test]
    fn what_is_on_its_way_is_no_alert_and_what_stands_is() {
        let claims = |won: i64, received: i64| Claims {
            won,
            paid_fen: won * 10,
            prizes_received: received,
            received_fen: received * 10,
            ..Claims::default()
        };
        // 200 a second, each told within the next second; then one is never told.
        let flow = (0..20).map(|n| claims(200 * n, 200 * (n - 1).max(0)));
        let end = (0..12).map(|_| claims(3_800, 3_799));
        let told = (0..2).map(|_| claims(3_800, 3_800));
        let seconds =
            (100..).zip(flow.chain(end).chain(told)).map(|(second, claims)| (good(second), claims, None, false));
        let said = said(seconds);
        assert_eq!(kinds(&said), [(124, ALERT), (132, RESOLVED)]);
        assert!(said[0].2.contains("rain") && said[0].2.contains("residual 1, 10 fen"), "{said:?}");
    }

    #[test]
    fn money_that_no_ledger_holds_stands_as_well() {
        let claims = Claims { prizes_received: 1, received_fen: 7, ..Claims::default() };
        let seconds = (100..110).map(|second| (good(second), claims, None, false));
        assert_eq!(kinds(&said(seconds)), [(105, ALERT)]);
    }

    #[test]
    fn each_kind_of_trouble_raises_its_alert_and_clears_it() {
        let figures = Figures { clock_error_us: Some(60_000), ..Figures::default() };
        let full = Figures { open_descriptors: Some(91), descriptors_limit: Some(100), ..Figures::default() };
        let none = Figures::default();
        let cases: [(Headline, SourceStatus, bool, &str); 5] = [
            (Headline { overloaded: Some(11), ..good(0) }, machine(Presence::Reporting, none), false, "Overloaded"),
            (good(0), machine(Presence::Lost, none), false, "vanished"),
            (good(0), machine(Presence::Reporting, figures), false, "60 ms"),
            (good(0), machine(Presence::Reporting, full), false, "91 of 100"),
            (good(0), machine(Presence::Reporting, none), true, "recording"),
        ];
        for (headline, source, fails, words) in cases {
            let bad = (100..104)
                .map(|second| (Headline { second, ..headline }, Claims::default(), Some(source.clone()), fails));
            let fine = (104..112)
                .map(|second| (good(second), Claims::default(), Some(machine(Presence::Reporting, none)), false));
            let said = said(bad.chain(fine));
            assert_eq!(
                said.iter().map(|(_, kind, _)| kind.as_str()).collect::<Vec<_>>(),
                [ALERT, RESOLVED],
                "{words}: {said:?}"
            );
            assert!(said[0].2.contains(words), "{said:?}");
        }
    }
}
