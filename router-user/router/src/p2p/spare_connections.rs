//! Which connections of a peer are one too many.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use libp2p::swarm::ConnectionId;

use super::uplink::UplinkId;

/// How long a connection stands at least before it is spare, unless there is one at a better address: it may have been
/// made for a load that is still to come.
const SETTLED: Duration = Duration::from_secs(60);

/// A connection of a peer that is not to be left yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) connection: ConnectionId,
    /// Whether this node has dialled it.
    pub(super) is_own: bool,
    /// The place of its address among those of the peer, the best being 0.
    pub(super) rank: usize,
    pub(super) is_relayed: bool,
    pub(super) age: Duration,
    /// The uplink that it counts for, and what that costs.
    pub(super) uplink: UplinkId,
    pub(super) cost: u32,
    /// Whether the peer does not answer on it.
    pub(super) is_silent: bool,
    /// Whether it is from the listening port, which a NAT keeps open for it.
    pub(super) is_from_listening_port: bool,
}

/// Returns the connections of each uplink that has any.
pub(super) fn by_uplink(standing: &[Standing]) -> impl Iterator<Item = Vec<Standing>> {
    let mut of_uplinks = BTreeMap::<_, Vec<_>>::new();
    for one in standing {
        of_uplinks.entry(one.uplink).or_default().push(*one);
    }
    of_uplinks.into_values()
}

/// Returns the connections that this node has dialled by uplinks that cost more than another by which the peer answers.
pub(super) fn costly(standing: &[Standing]) -> Vec<ConnectionId> {
    let answering = standing.iter().filter(|one| !one.is_silent);
    let least = answering.map(|one| one.cost).min();
    let is_costly = |one: &&Standing| one.is_own && least.is_some_and(|least| one.cost > least);
    standing
        .iter()
        .filter(is_costly)
        .map(|one| one.connection)
        .collect()
}

