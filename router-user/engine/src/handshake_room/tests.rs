use proptest::prelude::*;

use super::*;

fn v4(host: u32) -> HostNetwork {
    HostNetwork::of(IpAddr::V4((0xC000_0200 + host).into()))
}

fn v6(text: &str) -> HostNetwork {
    HostNetwork::of(text.parse().expect("an address"))
}

fn enter(room: &mut HandshakeRoom, network: HostNetwork) -> Entered {
    room.enter(network, false, Progress::Nothing)
}

#[test]
fn one_host_cannot_take_all_handshakes() {
    let mut room = HandshakeRoom::default();
    for _ in 0..100 {
        enter(&mut room, v4(1));
    }

    assert_eq!(room.n_taken(), PLACES_PER_NETWORK);
    assert_eq!(enter(&mut room, v4(2)).displaced, None);
}

#[test]
fn peers_through_a_proxy_on_this_host_have_all_places_until_others_come() {
    for network in [HostNetwork::of([127, 0, 0, 1].into()), v6("::1")] {
        let mut room = HandshakeRoom::default();
        let own: Vec<_> = (0..STRANGER_PLACES).map(|_| enter(&mut room, network)).collect();
        assert!(own.iter().all(|entered| entered.displaced.is_none()));

        for host in 0..10 {
            let displaced = enter(&mut room, v4(host)).displaced;
            assert!(own.iter().any(|entered| displaced == Some(entered.place)));
        }
        assert!(enter(&mut room, network).displaced.is_some());
        assert_eq!(room.n_taken(), STRANGER_PLACES);
    }
}

#[test]
fn all_hosts_together_are_bounded_and_an_end_makes_room() {
    let mut room = HandshakeRoom::default();
    let entered: Vec<_> = (0..200).map(|host| enter(&mut room, v4(host))).collect();
    assert_eq!(room.n_taken(), STRANGER_PLACES);
    assert_eq!(entered[STRANGER_PLACES - 1].displaced, None);
    assert_eq!(entered[STRANGER_PLACES].displaced, Some(entered[0].place));

    room.leave(entered[199].place);

    assert_eq!(enter(&mut room, v4(200)).displaced, None);
    assert!(enter(&mut room, v4(201)).displaced.is_some());
}

#[test]
fn a_newcomer_gets_in_beside_nine_silent_hosts_and_takes_a_place_of_one_of_them() {
    let mut room = HandshakeRoom::default();
    for host in 0..9 {
        for _ in 0..16 {
            enter(&mut room, v4(host));
        }
    }
    assert_eq!(room.n_taken(), STRANGER_PLACES);

    let peer = enter(&mut room, v4(9));

    for host in 0..9 {
        for _ in 0..1000 {
            let displaced = enter(&mut room, v4(host)).displaced;
            assert_ne!(displaced, Some(peer.place), "the only one of its host");
        }
    }
}

#[test]
fn who_shares_an_address_with_silent_connections_gets_in_too_and_stays_once_it_has_spoken() {
    let mut room = HandshakeRoom::default();
    let silent: Vec<_> = (0..16).map(|_| enter(&mut room, v4(1)).place).collect();

    let peer = enter(&mut room, v4(1));

    assert_eq!(peer.displaced, Some(silent[0]));
    room.handle_progress(peer.place, Progress::Spoke);
    for _ in 0..1000 {
        assert_ne!(enter(&mut room, v4(1)).displaced, Some(peer.place));
    }
}

#[test]
fn a_newcomer_has_time_for_its_first_bytes_while_older_ones_have_spoken() {
    let mut room = HandshakeRoom::default();
    for _ in 0..16 {
        room.enter(v4(1), false, Progress::Spoke);
    }

    let peer = enter(&mut room, v4(1));

    for _ in 0..PLACES_PER_NETWORK / 2 {
        assert_ne!(enter(&mut room, v4(1)).displaced, Some(peer.place));
    }
}

