//! Which connections of a peer are one too many.

use std::time::Duration;

use libp2p::swarm::ConnectionId;

/// How long a connection stands at least before it is spare, unless there is one at a better address: it may have been
/// made for a load that is still to come.
const SETTLED: Duration = Duration::from_secs(60);

/// A connection of a peer that is not to be left yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) connection: ConnectionId,
    /// The place of its address among those of the peer, the best being 0; `None` if the peer has dialled.
    pub(super) rank: Option<usize>,
    pub(super) age: Duration,
}

/// Returns the connections that this node has dialled and does not need. Each side lets go of those only that it has
/// dialled, so that the two never let go of all. With `leads` those of this node stay, and else those of the peer, if there
/// are any; `n_wanted` says how many are to stay in all.
pub(super) fn spare(standing: &[Standing], n_wanted: usize, leads: bool) -> Vec<ConnectionId> {
    let n_theirs = standing.iter().filter(|standing| standing.rank.is_none()).count();
    let ranked = |standing: &Standing| standing.rank.map(|rank| (rank, *standing));
    let mut own: Vec<_> = standing.iter().filter_map(ranked).collect();
    own.sort_by_key(|(rank, standing)| (*rank, std::cmp::Reverse(standing.age)));
    let Some((best, _)) = own.first().copied() else {
        return Vec::new();
    };
    let n_kept = if leads || n_theirs == 0 {
        n_wanted.max(1)
    } else {
        n_wanted.saturating_sub(n_theirs)
    };
    let (good, worse): (Vec<_>, Vec<_>) = own.into_iter().partition(|(rank, _)| *rank == best);
    let too_many = good.into_iter().skip(n_kept);
    let settled = too_many.filter(|(_, standing)| standing.age >= SETTLED);
    worse
        .into_iter()
        .chain(settled)
        .map(|(_, standing)| standing.connection)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(id: usize, rank: Option<usize>, age_s: u64) -> Standing {
        Standing {
            connection: ConnectionId::new_unchecked(id),
            rank,
            age: Duration::from_secs(age_s),
        }
    }

    fn ids(spare: Vec<ConnectionId>) -> Vec<String> {
        spare.into_iter().map(|id| id.to_string()).collect()
    }

    #[test]
    fn of_two_that_dialled_each_other_at_once_one_side_lets_go_after_a_while() {
        let both = |age_s| [standing(1, Some(0), age_s), standing(2, None, age_s)];

        assert_eq!(ids(spare(&both(90), 1, true)), [""; 0]);
        assert_eq!(ids(spare(&both(90), 1, false)), ["1"]);
        assert_eq!(ids(spare(&both(30), 1, false)), [""; 0]);
        assert_eq!(ids(spare(&both(90), 2, false)), [""; 0], "both are wanted");
    }

    #[test]
    fn the_last_connection_is_never_spare() {
        for leads in [true, false] {
            assert_eq!(ids(spare(&[standing(1, Some(3), 90)], 0, leads)), [""; 0]);
        }
    }

    #[test]
    fn the_oldest_connections_stay_as_many_as_are_wanted() {
        let own = [
            standing(1, Some(0), 70),
            standing(2, Some(0), 90),
            standing(3, Some(0), 80),
            standing(4, Some(0), 5),
        ];

        assert_eq!(ids(spare(&own, 2, true)), ["1"]);
        assert_eq!(ids(spare(&own, 1, false)), ["3", "1"]);
    }

    #[test]
    fn a_better_address_takes_over_at_once() {
        let own = [
            standing(1, Some(1), 900),
            standing(2, Some(0), 0),
            standing(3, Some(2), 900),
        ];

        assert_eq!(ids(spare(&own, 3, true)), ["1", "3"]);
    }
}
