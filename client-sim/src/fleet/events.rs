//! What is to happen at moments inside the phases: storms, announcements, envelopes, a sale.
//! Moments are whole seconds after the first phase's beginning.

use std::str::FromStr;
use std::time::Duration;

use hongbao_proto::limits::ENVELOPE_USERS_MAX;

use crate::arguments::{ArgumentError, is_whole_seconds, require, split_at_mark};
use crate::limits::{ANNOUNCEMENT_TEXTS_MAX, STORM_WATCH_SECONDS_MAX};
use crate::storm::Fraction;

/// Users who lose their connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedStorm {
    pub share: Fraction,
    pub at_second: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedAnnouncements {
    /// How many, at least 1.
    pub count: u32,
    /// When the first is posted.
    pub at_second: u64,
    pub every: Duration,
}

/// Envelopes that the house sends to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedEnvelopes {
    /// How many, at least 1.
    pub count: u32,
    /// How many a second.
    pub rate: u32,
    /// To how many users each, 1 to 500.
    pub recipients: u32,
    /// When the first is sent.
    pub at_second: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedTickets {
    pub total: u64,
    /// What one costs, fen.
    pub price_fen: u64,
    /// How many one user may hold; none: no limit.
    pub limit: Option<u32>,
    pub at_second: u64,
}

impl FromStr for PlannedEnvelopes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not COUNT[:RATE[:RECIPIENTS]][@T], as in 200:50:10@40s");
        let (numbers, at_second) = numbers_at(text)?;
        let number = |index: usize, absent| match numbers.get(index) {
            Some(number) => number.parse::<u32>().map_err(|_| wrong()),
            None => Ok(absent),
        };
        let planned = Self { count: number(0, 0)?, rate: number(1, 50)?, recipients: number(2, 10)?, at_second };
        let recipients_max = u32::try_from(ENVELOPE_USERS_MAX).unwrap_or(u32::MAX);
        if numbers.len() > 3 || planned.count == 0 || planned.rate == 0 {
            return Err(wrong());
        }
        if !(1..=recipients_max).contains(&planned.recipients) {
            return Err(format!("`{text}`: an envelope is for 1 to {recipients_max} users"));
        }
        Ok(planned)
    }
}

impl FromStr for PlannedTickets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not TOTAL[:PRICEFEN[:LIMIT]][@T], as in 2000:5000:2@50s");
        let (numbers, at_second) = numbers_at(text)?;
        let number =
            |index: usize| numbers.get(index).map(|number| number.parse::<u64>().map_err(|_| wrong())).transpose();
        let limit = number(2)?.map(|limit| u32::try_from(limit).map_err(|_| wrong())).transpose()?;
        let planned =
            Self { total: number(0)?.ok_or_else(wrong)?, price_fen: number(1)?.unwrap_or(100), limit, at_second };
        if numbers.len() > 3 || planned.total == 0 || planned.limit == Some(0) {
            return Err(wrong());
        }
        Ok(planned)
    }
}

/// Numbers parted by colons, and the moment behind them; none: 0.
fn numbers_at(text: &str) -> Result<(Vec<&str>, u64), String> {
    let (numbers, at) = split_at_mark(text.trim(), '@');
    Ok((numbers.split(':').collect(), at.map_or(Ok(0), whole_seconds)?))
}

impl FromStr for PlannedStorm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (share, at) =
            text.trim().split_once('@').ok_or_else(|| format!("`{text}` is not SHARE@T, as in 30%@20s"))?;
        Ok(Self { share: share.parse()?, at_second: whole_seconds(at)? })
    }
}

impl FromStr for PlannedAnnouncements {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not N@T[/EVERY], as in 3@10s/1s");
        let (count, rest) = text.trim().split_once('@').ok_or_else(wrong)?;
        let (at, every) = rest.split_once('/').unwrap_or((rest, "1s"));
        let count = count.parse().map_err(|_| wrong())?;
        if count == 0 || count as usize > ANNOUNCEMENT_TEXTS_MAX {
            return Err(format!("`{text}`: 1 to {ANNOUNCEMENT_TEXTS_MAX} announcements"));
        }
        let every = humantime::parse_duration(every).map_err(|_| wrong())?;
        Ok(Self { count, at_second: whole_seconds(at)?, every })
    }
}

fn whole_seconds(text: &str) -> Result<u64, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if is_whole_seconds(duration) => Ok(duration.as_secs()),
        _ => Err(format!("`{text}` is no moment in whole seconds, as 20s")),
    }
}

/// Puts storms in the order of their moments; refuses those that do not fit phases of so many
/// seconds, or each other.
pub fn check_storms(storms: &mut [PlannedStorm], deadline: Duration, lasting: u64) -> Result<(), ArgumentError> {
    let in_range = (1..=u64::from(STORM_WATCH_SECONDS_MAX)).contains(&deadline.as_secs());
    let range = format!("whole seconds, 1 to {STORM_WATCH_SECONDS_MAX}");
    require(in_range && is_whole_seconds(deadline), "storm-deadline", format!("{deadline:?}"), &range)?;
    storms.sort_unstable_by_key(|storm| storm.at_second);
    if let Some(last) = storms.last() {
        check_moment("storm", Duration::from_secs(last.at_second), lasting)?;
    }
    for pair in storms.windows(2) {
        let (first, second, deadline) = (pair[0].at_second, pair[1].at_second, deadline.as_secs());
        if second - first < deadline {
            return Err(ArgumentError::Wrong(format!(
                "--storm: the storms at {first} s and {second} s are nearer than --storm-deadline, which is {deadline} s"
            )));
        }
    }
    Ok(())
}

