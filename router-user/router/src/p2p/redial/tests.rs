use libp2p::PeerId;

use super::*;

#[test]
fn absent_peer_is_dialled_at_once_and_then_every_second() {
    let start = Instant::now();
    let mut redial = always(addresses(1), false, start);

    let dialled = run(&mut redial, start, Duration::from_secs(10), |_| {});

    assert_eq!(dialled[0].0, Duration::ZERO);
    let longest = dialled
        .windows(2)
        .map(|pair| pair[1].0 - pair[0].0)
        .max()
        .expect("attempts");
    assert!(longest <= ROUND + JITTER, "{longest:?}");
    assert!((9..=12).contains(&dialled.len()), "{}", dialled.len());
}

#[test]
fn every_address_has_its_turn_in_each_round_in_the_given_order() {
    for n_addresses in [2, 3, 8, 40] {
        let start = Instant::now();
        let addresses = addresses(n_addresses);
        let mut redial = always(addresses.clone(), false, start);

        let dialled = run(&mut redial, start, ROUND, |_| {});

        let order: Vec<_> = dialled
            .into_iter()
            .map(|(_, address)| address)
            .take(n_addresses)
            .collect();
        assert_eq!(order, addresses);
    }
}

#[test]
fn hanging_attempts_delay_no_new_one_but_are_bounded() {
    let start = Instant::now();
    let mut redial = always(addresses(1), false, start);
    let mut id = 0;

    let dialled = run(&mut redial, start, Duration::from_secs(60), |redial| {
        id += 1;
        redial.handle_attempt(ConnectionId::new_unchecked(id), start);
    });

    assert_eq!(dialled.len(), MAX_ATTEMPTS_PER_ADDRESS);
    assert_eq!(
        redial.handle_attempt_ended(ConnectionId::new_unchecked(1)),
        Some(start)
    );
    let later = start + Duration::from_secs(62);
    assert_eq!(run(&mut redial, later, ROUND / 2, |_| {}).len(), 1);
}

#[test]
fn present_peer_is_not_dialled() {
    let start = Instant::now();
    let mut redial = always(addresses(2), false, start);
    redial.handle_present();
    assert_eq!(redial.poll_due(), None);
    assert_eq!(run(&mut redial, start, Duration::from_secs(5), |_| {}), []);

    redial.handle_absent(start + Duration::from_secs(5));
    assert_eq!(redial.poll_due(), Some(start + Duration::from_secs(5)));
}

#[test]
fn a_peer_whose_connection_stalls_is_dialled_elsewhere_until_it_answers() {
    let start = Instant::now();
    let address = |n: u8| format!("/ip4/192.0.2.{n}/tcp/4001").parse().expect("an address");
    let all: Vec<Multiaddr> = (1..=3).map(address).collect();
    let stalled = ip_of(&all[0]).expect("an address");
    let dialled = |redial: &mut Redial| {
        let attempts = run(redial, start, ROUND / 2, |_| {});
        attempts
            .into_iter()
            .map(|(_, address)| address)
            .collect::<Vec<_>>()
    };
    let mut redial = always(all.clone(), false, start);
    redial.handle_stalled(stalled, start);
    assert_eq!(dialled(&mut redial), all, "it is absent, and dialled as ever");

    redial.handle_present();
    redial.handle_stalled(stalled, start);
    assert!(redial.is_well(), "that is a doubt");
    assert_eq!(dialled(&mut redial), all[1..]);
    redial.handle_answer();
    assert_eq!(redial.poll_due(), None);

    redial.handle_stalled(stalled, start);
    let due = redial.poll_due();
    redial.handle_silent(start);
    assert!(!redial.is_well());
    assert_eq!(redial.poll_due(), due, "the round goes on");
    redial.handle_answer();
    assert_eq!(redial.poll_due(), due, "an answer ends a doubt alone");
    redial.handle_present();

    let mut redial = always(all[..1].to_vec(), false, start);
    redial.handle_present();
    redial.handle_stalled(stalled, start);
    assert_eq!(redial.poll_due(), None, "there is nowhere else");
}

