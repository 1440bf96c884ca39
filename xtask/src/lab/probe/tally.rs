//! What became of numbered packets.

use std::fmt;
use std::ops::AddAssign;

/// What became of the packets of some flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Flows.
    pub n_flows: u64,
    /// Packets that the senders' host took.
    pub n_sent: u64,
    /// Packets that never arrived; of TCP, segments sent again.
    pub n_lost: u64,
    /// Packets that arrived after a later one of their flow.
    pub n_reordered: u64,
    /// Packets that arrived again.
    pub n_duplicated: u64,
    /// Datagrams, or bytes of TCP, that are not what was sent.
    pub n_corrupt: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.n_flows += other.n_flows;
        self.n_sent += other.n_sent;
        self.n_lost += other.n_lost;
        self.n_reordered += other.n_reordered;
        self.n_duplicated += other.n_duplicated;
        self.n_corrupt += other.n_corrupt;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            n_flows,
            n_sent,
            n_lost,
            n_reordered,
            n_duplicated,
            n_corrupt,
        } = self;
        write!(
            f,
            "{n_flows} flows, {n_sent} packets: {n_lost} lost, {n_reordered} reordered, {n_duplicated} duplicated, \
             {n_corrupt} corrupt"
        )
    }
}
