//! The bytes per second that circuits carry together, and those of one peer.

use std::{collections::HashMap, fmt, num::NonZeroU32, sync::Arc};

use libp2p::PeerId;
use tokio::sync::Mutex;

use crate::{egress::pacer::Pacer, p2p::config::RelayRates};

/// The part of a second whose bytes a piece has, so that a turn among many circuits comes soon.
const PIECES_PER_SECOND: u32 = 100;

/// The least piece: smaller ones would cost more than they carry.
const LEAST_PIECE: usize = 2048;

/// A rate, at which those who wait have their turns in the order in which they came.
///
/// A circuit waits in each direction with one piece at most, so that those that have something to carry share the rate.
pub(super) struct Gate {
    pacer: Pacer,
    /// Fair, unlike the pacer.
    queue: Mutex<()>,
}

impl Gate {
    fn new(rate: Option<NonZeroU32>) -> Self {
        let pacer = Pacer::unlimited();
        pacer.set_rate(rate);
        Self {
            pacer,
            queue: Mutex::new(()),
        }
    }

    /// Waits until `n_bytes` may pass.
    async fn pass(&self, n_bytes: usize) {
        let _turn = self.queue.lock().await;
        self.pacer.ready().await;
        self.pacer.take(n_bytes);
    }

    /// Returns the largest piece that is to pass at once; `None` if there is no rate.
    fn piece(&self) -> Option<usize> {
        let rate = self.pacer.rate()?;
        Some(((rate.get() / PIECES_PER_SECOND) as usize).max(LEAST_PIECE))
    }
}

/// The gates that a circuit passes: its ends', then that of all circuits.
#[derive(Clone)]
pub(super) struct Gates(pub(super) [Arc<Gate>; 3]);

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gates")
            .field("piece", &self.piece())
            .finish_non_exhaustive()
    }
}

impl Gates {
    /// Returns the largest piece that is to pass at once; `None` if no rate holds.
    pub(super) fn piece(&self) -> Option<usize> {
        self.0.iter().filter_map(|gate| gate.piece()).min()
    }

    /// Waits until `n_bytes` may pass. None is held up by one that waits at another peer's gate.
    pub(super) async fn pass(&self, n_bytes: usize) {
        for gate in self.0.iter().filter(|gate| gate.piece().is_some()) {
            gate.pass(n_bytes).await;
        }
    }
}

/// The gates of all peers that are connected, and that of all circuits.
pub(super) struct Rates {
    rates: RelayRates,
    all: Arc<Gate>,
    of_peers: HashMap<PeerId, Arc<Gate>>,
}

impl Rates {
    pub(super) fn new(rates: RelayRates) -> Self {
        Self {
            rates,
            all: Arc::new(Gate::new(rates.all)),
            of_peers: HashMap::new(),
        }
    }

    /// Has the circuits that there are, and those to come, keep other rates.
    pub(super) fn set(&mut self, rates: RelayRates) {
        self.rates = rates;
        self.all.pacer.set_rate(rates.all);
        for gate in self.of_peers.values() {
            gate.pacer.set_rate(rates.per_peer);
        }
    }

    /// Returns the gates of a circuit between two peers.
    pub(super) fn between(&mut self, one: PeerId, other: PeerId) -> Gates {
        let rate = self.rates.per_peer;
        let mut of_peer = |peer| {
            let gate = self.of_peers.entry(peer);
            Arc::clone(gate.or_insert_with(|| Arc::new(Gate::new(rate))))
        };
        Gates([of_peer(one), of_peer(other), Arc::clone(&self.all)])
    }