#[test]
fn larger_id_leaves_a_head_start() {
    let start = Instant::now();
    let redial = always(addresses(1), true, start);
    assert_eq!(redial.poll_due(), Some(start + HEAD_START));
}

#[test]
fn new_addresses_are_dialled_at_once_if_the_peer_is_absent() {
    let start = Instant::now();
    let mut redial = always(Vec::new(), false, start);

    redial.set_addresses(addresses(2), false, start);
    assert_eq!(redial.poll_attempt(start, 0.0), Some(addresses(2)[0].clone()));
    redial.set_addresses(addresses(2), false, start);
    assert_eq!(redial.poll_attempt(start, 0.0), None, "nothing has changed");
    redial.handle_present();
    redial.set_addresses(addresses(1), true, start);
    assert_eq!(redial.poll_due(), None);
    redial.handle_absent(start);
    assert_eq!(redial.poll_attempt(start, 0.0), Some(addresses(1)[0].clone()));
}

#[test]
fn found_addresses_are_dialled_after_the_given_ones() {
    let start = Instant::now();
    let mut redial = always(addresses(2)[..1].to_vec(), false, start);

    redial.set_found(addresses(2), false, start);

    let dialled = run(&mut redial, start, ROUND, |_| {});
    let order: Vec<_> = dialled.into_iter().map(|(_, address)| address).collect();
    assert_eq!(order[..2], addresses(2));
}

#[test]
fn peer_without_addresses_is_dialled_as_soon_as_one_is_found_and_no_more_when_it_is_gone() {
    let start = Instant::now();
    let mut redial = always(Vec::new(), false, start);

    redial.set_found(addresses(1), false, start);
    assert_eq!(redial.poll_attempt(start, 0.0), Some(addresses(1)[0].clone()));
    redial.set_found(Vec::new(), false, start);
    assert_eq!(redial.poll_due(), None);

    redial.handle_present();
    redial.set_found(addresses(1), true, start);
    assert_eq!(redial.poll_due(), None, "it is there");
}

#[test]
fn peer_without_addresses_is_waited_for() {
    let start = Instant::now();
    let mut redial = always(Vec::new(), false, start);
    assert_eq!(redial.poll_due(), None);
    assert_eq!(redial.poll_attempt(start, 0.5), None);
    redial.handle_absent(start);
    assert_eq!(redial.poll_due(), None);
}

#[test]
fn better_addresses_than_the_present_one_take_turns() {
    let mut redial = always(addresses(3), false, Instant::now());
    let known = addresses(4);
    assert_eq!(redial.rank(&known[2]), 2);
    assert_eq!(redial.rank(&known[3]), 3);
    let dialled = known[1].clone().with(Protocol::P2p(PeerId::random()));
    assert_eq!(redial.rank(&dialled), 1);

    let dialled = better(&mut redial, 2, Duration::from_secs(70));
    let order: Vec<_> = dialled.into_iter().map(|(_, address)| address).collect();
    assert_eq!(order, [&known[0], &known[1], &known[0]].map(Clone::clone));
    assert_eq!(better(&mut redial, 0, Duration::from_secs(90)), []);
}

/// Asks every second for a better address than that of this rank. Returns what was dialled, and when.
fn better(redial: &mut Redial, rank: usize, length: Duration) -> Vec<(Duration, Multiaddr)> {
    let start = Instant::now();
    let mut dialled = Vec::new();
    for second in (0..=length.as_secs()).map(Duration::from_secs) {
        let address = redial.poll_better(rank, true, start + second, 0.0);
        dialled.extend(address.map(|address| (second, address)));
    }
    dialled
}

#[test]
fn better_addresses_that_do_not_work_are_dialled_ever_more_rarely_and_again_when_they_change() {
    let mut redial = always(addresses(2), false, Instant::now());

    let day = better(&mut redial, 1, Duration::from_secs(24 * 3600));

    let gaps: Vec<_> = day.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(gaps[0], BETTER_INTERVAL);
    assert_eq!(gaps.last(), Some(&LONGEST_BETTER_INTERVAL));
    assert!(gaps.is_sorted(), "{gaps:?}");
    assert!((300..400).contains(&day.len()), "{}", day.len());

    redial.set_found(addresses(3)[2..].to_vec(), true, Instant::now());
    let after = better(&mut redial, 1, Duration::from_secs(60));
    assert_eq!(after[0].0, BETTER_INTERVAL, "it is another question");
}

