//! Which of a peer's connections the stream of each lane is on.
//!
//! Lanes take turns at the connections of one way. There are several ways if this node has uplinks, or the peer, which then
//! dials from several addresses. Lanes take turns at those first, by their weights, and what costs more than another is not used.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::MAX_STREAMS_PER_PEER;
use stream_router::p2p::{UplinkBy, UplinkConfig, Way};

/// A connection that may be used.
#[derive(Clone, Debug)]
pub(super) struct Usable {
    /// Which way it goes.
    pub(super) way: Way,
    /// Whether the peer has dialled it.
    pub(super) is_inbound: bool,
}

/// What tells a way from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
enum WayKey {
    Uplink(UplinkBy),
    Host(IpAddr),
    /// The only one, or one of which nothing is known.
    Any,
}

/// Where the streams of the lanes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LaneHomes {
    /// The place of the connection of each lane.
    by_lane: Vec<usize>,
    /// Which of the ways each connection goes; `None` of one that costs more, or of which nothing is known.
    ways: Vec<Option<usize>>,
    /// How many connections are used.
    n_used: usize,
    /// The fewest lanes by which all ways have their shares.
    n_least: u32,
}

/// Connections that go one way.
struct Turn {
    weight: i64,
    connections: Vec<usize>,
    /// How much it lacks of its share, and how many lanes it has.
    credit: i64,
    n_lanes: usize,
}

impl LaneHomes {
    /// Finds the places of lanes on `connections`, oldest first, of which `n_most` are used of each way.
    pub(super) fn of(connections: &[Usable], n_most: usize) -> Self {
        let keys = keys(connections);
        let cost = |at: usize| uplink(&connections[at]).map_or(0, |uplink| uplink.cost);
        let known = (0..connections.len()).filter(|at| keys[*at].is_some());
        let least_cost = known.clone().map(cost).min();
        let used = known.filter(|at| Some(cost(*at)) == least_cost);
        let (mut turns, mut seen): (Vec<Turn>, Vec<&WayKey>) = (Vec::new(), Vec::new());
        let mut ways = vec![None; connections.len()];
        for at in used {
            let Some(key) = &keys[at] else { continue };
            let way = seen.iter().position(|other| *other == key).unwrap_or_else(|| {
                seen.push(key);
                turns.push(Turn {
                    weight: uplink(&connections[at]).map_or(1, |uplink| uplink.weight).into(),
                    connections: Vec::new(),
                    credit: 0,
                    n_lanes: 0,
                });
                turns.len() - 1
            });
            ways[at] = Some(way);
            if turns[way].connections.len() < n_most.max(1) {
                turns[way].connections.push(at);
            }
        }
        let n_used = turns.iter().map(|turn| turn.connections.len()).sum();
        let n_lanes = if turns.is_empty() { 0 } else { MAX_STREAMS_PER_PEER };
        Self {
            n_used,
            n_least: period(&turns),
            by_lane: (0..n_lanes).filter_map(|_| next(&mut turns)).collect(),
            ways,
        }
    }

    /// Returns the place of the connection of a lane; `None` if there is none.
    pub(super) fn of_lane(&self, lane: usize) -> Option<usize> {
        let turn = lane.checked_rem(self.by_lane.len())?;
        self.by_lane.get(turn).copied()
    }

    /// Says whether one connection goes another way than the other.
    pub(super) fn is_elsewhere(&self, connection: usize, other: usize) -> bool {
        let way = |at: usize| self.ways.get(at).copied().flatten();
        way(connection) != way(other)
    }

    /// Returns how many connections are used.
    pub(super) fn n_used(&self) -> usize {
        self.n_used
    }

    /// Returns the fewest lanes by which all ways have their shares.
    pub(super) fn n_least(&self) -> u32 {
        self.n_least
    }
}

fn uplink(connection: &Usable) -> Option<&UplinkConfig> {
    connection.way.uplink.as_ref()
}

/// Returns what tells the way of each connection; `None` of one that is not used, as nothing is known of it.
fn keys(connections: &[Usable]) -> Vec<Option<WayKey>> {
    let hosts = connections.iter().filter(|connection| connection.is_inbound);
    let hosts: BTreeSet<_> = hosts.filter_map(|connection| connection.way.host).collect();
    let has_uplinks = connections.iter().any(|connection| uplink(connection).is_some());
    if !has_uplinks && hosts.len() < 2 {
        return vec![Some(WayKey::Any); connections.len()];
    }
    let key = |connection: &Usable| match uplink(connection) {
        Some(uplink) => Some(WayKey::Uplink(uplink.by.clone())),
        None => connection.way.host.map(WayKey::Host),
    };
    connections.iter().map(key).collect()
}

