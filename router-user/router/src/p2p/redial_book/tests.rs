use std::time::Duration;

use proptest::prelude::*;

use super::{agenda::MAX_ATTEMPTS, *};
use crate::p2p::uplink::{UplinkBy, UplinkConfig};

fn address(port: u16) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{port}").parse().expect("an address")
}

fn by(peer: PeerId) -> Lead {
    (peer, UplinkId::FIRST)
}

fn config(peer: PeerId, ports: &[u16]) -> PeerConfig {
    PeerConfig::new(peer, ports.iter().map(|port| address(*port)).collect())
}

/// Returns two ids, the smaller one first, so that the smaller one dials the larger one without a head start.
fn local_and_peer() -> (PeerId, PeerId) {
    let (a, b) = (PeerId::random(), PeerId::random());
    (a.min(b), a.max(b))
}

#[test]
fn only_absent_peers_with_addresses_are_dialled() {
    let (start, (local, peer)) = (Instant::now(), local_and_peer());
    let silent = PeerId::random();
    let peers = vec![config(peer, &[1]), config(silent, &[])];
    let mut book = RedialBook::new(local, Uplinks::default(), peers, start);

    assert_eq!(book.poll_due(), Some(start));
    assert_eq!(book.poll_attempts(start, || 0.0), [(by(peer), address(1))]);
    assert!(book.is_dialled(by(peer)) && !book.is_dialled(by(silent)));

    book.handle_present(by(peer));
    assert_eq!(book.poll_due(), None);
    assert!(!book.is_dialled(by(peer)));

    let later = start + Duration::from_secs(60);
    book.handle_absent(by(peer), later);
    assert_eq!(book.poll_attempts(later, || 0.0), [(by(peer), address(1))]);
}

#[test]
fn the_side_with_the_larger_id_dials_later() {
    let (start, (small, large)) = (Instant::now(), local_and_peer());

    let of_small = RedialBook::new(small, Uplinks::default(), vec![config(large, &[1])], start);
    let of_large = RedialBook::new(large, Uplinks::default(), vec![config(small, &[1])], start);

    assert_eq!(of_small.poll_due(), Some(start));
    assert!(of_large.poll_due() > Some(start));
}

#[test]
fn attempts_that_have_not_ended_bound_further_ones() {
    let (start, (local, peer)) = (Instant::now(), local_and_peer());
    let mut book = RedialBook::new(local, Uplinks::default(), vec![config(peer, &[1])], start);
    let mut n_attempts = 0;
    let dial_for_a_minute = |book: &mut RedialBook, n_attempts: &mut usize, from_s: u64| {
        for second in from_s..from_s + 60 {
            for _ in book.poll_attempts(start + Duration::from_secs(2 * second), || 0.0) {
                *n_attempts += 1;
                book.handle_attempt(by(peer), ConnectionId::new_unchecked(*n_attempts), start);
            }
        }
    };

    dial_for_a_minute(&mut book, &mut n_attempts, 0);
    let n_most = n_attempts;
    book.handle_attempt_ended(peer, ConnectionId::new_unchecked(1));
    dial_for_a_minute(&mut book, &mut n_attempts, 60);

    assert!(n_most < 10, "{n_most}");
    assert_eq!(n_attempts, n_most + 1);
}