#[test]
fn a_better_address_is_dialled_if_there_is_room_and_nothing_else_is_under_way() {
    let (mut redial, start) = (always(addresses(2), false, Instant::now()), Instant::now());
    let late = start + 2 * BETTER_INTERVAL;
    let attempt = ConnectionId::new_unchecked(7);
    assert_eq!(
        redial.poll_better(1, true, start, 0.5),
        None,
        "it has just connected"
    );

    assert_eq!(redial.poll_better(1, false, late, 0.5), None);
    redial.handle_attempt(attempt, late);
    assert_eq!(redial.poll_better(1, true, late, 0.5), None);

    redial.handle_attempt_ended(attempt);
    assert_eq!(
        redial.poll_better(1, true, late, 0.5),
        Some(addresses(1)[0].clone())
    );
}

#[test]
fn a_peer_that_is_reached_through_a_relay_is_dialled_directly_at_the_next_look() {
    let (relay, peer) = (PeerId::random(), PeerId::random());
    let relayed: Multiaddr = format!("/p2p/{relay}/p2p-circuit").parse().expect("an address");
    let direct = addresses(1)[0].clone();
    let (mut redial, start) = (
        always(vec![relayed.clone(), direct.clone()], false, Instant::now()),
        Instant::now(),
    );
    let rank = redial.rank(&relayed.with(Protocol::P2p(peer)));

    assert_eq!(redial.poll_better(rank, true, start, 0.0), None);
    assert_eq!(redial.poll_better(rank, true, start, 0.0), Some(direct));
    assert_eq!(
        redial.poll_better(rank, true, start, 0.0),
        None,
        "it was just tried"
    );
}

#[test]
fn a_circuit_through_a_relay_of_before_is_followed_by_one_through_another() {
    let [before, first, second, peer] = [(); 4].map(|()| PeerId::random());
    let now = Instant::now();
    let known = [first, second].map(|relay| Circuit::address(relay, peer));
    let mut redial = always(known.to_vec(), false, now);
    let of = |redial: &Redial, relay| redial.rank(&Circuit::address(relay, peer));
    let rank = of(&redial, before);
    assert_eq!(of(&redial, first), of(&redial, second));
    assert!(of(&redial, second) < rank);

    assert_eq!(redial.poll_better(of(&redial, second), true, now, 0.0), None);
    assert_eq!(redial.poll_better(of(&redial, second), true, now, 0.0), None);
    assert_eq!(redial.poll_better(rank, true, now, 0.0), None);
    assert_eq!(redial.poll_better(rank, true, now, 0.0), Some(known[0].clone()));
}

#[test]
fn a_peer_that_has_dialled_is_ranked_by_host_and_transport() {
    let texts = [
        "/ip4/192.0.2.1/tcp/1",
        "/ip4/192.0.2.1/udp/1/quic-v1",
        "/ip4/192.0.2.2/tcp/1",
        "/ip6/2001:db8::1/tcp/1",
    ];
    let known = |texts: &[&str]| -> Vec<Multiaddr> {
        let parsed = texts.iter().map(|text| text.parse().expect("an address"));
        parsed.collect()
    };
    let redial = always(known(&texts), false, Instant::now());
    let over_tcp = always(known(&texts[2..]), false, Instant::now());

    let rank_in = |redial: &Redial, text: &str| redial.rank_of_inbound(&text.parse().expect("an address"));
    let rank = |text| rank_in(&redial, text);
    assert_eq!(rank("/ip4/192.0.2.1/tcp/40000"), 0);
    assert_eq!(rank("/ip4/192.0.2.1/udp/40000/quic-v1"), 1);
    assert_eq!(rank("/ip4/192.0.2.2/tcp/40000"), 2);
    // From addresses that it does not listen on.
    assert_eq!(rank("/ip4/203.0.113.1/tcp/40000"), 0);
    assert_eq!(rank("/ip4/203.0.113.1/udp/40000/quic-v1"), 1);
    assert_eq!(rank("/ip6/2001:db8::2/tcp/40000"), 3);
    assert_eq!(rank("/ip6/2001:db8::2/udp/40000/quic-v1"), 1);
    let unknown = rank_in(&over_tcp, "/ip4/203.0.113.1/udp/40000/quic-v1");
    assert_eq!(unknown, 2, "worse than any");
}