/// Refuses what does not begin inside phases of so many seconds.
pub fn check_moment(option: &str, at: Duration, lasting: u64) -> Result<(), ArgumentError> {
    let lasting = Duration::from_secs(lasting);
    if at < lasting {
        return Ok(());
    }
    Err(ArgumentError::Wrong(format!("--{option}: {at:?} is not inside the phases, which last {lasting:?}")))
}

/// Refuses announcements that are not all posted inside phases of so many seconds.
pub fn check_announcements(planned: PlannedAnnouncements, lasting: u64) -> Result<(), ArgumentError> {
    let after_first = planned.every.checked_mul(planned.count - 1).unwrap_or(Duration::MAX);
    check_moment("announce", Duration::from_secs(planned.at_second).saturating_add(after_first), lasting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storm(text: &str) -> PlannedStorm {
        text.parse().unwrap()
    }

    #[test]
    fn events_are_read_or_refused() {
        assert_eq!(storm("30%@20s"), PlannedStorm { share: "30%".parse().unwrap(), at_second: 20 });
        assert_eq!(storm("0.5%@2m").at_second, 120);
        for wrong in ["", "30%", "30%@", "30@20s", "30%@1500ms", "0%@1s", "30%@20"] {
            assert!(wrong.parse::<PlannedStorm>().is_err(), "{wrong}");
        }
        let planned = |count, at_second, every| PlannedAnnouncements { count, at_second, every };
        assert_eq!("3@10s/500ms".parse(), Ok(planned(3, 10, Duration::from_millis(500))));
        assert_eq!("1@0s".parse(), Ok(planned(1, 0, Duration::from_secs(1))));
        for wrong in ["", "3", "0@10s", "1001@10s", "3@10s/", "3@1500ms", "x@1s"] {
            assert!(wrong.parse::<PlannedAnnouncements>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn envelopes_and_sales_are_read_or_refused() {
        let envelopes = |count, rate, recipients, at_second| PlannedEnvelopes { count, rate, recipients, at_second };
        assert_eq!("200".parse(), Ok(envelopes(200, 50, 10, 0)));
        assert_eq!("200:20:8@40s".parse(), Ok(envelopes(200, 20, 8, 40)));
        for wrong in ["", "0", "200:0", "200:20:0", "200:20:501", "200:20:8:1", "200@", "200@1500ms", "-1"] {
            assert!(wrong.parse::<PlannedEnvelopes>().is_err(), "{wrong}");
        }
        let tickets = |total, price_fen, limit, at_second| PlannedTickets { total, price_fen, limit, at_second };
        assert_eq!("2000".parse(), Ok(tickets(2_000, 100, None, 0)));
        assert_eq!("2000:0:2@1m".parse(), Ok(tickets(2_000, 0, Some(2), 60)));
        for wrong in ["", "0", "x", "2000:", "2000:1:0", "2000:1:1:1", "2000:1:4294967296"] {
            assert!(wrong.parse::<PlannedTickets>().is_err(), "{wrong}");
        }
        let moment = |second| check_moment("tickets", Duration::from_secs(second), 10);
        assert!(moment(9).is_ok());
        let outside = moment(10).unwrap_err().to_string();
        assert_eq!(outside, "--tickets: 10s is not inside the phases, which last 10s");
    }

    #[test]
    fn storms_lie_inside_the_phases_and_apart() {
        let check = |storms: &[&str], deadline| {
            let mut storms: Vec<_> = storms.iter().map(|text| storm(text)).collect();
            check_storms(&mut storms, Duration::from_secs(deadline), 40).map(|()| storms)
        };
        assert_eq!(check(&["5%@30s", "30%@20s"], 10).unwrap(), [storm("30%@20s"), storm("5%@30s")]);
        assert_eq!(
            check(&["5%@30s", "30%@20s"], 11).unwrap_err().to_string(),
            "--storm: the storms at 20 s and 30 s are nearer than --storm-deadline, which is 11 s"
        );
        let outside = check(&["5%@40s"], 10).unwrap_err();
        assert_eq!(outside.to_string(), "--storm: 40s is not inside the phases, which last 40s");
        for wrong in [0, 601] {
            assert!(check(&["5%@1s"], wrong).unwrap_err().to_string().contains("1 to 600"));
        }
    }

    #[test]
    fn the_last_announcement_is_posted_inside_the_phases() {
        assert!(check_announcements("3@10s/5s".parse().unwrap(), 21).is_ok());
        assert!(check_announcements("3@10s/5s".parse().unwrap(), 20).is_err());
        assert!(check_announcements("1000@1s/3000000000s".parse().unwrap(), 20).is_err());
    }
}