/// Returns the connections that this node has dialled and does not need. Each side lets go of those only that it has
/// dialled, so that the two never let go of all. With `leads` those of this node stay, and else those of the peer, if there
/// are any that are as good and have stood for a while; `n_wanted` says how many are to stay in all. One through a relay is
/// let go of as soon as the peer has dialled a direct one.
pub(super) fn spare(standing: &[Standing], n_wanted: usize, leads: bool) -> Vec<ConnectionId> {
    let (own, theirs): (Vec<_>, Vec<_>) = standing.iter().copied().partition(|one| one.is_own);
    let dialled_us = theirs.iter().any(|one| !one.is_relayed);
    let (relayed, mut own): (Vec<_>, Vec<_>) = own.into_iter().partition(|one| dialled_us && one.is_relayed);
    let relayed = relayed.into_iter();
    own.sort_by_key(|one| (one.rank, !one.is_from_listening_port, Reverse(one.age)));
    let Some(best) = own.first().map(|one| one.rank) else {
        return relayed.map(|one| one.connection).collect();
    };
    let is_settled = |one: &Standing| one.age >= SETTLED;
    let as_good = theirs.iter().filter(|one| is_settled(one) && one.rank <= best);
    let n_theirs = as_good.count();
    let n_kept = if leads || n_theirs == 0 {
        n_wanted.max(1)
    } else {
        n_wanted.saturating_sub(n_theirs)
    };
    let (good, worse): (Vec<_>, Vec<_>) = own.into_iter().partition(|one| one.rank == best);
    let too_many = good.into_iter().skip(n_kept).filter(is_settled);
    relayed
        .chain(worse)
        .chain(too_many)
        .map(|one| one.connection)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(id: usize, rank: usize, age_s: u64) -> Standing {
        Standing {
            connection: ConnectionId::new_unchecked(id),
            is_own: true,
            rank,
            is_relayed: false,
            age: Duration::from_secs(age_s),
            uplink: UplinkId::FIRST,
            cost: 0,
            is_silent: false,
            is_from_listening_port: false,
        }
    }

    fn theirs(id: usize, rank: usize, age_s: u64) -> Standing {
        Standing {
            is_own: false,
            ..own(id, rank, age_s)
        }
    }

    fn ids(spare: Vec<ConnectionId>) -> Vec<String> {
        spare.into_iter().map(|id| id.to_string()).collect()
    }

    #[test]
    fn of_two_to_a_relay_the_one_stays_by_which_it_sees_the_listening_port() {
        let seen = Standing {
            is_from_listening_port: true,
            ..own(2, 0, 70)
        };

        assert_eq!(ids(spare(&[own(1, 0, 90), seen], 1, true)), ["1"]);
    }

    #[test]
    fn of_two_that_dialled_each_other_at_once_one_side_lets_go_after_a_while() {
        let both = |age_s| [own(1, 0, age_s), theirs(2, 0, age_s)];

        assert_eq!(ids(spare(&both(90), 1, true)), [""; 0]);
        assert_eq!(ids(spare(&both(90), 1, false)), ["1"]);
        assert_eq!(ids(spare(&both(30), 1, false)), [""; 0]);
        assert_eq!(ids(spare(&both(90), 2, false)), [""; 0], "both are wanted");
    }

    #[test]
    fn the_last_connection_is_never_spare() {
        for leads in [true, false] {
            assert_eq!(ids(spare(&[own(1, 3, 90)], 0, leads)), [""; 0]);
        }
    }

    #[test]
    fn a_connection_that_the_peer_has_dialled_counts_once_it_has_stood_for_a_while_and_is_as_good() {
        let beside = |theirs| ids(spare(&[own(1, 1, 900), theirs], 1, false));

        assert_eq!(beside(theirs(2, 1, 5)), [""; 0], "it is new");
        assert_eq!(beside(theirs(2, 2, 900)), [""; 0], "it is worse");
        assert_eq!(beside(theirs(2, 1, 900)), ["1"]);
        assert_eq!(beside(theirs(2, 0, 900)), ["1"]);
    }

    #[test]
    fn one_through_a_relay_gives_way_to_a_direct_one_whoever_dialled_it() {
        let relayed = |one| Standing {
            is_relayed: true,
            ..one
        };
        for leads in [true, false] {
            let beside = |theirs| ids(spare(&[relayed(own(1, 5, 5)), theirs], 1, leads));
            assert_eq!(beside(theirs(2, 7, 0)), ["1"]);
            assert_eq!(beside(relayed(theirs(2, 7, 0))), [""; 0]);
            let direct = [own(1, 5, 5), relayed(theirs(2, 7, 900))];
            assert_eq!(ids(spare(&direct, 1, leads)), [""; 0]);
        }
    }

    #[test]
    fn what_costs_more_is_left_while_the_peer_answers_on_what_costs_less() {
        let [cheap, costly_one] =
            [(own(1, 0, 5), 0), (own(2, 0, 90), 7)].map(|(one, cost)| Standing { cost, ..one });
        let by_peer = Standing {
            is_own: false,
            ..costly_one
        };
        let silent = Standing {
            is_silent: true,
            ..cheap
        };

        assert_eq!(ids(costly(&[cheap, costly_one])), ["2"]);
        assert_eq!(ids(costly(&[silent, costly_one])), [""; 0]);
        assert_eq!(ids(costly(&[costly_one])), [""; 0]);
        assert_eq!(
            ids(costly(&[cheap, by_peer])),
            [""; 0],
            "it is the peer's to leave"
        );
        assert_eq!(by_uplink(&[cheap, costly_one]).count(), 1);
    }

    #[test]
    fn the_oldest_connections_stay_as_many_as_are_wanted() {
        let four = [own(1, 0, 70), own(2, 0, 90), own(3, 0, 80), own(4, 0, 5)];

        assert_eq!(ids(spare(&four, 2, true)), ["1"]);
        assert_eq!(ids(spare(&four, 1, false)), ["3", "1"]);
    }

    #[test]
    fn a_better_address_takes_over_at_once() {
        let three = [own(1, 1, 900), own(2, 0, 0), own(3, 2, 900)];

        assert_eq!(ids(spare(&three, 3, true)), ["1", "3"]);
    }
}