#[test]
fn attempt_of_another_kind_is_not_counted() {
    let mut redial = always(addresses(1), false, Instant::now());
    assert_eq!(redial.handle_attempt_ended(ConnectionId::new_unchecked(7)), None);
}

#[test]
fn rounds_become_rare_and_are_never_further_apart_than_half_a_minute() {
    let start = Instant::now();
    let mut redial = always(addresses(1), false, start);

    let dialled = run(&mut redial, start, Duration::from_secs(600), |_| {});

    let gaps: Vec<_> = dialled.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.iter().all(|gap| *gap <= LONGEST_ROUND), "{gaps:?}");
    let late: Vec<_> = gaps.iter().rev().take(10).collect();
    assert!(late.iter().all(|gap| **gap >= LONGEST_ROUND * 4 / 5), "{gaps:?}");
    assert!((30..45).contains(&dialled.len()), "{}", dialled.len());
    for (random, round) in [(0.0, LONGEST_ROUND), (1.0, LONGEST_ROUND * 4 / 5)] {
        let due = redial.poll_due().expect("absent");
        redial.poll_attempt(due, random);
        assert_eq!(redial.poll_due(), Some(due + round), "nodes are not in step");
    }
}

#[test]
fn a_packet_for_a_peer_that_is_long_gone_dials_it_at_once_and_every_second_for_a_while() {
    let (start, minute) = (Instant::now(), Duration::from_secs(60));
    let mut redial = always(addresses(1), false, start);
    run(&mut redial, start, minute, |_| {});
    let wanted_at = start + minute;

    redial.handle_wanted(wanted_at);

    assert!(redial.is_wanted());
    let dialled = run(&mut redial, wanted_at, QUICK, |_| {});
    assert_eq!(dialled[0].0, Duration::ZERO);
    assert!((9..=12).contains(&dialled.len()), "{}", dialled.len());
    run(&mut redial, wanted_at + QUICK, QUICK, |_| {});
    assert!(!redial.is_wanted());
}

#[test]
fn a_stream_of_packets_for_an_absent_peer_makes_no_more_than_a_round_a_second() {
    let start = Instant::now();
    let mut redial = always(addresses(1), false, start);
    let mut n_dialled = 0;
    for step_ms in 0..30_000 {
        let now = start + Duration::from_millis(step_ms);
        redial.handle_wanted(now);
        n_dialled += usize::from(redial.poll_attempt(now, 0.5).is_some());
    }
    assert!((29..=31).contains(&n_dialled), "{n_dialled}");
}

#[test]
fn another_address_of_an_absent_peer_is_dialled_at_once() {
    let (start, minute) = (Instant::now(), Duration::from_secs(60));
    let mut redial = always(addresses(1), false, start);
    run(&mut redial, start, minute, |_| {});
    let now = start + minute;

    redial.set_found(addresses(1), false, now);
    assert_eq!(redial.poll_attempt(now, 0.0), None, "nothing is new");
    redial.set_found(addresses(2)[1..].to_vec(), false, now);

    let order: Vec<_> = run(&mut redial, now, ROUND / 2, |_| {});
    let order: Vec<_> = order.into_iter().map(|(_, address)| address).collect();
    assert_eq!(order, addresses(2));
}