#[test]
fn attempts_are_bounded_over_all_peers_with_room_for_those_that_packets_wait_for() {
    let (start, (local, wanted)) = (Instant::now(), local_and_peer());
    let mut peers: Vec<_> = (0..1000).map(|_| config(PeerId::random(), &[1, 2])).collect();
    peers.push(config(wanted, &[3]));
    let mut book = RedialBook::new(local, Uplinks::default(), peers, start);
    let mut attempts = Vec::new();
    let dial = |book: &mut RedialBook, attempts: &mut Vec<(PeerId, ConnectionId)>, now: Instant| {
        for ((peer, _), _) in book.poll_attempts(now, || 0.0) {
            let attempt = ConnectionId::new_unchecked(attempts.len());
            book.handle_attempt(by(peer), attempt, now);
            attempts.push((peer, attempt));
        }
    };

    for ms in 0..2000 {
        dial(&mut book, &mut attempts, start + Duration::from_millis(ms));
    }
    assert_eq!(attempts.len(), MAX_ATTEMPTS);
    assert_eq!(book.poll_due(), None, "nothing can be dialled, so nothing is due");

    let now = start + Duration::from_secs(2);
    book.handle_wanted(wanted, now);
    dial(&mut book, &mut attempts, now);
    assert_eq!(attempts.len(), MAX_ATTEMPTS + 1);
    assert_eq!(attempts[MAX_ATTEMPTS].0, wanted);

    let (peer, attempt) = attempts[0];
    book.handle_attempt_ended(peer, attempt);
    let (peer, attempt) = attempts[1];
    book.handle_attempt_ended(peer, attempt);
    assert!(book.poll_due().is_some());
    let before: BTreeSet<_> = attempts.iter().map(|(peer, _)| *peer).collect();
    dial(&mut book, &mut attempts, now);
    assert!(
        !before.contains(&attempts[MAX_ATTEMPTS + 1].0),
        "one that has waited"
    );
}

/// Returns the agenda that a look at every peer makes.
fn looked_at(book: &RedialBook) -> Agenda {
    let mut agenda = Agenda::default();
    for (peer, entry) in &book.peers {
        agenda.replace(
            by(*peer),
            Appointment::default(),
            Appointment::of(&entry.redials[0]),
        );
    }
    agenda
}

proptest! {
    #[test]
    fn the_agenda_says_what_a_look_at_every_peer_says(
        steps in prop::collection::vec((0..14_u8, 0..6_usize, 0..3000_u64), 0..120),
    ) {
        let ids: Vec<_> = (0..6).map(|_| PeerId::random()).collect();
        let named: Multiaddr = "/dns4/vpn.example.org/tcp/1".parse().expect("an address");
        let addresses = |n: usize| [named.clone(), address(1), address(2)][..n % 4].to_vec();
        let mut now = Instant::now();
        let mut book = RedialBook::new(PeerId::random(), Uplinks::default(), Vec::new(), now);
        let mut attempts: Vec<(PeerId, ConnectionId)> = Vec::new();
        for (n, (step, at, ms)) in steps.into_iter().enumerate() {
            let peer = ids[at];
            match step {
                0 => now += Duration::from_millis(ms),
                1 | 2 => {
                    let mut config = PeerConfig::new(peer, addresses(ms as usize));
                    config.connect = match ms % 2 {
                        0 => ConnectMode::Always,
                        _ => ConnectMode::OnDemand,
                    };
                    book.set_peer(config, |_| false, now);
                }
                3 => book.set_found(peer, &addresses(ms as usize + 1), |_| false, now),
                4 => book.set_answer(peer, &named, Some(&[address(3)]), |_| false, now),
                5 => book.handle_present(by(peer)),
                6 => book.handle_absent(by(peer), now),
                7 => match ms % 3 {
                    0 => book.handle_silent(by(peer), now),
                    1 => book.handle_stalled(by(peer), [192, 0, 2, 1].into(), now),
                    _ => book.handle_answer(by(peer)),
                },
                8 => book.handle_rest(peer, now),
                9 => book.handle_wanted(peer, now),
                10 => drop(book.retain(&ids.iter().copied().filter(|other| *other != peer).collect())),
                11 => drop(book.poll_names(now)),
                12 => for ((peer, _), _) in book.poll_attempts(now, || 0.5) {
                    let attempt = ConnectionId::new_unchecked(1000 * n + attempts.len());
                    book.handle_attempt(by(peer), attempt, now);
                    attempts.push((peer, attempt));
                },
                _ => if let Some((peer, attempt)) = attempts.pop() {
                    book.handle_attempt_ended(peer, attempt);
                },
            }
            prop_assert_eq!(&book.agenda, &looked_at(&book), "after step {}", step);
        }
        let dues = book.peers.values().filter_map(|entry| entry.redials[0].poll_due());
        prop_assert_eq!(book.poll_due(), dues.min());
    }
}