/// Returns how many lanes there are in one round of the ways.
fn period(turns: &[Turn]) -> u32 {
    if turns.len() < 2 {
        return 1;
    }
    let weights = || turns.iter().map(|turn| turn.weight);
    let common = weights().fold(0, greatest_divisor).max(1);
    (weights().sum::<i64>() / common) as u32
}

fn greatest_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

/// Returns the connection of the next lane: the way that lacks most of its share has it.
fn next(turns: &mut [Turn]) -> Option<usize> {
    let total: i64 = turns.iter().map(|turn| turn.weight).sum();
    for turn in turns.iter_mut() {
        turn.credit += turn.weight;
    }
    // Of equal ones the first.
    let turn = turns.iter_mut().rev().max_by_key(|turn| turn.credit)?;
    turn.credit -= total;
    let at = turn.n_lanes.checked_rem(turn.connections.len())?;
    turn.n_lanes += 1;
    turn.connections.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(uplink: Option<(&str, u32, u32)>, host: Option<u8>, is_inbound: bool) -> Usable {
        let uplink = uplink.map(|(device, weight, cost)| UplinkConfig {
            by: UplinkBy::Device(device.to_owned()),
            weight,
            cost,
        });
        Usable {
            way: Way::new(uplink, host.map(|host| [192, 0, 2, host].into())),
            is_inbound,
        }
    }

    fn by(device: &str, weight: u32, cost: u32) -> Usable {
        connection(Some((device, weight, cost)), Some(1), false)
    }

    fn lanes(homes: &LaneHomes, n: usize) -> Vec<usize> {
        (0..n).filter_map(|lane| homes.of_lane(lane)).collect()
    }

    #[test]
    fn without_uplinks_lanes_take_turns_at_the_oldest_connections() {
        let one_way = [
            connection(None, Some(1), false),
            connection(None, Some(2), true),
            connection(None, None, true),
        ];
        for (n_most, expected) in [(1, [0, 0, 0, 0]), (2, [0, 1, 0, 1]), (9, [0, 1, 2, 0])] {
            let homes = LaneHomes::of(&one_way, n_most);
            assert_eq!(lanes(&homes, 4), expected);
            assert_eq!((homes.n_used(), homes.n_least()), (n_most.min(3), 1));
            assert!(!homes.is_elsewhere(0, expected[1]));
        }
        let none = LaneHomes::of(&[], 4);
        assert_eq!((none.of_lane(0), none.n_used(), none.n_least()), (None, 0, 1));
    }

    #[test]
    fn each_uplink_has_its_share_of_the_lanes() {
        let homes = LaneHomes::of(&[by("a", 1, 0), by("b", 1, 0)], 1);
        assert_eq!(lanes(&homes, 4), [0, 1, 0, 1]);
        assert_eq!((homes.n_used(), homes.n_least()), (2, 2));
        assert!(homes.is_elsewhere(0, 1));

        let homes = LaneHomes::of(&[by("a", 2, 0), by("b", 4, 0), by("a", 2, 0)], 2);
        assert_eq!(lanes(&homes, 6), [1, 0, 1, 1, 2, 1]);
        assert_eq!((homes.n_used(), homes.n_least()), (3, 3));
        assert!(!homes.is_elsewhere(0, 2));
    }

    #[test]
    fn what_costs_more_is_used_alone_or_not_at_all() {
        let all = [by("lte", 1, 1001), by("a", 1, 0), by("b", 1, 0)];
        let homes = LaneHomes::of(&all, 1);
        assert_eq!((lanes(&homes, 3), homes.n_least()), (vec![1, 2, 1], 2));
        assert!(homes.is_elsewhere(0, 1));

        let homes = LaneHomes::of(&all[..1], 1);
        assert_eq!((lanes(&homes, 3), homes.n_least()), (vec![0, 0, 0], 1));
    }

    #[test]
    fn a_peer_that_dials_from_several_addresses_has_several_ways() {
        let of_peer = [
            connection(None, Some(1), true),
            connection(None, Some(2), true),
            connection(None, Some(1), false),
        ];
        let homes = LaneHomes::of(&of_peer, 2);
        assert_eq!(lanes(&homes, 4), [0, 1, 2, 1]);
        assert_eq!(homes.n_least(), 2);
    }

    #[test]
    fn what_nothing_is_known_of_is_not_used_beside_an_uplink() {
        let relayed = connection(None, None, true);
        let homes = LaneHomes::of(&[relayed.clone(), by("a", 1, 0)], 1);
        assert_eq!((lanes(&homes, 2), homes.n_used()), (vec![1, 1], 1));
        assert_eq!(lanes(&LaneHomes::of(&[relayed], 1), 2), [0, 0]);
    }
}