#[test]
fn a_peer_on_demand_is_dialled_for_packets_only() {
    let start = Instant::now();
    let seconds = |n| start + Duration::from_secs(n);
    let minute = Duration::from_secs(60);
    let mut redial = Redial::new(addresses(1), ConnectMode::OnDemand, false, start);
    assert_eq!(redial.poll_due(), None);
    redial.set_addresses(addresses(2), false, start);
    redial.set_found(addresses(3), false, start);
    assert_eq!(redial.poll_due(), None);

    redial.handle_wanted(start);
    let n_dialled = run(&mut redial, start, minute, |_| {}).len();
    assert!((30..40).contains(&n_dialled), "{n_dialled}");
    assert_eq!(redial.poll_due(), None, "nothing is sent to it any more");

    redial.handle_wanted(seconds(60));
    redial.handle_present();
    redial.handle_rest(seconds(400));
    assert_eq!(redial.poll_due(), None);
    // A connection that was lost may have been in use.
    redial.handle_present();
    redial.handle_absent(seconds(500));
    assert_eq!(redial.poll_due(), Some(seconds(500)));
    run(&mut redial, seconds(500), minute, |_| {});
    assert_eq!(redial.poll_due(), None);

    redial.set_mode(ConnectMode::Always, seconds(600));
    assert_eq!(redial.poll_due(), Some(seconds(600)));
}

fn always(addresses: Vec<Multiaddr>, yields: bool, now: Instant) -> Redial {
    Redial::new(addresses, ConnectMode::Always, yields, now)
}

fn addresses(n: usize) -> Vec<Multiaddr> {
    (0..n)
        .map(|n| {
            format!("/ip4/192.0.2.1/tcp/{}", 4000 + n)
                .parse()
                .expect("an address")
        })
        .collect()
}

fn run(
    redial: &mut Redial,
    start: Instant,
    length: Duration,
    mut started: impl FnMut(&mut Redial),
) -> Vec<(Duration, Multiaddr)> {
    let mut dialled = Vec::new();
    for step_ms in 0..=length.as_millis() as u64 {
        let now = start + Duration::from_millis(step_ms);
        if let Some(address) = redial.poll_attempt(now, step_ms as f64 % 7.0 / 6.0) {
            dialled.push((now - start, address));
            started(redial);
        }
    }
    dialled
}

#[test]
fn a_name_is_looked_up_in_each_round_and_what_it_stands_for_is_dialled() {
    let start = Instant::now();
    let named: Multiaddr = "/dns4/vpn.example.org/tcp/1".parse().expect("an address");
    let mut redial = always(vec![named.clone()], false, start);

    assert_eq!(redial.poll_names(start), std::slice::from_ref(&named));
    assert_eq!(redial.poll_names(start), [], "once a round");
    assert_eq!(
        redial.poll_attempt(start, 0.0),
        None,
        "there is nothing to dial yet"
    );

    let soon = start + Duration::from_millis(20);
    redial.set_answer(named.clone(), Some(addresses(2)), false, soon);
    assert_eq!(redial.poll_attempt(soon, 0.0).as_ref(), addresses(2).first());
    let later = soon + ROUND;
    assert_eq!(redial.poll_attempt(later, 0.0).as_ref(), addresses(2).last());

    let next = redial.poll_due().expect("another round");
    assert_eq!(redial.poll_names(next), std::slice::from_ref(&named));
    let moved: Multiaddr = "/ip4/192.0.2.9/tcp/1".parse().expect("an address");
    redial.set_answer(named.clone(), Some(vec![moved.clone()]), false, next);
    assert_eq!(redial.poll_attempt(next, 0.0), Some(moved.clone()));

    // A name that is gone leads nowhere, and is asked for on and on.
    redial.set_answer(named.clone(), None, false, next);
    let next = redial.poll_due().expect("another round");
    assert_eq!(redial.poll_names(next), std::slice::from_ref(&named));
    assert_eq!(redial.poll_attempt(next, 0.0), None);
    assert!(redial.poll_due() > Some(next));

    // One that is configured no more is not taken in.
    redial.set_addresses(addresses(1), false, next);
    redial.set_answer(named, Some(vec![moved]), false, next);
    assert_eq!(redial.poll_attempt(next, 0.0).as_ref(), addresses(1).first());
}

#[test]
fn names_of_a_present_peer_are_left_alone() {
    let start = Instant::now();
    let named: Multiaddr = "/dns4/vpn.example.org/tcp/1".parse().expect("an address");
    let mut redial = always(vec![named.clone()], false, start);
    redial.handle_present();

    assert_eq!(redial.poll_names(start), []);
    redial.set_answer(named, Some(addresses(1)), true, start);
    assert_eq!(redial.poll_due(), None);
}
