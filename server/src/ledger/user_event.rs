//! What happened to a user, by the names that operators read: in the log (target `facts`), while
//! they follow the user (`trace`), and afterwards (`find`).

use std::fmt;

use serde::Serialize;

/// What an event is about, as far as it says: in JSON, and as `name=value` in lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envelope: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_fen: Option<u64>,
    /// How many things it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Of an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// Where an order is now: reserved, paid, cancelled or expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
}

/// A thing that a request can be about: what tells two of a kind apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Prize { campaign: u64, serial: u64 },
    Order(u64),
    Share { envelope: u64, share: u32 },
    Envelope(u64),
}

impl Details {
    /// The one thing that this is about, if there is one.
    pub fn subject(&self) -> Option<Subject> {
        match *self {
            Details { order: Some(order), .. } => Some(Subject::Order(order)),
            Details { campaign: Some(campaign), serial: Some(serial), .. } => Some(Subject::Prize { campaign, serial }),
            Details { envelope: Some(envelope), share: Some(share), .. } => Some(Subject::Share { envelope, share }),
            Details { envelope: Some(envelope), .. } => Some(Subject::Envelope(envelope)),
            _ => None,
        }
    }
}

/// ` order=7 campaign=3`: each after a space.
impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [
            ("order", self.order),
            ("campaign", self.campaign),
            ("serial", self.serial),
            ("envelope", self.envelope),
            ("share", self.share.map(u64::from)),
            ("amount_fen", self.amount_fen),
            ("count", self.count),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, " {name}={number}")?;
            }
        }
        for (name, word) in [("code", self.code), ("now", self.state)] {
            if let Some(word) = word {
                write!(f, " {name}={word}")?;
            }
        }
        Ok(())
    }
}