#[test]
fn strangers_do_not_take_the_places_of_networks_that_are_known() {
    let mut room = HandshakeRoom::default();
    let known: Vec<_> = (0..KNOWN_PLACES as u32)
        .map(|host| room.enter(v4(host), true, Progress::Nothing))
        .collect();
    assert!(known.iter().all(|entered| entered.displaced.is_none()));

    for host in 0..1000 {
        let displaced = enter(&mut room, v4(host)).displaced;
        assert!(known.iter().all(|entered| Some(entered.place) != displaced));
    }

    assert_eq!(room.n_taken(), STRANGER_PLACES + KNOWN_PLACES);
    let full = room.enter(v4(2), true, Progress::Nothing);
    assert_eq!(full.displaced, Some(known[0].place));
}

#[test]
fn who_has_every_address_of_a_network_counts_as_one() {
    assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff:1:2:3"));
    assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
    assert_eq!(v6("::ffff:192.0.2.1"), v4(1));

    let mut room = HandshakeRoom::default();
    let neighbour = enter(&mut room, v6("2001:db8:1::1"));
    for subnet in 0..1000 {
        // One site with a /48 of its own has 65,536 networks of this size.
        let displaced = enter(&mut room, v6(&format!("2001:db8:2:{subnet:x}::1"))).displaced;
        assert_ne!(displaced, Some(neighbour.place));
    }
}

#[test]
fn an_address_is_to_be_validated_once_a_quarter_of_its_room_is_taken() {
    let mut room = HandshakeRoom::default();
    for host in 0..STRANGER_PLACES as u32 / 4 {
        assert!(!room.wants_validation(v4(host), false), "{host}");
        enter(&mut room, v4(host));
    }
    assert!(room.wants_validation(v4(1000), false));
    assert!(!room.wants_validation(v4(1000), true), "other places");

    for _ in 0..PLACES_PER_NETWORK / 4 {
        assert!(!room.wants_validation(v4(1000), true));
        room.enter(v4(1000), true, Progress::Spoke);
    }
    assert!(
        room.wants_validation(v4(1000), true),
        "a quarter of one network's"
    );
    assert!(!room.wants_validation(v4(1001), true));
}

#[test]
fn a_configured_peer_is_the_last_to_give_way_and_one_that_is_none_the_first() {
    let mut room = HandshakeRoom::default();
    let places: Vec<_> = (0..16)
        .map(|_| room.enter(v4(1), false, Progress::Spoke).place)
        .collect();
    room.handle_progress(places[0], Progress::Proved);
    room.handle_progress(places[5], Progress::Nothing);

    assert_eq!(enter(&mut room, v4(1)).displaced, Some(places[5]));
    assert_eq!(enter(&mut room, v4(1)).displaced, Some(places[1]));
}

proptest! {
    #[test]
    fn a_newcomer_always_gets_in_and_every_bound_holds(
        steps in prop::collection::vec((0_u32..300, any::<bool>(), 0_u8..4, any::<prop::sample::Index>()), 1..300)
    ) {
        let mut room = HandshakeRoom::default();
        let mut inside: Vec<PlaceId> = Vec::new();
        for (host, is_known, what, at) in steps {
            if what == 0 && !inside.is_empty() {
                room.leave(inside.swap_remove(at.index(inside.len())));
            } else {
                let progress = [Progress::Nothing, Progress::Spoke, Progress::Proved][usize::from(what) % 3];
                let Entered { place, displaced } = room.enter(v4(host % 40), is_known, progress);
                if let Some(displaced) = displaced {
                    prop_assert!(inside.contains(&displaced));
                    inside.retain(|other| *other != displaced);
                }
                inside.push(place);
            }
            prop_assert_eq!(room.n_taken(), inside.len());
            prop_assert!(room.strangers.0.len() <= STRANGER_PLACES && room.known.0.len() <= KNOWN_PLACES);
            for places in [&room.strangers, &room.known] {
                let most = (0..40).map(|host| places.n_of(v4(host))).max();
                prop_assert!(most <= Some(PLACES_PER_NETWORK));
            }
        }
    }
}