#[test]
fn a_costlier_uplink_is_dialled_once_the_others_have_led_nowhere_for_a_while() {
    let (start, (local, peer)) = (Instant::now(), local_and_peer());
    let uplink = |cost: u32| UplinkConfig {
        by: UplinkBy::Device(format!("wan{cost}")),
        weight: 1,
        cost,
    };
    let uplinks = Uplinks::new(vec![uplink(0), uplink(7)]);
    let [cheap, costly] = [0, 1].map(|at| uplinks.ids().nth(at).expect("there are two"));
    let mut book = RedialBook::new(local, uplinks, vec![config(peer, &[1])], start);
    let ms = Duration::from_millis;
    let dialled = |book: &mut RedialBook, now: Instant| {
        book.settle(now);
        let attempts = book.poll_attempts(now, || 0.0);
        attempts.into_iter().map(|(lead, _)| lead.1).collect::<Vec<_>>()
    };

    assert_eq!(dialled(&mut book, start), [cheap]);
    assert_eq!(book.poll_due(), Some(start + ms(500)));
    assert_eq!(dialled(&mut book, start + ms(499)), []);
    assert_eq!(dialled(&mut book, start + ms(500)), [costly]);

    book.handle_present((peer, costly));
    assert_eq!(dialled(&mut book, start + ms(1000)), [cheap], "it is dialled on");
    book.handle_present((peer, cheap));
    book.handle_absent((peer, costly), start + ms(1500));
    let later = start + ms(100_000);
    assert_eq!(dialled(&mut book, later), [], "the cheaper one works");

    book.handle_silent((peer, cheap), later);
    assert_eq!(dialled(&mut book, later), [cheap]);
    assert_eq!(dialled(&mut book, later + ms(500)), [costly]);
    book.handle_present((peer, cheap));
    assert_eq!(dialled(&mut book, later + ms(5000)), [], "it is heard again");
    assert_eq!(book.poll_due(), None);
}

#[test]
fn peers_come_go_and_change_with_the_configuration() {
    let (start, (local, stays)) = (Instant::now(), local_and_peer());
    let (goes, comes) = (PeerId::random(), PeerId::random());
    let mut book = RedialBook::new(
        local,
        Uplinks::default(),
        vec![config(stays, &[1]), config(goes, &[2])],
        start,
    );

    assert_eq!(book.retain(&HashSet::from([stays, comes])), [goes]);
    assert!(!book.set_peer(config(stays, &[3]), |_| false, start));
    assert!(book.set_peer(config(comes, &[]), |_| false, start));

    assert!(book.contains(stays) && book.contains(comes) && !book.contains(goes));
    assert_eq!(book.poll_attempts(start, || 0.0), [(by(stays), address(3))]);
}

#[test]
fn a_peer_without_configured_addresses_is_dialled_where_it_is_found() {
    let (start, (local, peer)) = (Instant::now(), local_and_peer());
    let mut book = RedialBook::new(local, Uplinks::default(), vec![config(peer, &[])], start);

    book.set_found(peer, &[address(7)], |_| false, start);

    assert_eq!(book.poll_attempts(start, || 0.0), [(by(peer), address(7))]);
}

#[test]
fn failure_is_new_once_until_the_peer_was_there() {
    let (start, (local, peer)) = (Instant::now(), local_and_peer());
    let mut book = RedialBook::new(local, Uplinks::default(), vec![config(peer, &[1])], start);

    assert!(book.is_new_failure(peer, "refused"));
    assert!(!book.is_new_failure(peer, "refused"));
    assert!(book.is_new_failure(peer, "timed out"));
    assert!(!book.is_new_failure(peer, "refused"));
    book.handle_present(by(peer));
    assert!(book.is_new_failure(peer, "refused"));
}

#[test]
fn endless_different_failures_stop_being_new() {
    let mut failures = FailureNews::default();
    let n_new = (0..100).filter(|n| failures.is_new(&n.to_string())).count();
    assert_eq!(n_new, MAX_NEW_FAILURES);
}
