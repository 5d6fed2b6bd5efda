//! Statistics of the connection, from str0m's sums and our own counters.

use std::collections::HashMap;

use str0m::media::Mid;
use str0m::stats::{MediaEgressStats, MediaIngressStats, PeerStats};

use super::{Peer, TransceiverId};
use crate::stats::RtcStats;

/// What str0m summed up last.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    pub(super) peer: Option<PeerStats>,
    ingress: HashMap<Mid, MediaIngressStats>,
    egress: HashMap<Mid, MediaEgressStats>,
}

impl Statistics {
    pub(super) fn ingress(&mut self, stats: MediaIngressStats) {
        self.ingress.insert(stats.mid, stats);
    }

    pub(super) fn egress(&mut self, stats: MediaEgressStats) {
        self.egress.insert(stats.mid, stats);
    }
}

impl Peer {
    pub(crate) fn sender_stats(&self, _id: TransceiverId) -> Vec<RtcStats> {
        Vec::new()
    }

    pub(crate) fn receiver_stats(&self, _id: TransceiverId) -> Vec<RtcStats> {
        Vec::new()
    }

    pub(crate) fn stats(&self) -> Vec<RtcStats> {
        Vec::new()
    }
}
