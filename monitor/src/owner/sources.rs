//! Who is connected, and at which address each takes orders.

use std::collections::{BTreeMap, HashMap};

use hongbao_proto::report_v1::Source;
use tokio::sync::oneshot;

use crate::limits::CONTROL_BYTES_MAX;
use crate::owner::{ConnectionId, ControlPoint, Cut};
use crate::run::ends::End;
use crate::run::merge::{Joined, Merge, SourceId};
use crate::run::rejection::Rejection;

struct Connection {
    joined: Joined,
    cut: oneshot::Sender<Cut>,
}

#[derive(Default)]
pub struct Sources {
    connections: HashMap<ConnectionId, Connection>,
    by_source: HashMap<SourceId, ConnectionId>,
    addresses: BTreeMap<SourceId, ControlPoint>,
    connected: u64,
    ended: BTreeMap<End, u64>,
}

impl Sources {
    /// Whether the addresses of a Hello may be kept.
    pub fn check(source: &Source) -> Result<(), Rejection> {
        match source.control.len().max(source.listen.len()) <= CONTROL_BYTES_MAX {
            true => Ok(()),
            false => Err(Rejection::Address),
        }
    }

    /// A new connection; an older one of the same source is cut.
    pub fn join(&mut self, joined: Joined, control: ControlPoint, cut: oneshot::Sender<Cut>) -> ConnectionId {
        self.connected += 1;
        let id = ConnectionId(self.connected);
        if let Some(older) = self.by_source.insert(joined.source, id)
            && let Some(older) = self.connections.remove(&older)
        {
            send_cut(older.cut, Cut::Replaced);
        }
        self.addresses.insert(joined.source, control);
        self.connections.insert(id, Connection { joined, cut });
        id
    }

    pub fn get(&self, id: ConnectionId) -> Option<Joined> {
        Some(self.connections.get(&id)?.joined)
    }

    /// A connection is over, or is to be cut for a reason.
    pub fn leave(&mut self, id: ConnectionId, reason: Option<Cut>) -> Option<Joined> {
        let Connection { joined, cut } = self.connections.remove(&id)?;
        self.by_source.remove(&joined.source);
        if let Some(reason) = reason {
            send_cut(cut, reason);
        }
        Some(joined)
    }

    pub fn count_end(&mut self, end: End) {
        *self.ended.entry(end).or_default() += 1;
    }

    /// Connections that have ended, by why.
    pub fn ended(&self) -> &BTreeMap<End, u64> {
        &self.ended
    }

    pub fn controls(&self, merge: &Merge) -> Vec<ControlPoint> {
        let now = |(id, point): (&SourceId, &ControlPoint)| ControlPoint {
            presence: merge.source(*id).presence,
            ..point.clone()
        };
        self.addresses.iter().map(now).collect()
    }
}

fn send_cut(connection: oneshot::Sender<Cut>, reason: Cut) {
    if connection.send(reason).is_err() {
        tracing::debug!(event = "cut_too_late", "the connection to be cut has just ended by itself");
    }
}