    /// Forgets a peer that is not connected any more, and so has no circuit. One that only ends its circuits still owes what
    /// they have carried.
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.of_peers.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        time::Duration,
    };

    use tokio::time::{Instant, sleep_until, timeout_at};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rates(all: u32, per_peer: u32) -> Rates {
        Rates::new(RelayRates {
            all: NonZeroU32::new(all),
            per_peer: NonZeroU32::new(per_peer),
        })
    }

    /// Has each of `n` circuits between the same peers carry all that it may for so long. Returns the bytes of each.
    async fn carried(gates: &Gates, n: usize, piece: usize, time: Duration) -> Vec<usize> {
        let end = Instant::now() + time;
        let counts: Arc<Vec<AtomicUsize>> = Arc::new((0..n).map(|_| AtomicUsize::new(0)).collect());
        let circuits: Vec<_> = (0..n)
            .map(|at| {
                let (gates, counts) = (gates.clone(), Arc::clone(&counts));
                tokio::spawn(timeout_at(end, async move {
                    loop {
                        gates.pass(piece).await;
                        counts[at].fetch_add(piece, Relaxed);
                    }
                }))
            })
            .collect();
        sleep_until(end).await;
        for circuit in circuits {
            circuit.abort();
        }
        counts.iter().map(|count| count.load(Relaxed)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn circuits_keep_the_rate_together_and_none_starves() {
        let mut rates = rates(1_000_000, 0);
        let gates = rates.between(PeerId::random(), PeerId::random());

        let counts = carried(&gates, 20, 10_000, 10 * SECOND).await;

        let sum: usize = counts.iter().sum();
        assert!((9_500_000..=10_500_000).contains(&sum), "{sum}");
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(most.expect("20") - least.expect("20") <= 20_000, "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_its_rate_leaves_the_rest_to_others() {
        let mut rates = rates(1_000_000, 300_000);
        let [a, b, c, d] = [(); 4].map(|()| PeerId::random());
        let (first, second) = (rates.between(a, b), rates.between(c, d));

        let (first, second) = tokio::join!(
            carried(&first, 8, 5000, 10 * SECOND),
            carried(&second, 1, 5000, 10 * SECOND)
        );

        for sum in [first.iter().sum::<usize>(), second.iter().sum()] {
            assert!((2_850_000..=3_150_000).contains(&sum), "{sum}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn either_end_of_a_circuit_bounds_it() {
        let mut rates = rates(0, 200_000);
        let [a, b, c] = [(); 3].map(|()| PeerId::random());
        let (first, second) = (rates.between(a, b), rates.between(c, a));

        let (first, second) = tokio::join!(
            carried(&first, 1, 2000, 10 * SECOND),
            carried(&second, 1, 2000, 10 * SECOND)
        );

        let sum = first[0] + second[0];
        assert!((1_900_000..=2_100_000).contains(&sum), "{sum}");
        assert!(first[0].abs_diff(second[0]) <= 4000);
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_counts_for_those_that_wait() {
        let mut rates = rates(1000, 0);
        let gates = rates.between(PeerId::random(), PeerId::random());
        let start = Instant::now();
        let waiting = {
            let gates = gates.clone();
            tokio::spawn(async move {
                for _ in 0..3 {
                    gates.pass(1_000_000).await;
                }
            })
        };
        tokio::time::sleep(SECOND).await;
        assert!(!waiting.is_finished());

        rates.set(RelayRates::default());
        waiting.await.expect("they pass");
        assert_eq!(start.elapsed(), SECOND);
        assert_eq!(gates.piece(), None);
    }

    #[test]
    fn a_piece_is_what_the_least_rate_carries_in_a_hundredth_of_a_second() {
        let piece = |all, per_peer| {
            let mut rates = rates(all, per_peer);
            rates.between(PeerId::random(), PeerId::random()).piece()
        };
        assert_eq!(piece(0, 0), None);
        assert_eq!(piece(10_000_000, 0), Some(100_000));
        assert_eq!(piece(10_000_000, 1_000_000), Some(10_000));
        assert_eq!(piece(8000, 0), Some(LEAST_PIECE));
    }

    #[test]
    fn a_peer_keeps_what_it_owes_until_it_is_gone() {
        let mut rates = rates(0, 8000);
        let (one, other) = (PeerId::random(), PeerId::random());
        let first = rates.between(one, other);
        assert!(Arc::ptr_eq(&first.0[0], &rates.between(other, one).0[1]));
        rates.remove(one);
        assert!(!Arc::ptr_eq(&first.0[0], &rates.between(one, other).0[0]));
    }
}
