use std::time::{Duration, UNIX_EPOCH};

use libp2p::multiaddr::Protocol;

use super::{
    super::{announcement::key_of, config::DhtConfig, found::FoundBy},
    *,
};

/// Addresses of this network are inside the tunnel.
const INNER: [u8; 2] = [10, 42];

fn discovery(peers: &[PeerId], dht: bool) -> AddressDiscovery {
    let config = DiscoveryConfig {
        mdns: true,
        dht: dht.then(DhtConfig::default),
        prefer: TransportKind::Tcp,
        is_inner: Arc::new(|ip| matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == INNER)),
    };
    AddressDiscovery::new(Keypair::generate_ed25519(), config, peers.iter().copied())
}

fn address(text: &str) -> Multiaddr {
    text.parse().expect("an address")
}

fn seen(peer: PeerId, text: &str) -> (PeerId, Multiaddr) {
    (peer, address(text).with(Protocol::P2p(peer)))
}

fn change(peer: PeerId, by: FoundBy, texts: &[&str]) -> FoundChange {
    let found = texts.iter().map(|text| FoundAddress {
        address: address(text),
        by,
    });
    FoundChange {
        peer,
        found: found.collect(),
    }
}

fn start_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// The record of the owner of `keypair` with these addresses.
fn signed(keypair: &Keypair, sequence: u64, texts: &[&str]) -> Record {
    let addresses: Vec<_> = texts.iter().map(|text| address(text)).collect();
    let value = Announcement::sign(keypair, sequence, &addresses, &[], start_time()).expect("sign");
    Record::new(key_of(keypair.public().to_peer_id()), value)
}

fn as_they_are(listening: Vec<Multiaddr>) -> Vec<Multiaddr> {
    listening
}

fn nobody_is_present(_: PeerId) -> bool {
    false
}

#[test]
fn only_addresses_of_configured_peers_outside_the_tunnel_are_used() {
    let (peer, stranger) = (PeerId::random(), PeerId::random());
    let mut discovery = discovery(&[peer], false);

    let changes = discovery.handle_local(LocalEvent::Seen(vec![
        seen(peer, "/ip4/192.0.2.1/tcp/1"),
        seen(peer, "/ip4/10.42.0.1/tcp/1"),
        seen(peer, "/ip4/127.0.0.1/tcp/1"),
        seen(stranger, "/ip4/192.0.2.2/tcp/1"),
    ]));

    assert_eq!(changes, [change(peer, FoundBy::Mdns, &["/ip4/192.0.2.1/tcp/1"])]);
}

#[test]
fn nothing_changes_when_what_is_known_is_said_again() {
    let peer = PeerId::random();
    let mut discovery = discovery(&[peer], false);
    let pair = || vec![seen(peer, "/ip4/192.0.2.1/tcp/1")];

    assert_eq!(discovery.handle_local(LocalEvent::Seen(pair())).len(), 1);
    assert_eq!(discovery.handle_local(LocalEvent::Seen(pair())), []);
    assert_eq!(
        discovery.handle_local(LocalEvent::Unseen(pair())),
        [change(peer, FoundBy::Mdns, &[])]
    );
    assert_eq!(discovery.handle_local(LocalEvent::Forgotten), []);
}

#[test]
fn forgetting_the_local_network_changes_the_peers_that_were_there() {
    let (near, far) = (PeerId::random(), PeerId::random());
    let mut discovery = discovery(&[near, far], false);
    discovery.handle_local(LocalEvent::Seen(vec![seen(near, "/ip4/192.0.2.1/tcp/1")]));

    let changes = discovery.handle_local(LocalEvent::Forgotten);

    assert_eq!(changes, [change(near, FoundBy::Mdns, &[])]);
}

#[test]
fn a_peer_is_forgotten_with_its_configuration() {
    let peer = PeerId::random();
    let mut discovery = discovery(&[peer], false);
    let pair = || vec![seen(peer, "/ip4/192.0.2.1/tcp/1")];
    discovery.handle_local(LocalEvent::Seen(pair()));

    discovery.remove_peer(peer);
    assert_eq!(discovery.handle_local(LocalEvent::Seen(pair())), []);

    discovery.add_peer(peer);
    assert_eq!(discovery.handle_local(LocalEvent::Seen(pair())).len(), 1);
}

#[test]
fn a_record_is_kept_and_used_if_it_is_a_configured_peers_own_and_new() {
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id();
    let mut discovery = discovery(&[peer], true);
    let (now, time) = (Instant::now(), start_time());
    let record = signed(&keypair, 1, &["/ip4/192.0.2.1/tcp/1", "/ip4/10.42.0.1/tcp/1"]);

    let first = discovery.handle_record(&record, now, time).expect("believed");
    let again = discovery.handle_record(&record, now, time).expect("believed");

    let kept = first.kept.expect("new");
    assert_eq!((&kept.key, &kept.value), (&record.key, &record.value));
    assert_eq!(
        (kept.publisher, kept.expires),
        (Some(peer), Some(now.into_std() + Duration::from_secs(3600)))
    );
    assert_eq!(
        first.change,
        Some(change(peer, FoundBy::Dht, &["/ip4/192.0.2.1/tcp/1"]))
    );
    assert_eq!(again, BelievedRecord::default());
}

#[test]
fn records_of_strangers_and_forged_and_expired_ones_are_refused() {
    let (keypair, stranger) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let peer = keypair.public().to_peer_id();
    let mut discovery = discovery(&[peer], true);
    let mut refusal = |record: &Record, time| {
        let refused = discovery.handle_record(record, Instant::now(), time);
        refused.expect_err("refused")
    };
    let own = signed(&keypair, 1, &[]);
    let forged = Record::new(key_of(peer), signed(&stranger, 1, &[]).value);
    let elsewhere = Record::new(b"elsewhere".to_vec(), own.value.clone());
    let later = start_time() + Duration::from_secs(3600);

    assert!(refusal(&signed(&stranger, 1, &[]), start_time()).contains("not configured"));
    assert!(refusal(&forged, start_time()).contains("signed by"));
    assert!(refusal(&own, later).contains("expired"));
    assert!(refusal(&elsewhere, start_time()).contains("no peer's"));
}

#[test]
fn a_peer_with_another_clock_is_believed_of_itself_for_an_hour_and_not_of_others() {
    let keypair = Keypair::generate_ed25519();
    let (peer, other) = (keypair.public().to_peer_id(), PeerId::random());
    let mut discovery = discovery(&[peer, other], true);
    let hour = Duration::from_secs(3600);
    let (now, time) = (Instant::now(), start_time() + 100 * hour);
    let record = signed(&keypair, 1, &["/ip4/192.0.2.1/tcp/1"]);
    let mut brought = |source, at| discovery.handle_brought(source, &record, now, at);

    assert!(brought(other, time).expect_err("refused").contains("expired"));
    let believed = brought(peer, time).expect("believed");
    assert_eq!(believed.kept.expect("new").expires, Some(now.into_std() + hour));
    assert_eq!(
        believed.change,
        Some(change(peer, FoundBy::Dht, &["/ip4/192.0.2.1/tcp/1"]))
    );
    assert_eq!(brought(peer, time + hour / 2), Ok(BelievedRecord::default()));
    assert!(
        brought(peer, time + hour)
            .expect_err("refused")
            .contains("expired")
    );

    let newer = signed(&keypair, 2, &["/ip4/192.0.2.2/tcp/1"]);
    let later = discovery.handle_brought(peer, &newer, now, time + hour);
    assert!(later.expect("believed").kept.is_some());
}

#[test]
fn a_peer_without_a_clock_is_believed_of_itself_at_once_whenever_it_starts_anew() {
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id();
    let mut discovery = discovery(&[peer], true);
    let (now, time) = (Instant::now(), start_time());
    let second = Duration::from_secs(1);
    let announce = |clock: SystemTime, port: u16| {
        let addresses = [address(&format!("/ip4/192.0.2.1/tcp/{port}"))];
        let sequence = clock.duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        let value = Announcement::sign(&keypair, sequence as u64, &addresses, &[], clock).expect("sign");
        Record::new(key_of(peer), value)
    };
    let mut port_after = |record: &Record| {
        let believed = discovery
            .handle_brought(peer, record, now, time)
            .expect("believed");
        let change = believed.change.expect("another address");
        change.found[0].address.to_string()
    };

    let right = announce(time, 1);
    assert_eq!(port_after(&right), "/ip4/192.0.2.1/tcp/1");
    assert_eq!(
        port_after(&announce(UNIX_EPOCH + 600 * second, 2)),
        "/ip4/192.0.2.1/tcp/2"
    );
    assert_eq!(
        port_after(&announce(UNIX_EPOCH + 5 * second, 3)),
        "/ip4/192.0.2.1/tcp/3"
    );

    let old = discovery.handle_brought(PeerId::random(), &right, now, time);
    assert_eq!(old, Ok(BelievedRecord::default()), "it was there before");
}

#[test]
fn absent_peers_are_looked_up_and_what_expired_is_dialled_no_more() {
    let keypair = Keypair::generate_ed25519();
    let (peer, present) = (keypair.public().to_peer_id(), PeerId::random());
    let mut discovery = discovery(&[peer, present], true);
    let start = Instant::now();
    let record = signed(&keypair, 1, &["/ip4/192.0.2.1/tcp/1"]);
    discovery
        .handle_record(&record, start, start_time())
        .expect("believed");
    let listening = [address("/ip4/192.0.2.9/tcp/1"), address("/ip4/10.42.0.9/tcp/1")];
    let is_present = |peer: PeerId| peer == present;

    assert_eq!(discovery.poll_due(), None, "there is no neighbour");
    discovery.handle_neighbour(start);
    let due = discovery.poll_due().expect("there is work");
    let early = discovery.poll_dht(start, start_time(), is_present, listening.iter(), as_they_are);
    assert_eq!(early, DhtWork::default());

    let later = start_time() + Duration::from_secs(3600);
    let work = discovery.poll_dht(due, later, is_present, listening.iter(), as_they_are);

    assert_eq!(work.look_up, [peer]);
    assert_eq!(work.changes, [change(peer, FoundBy::Dht, &[])]);
    let published = work.publish.expect("it is time");
    let publisher = published.publisher.expect("this node");
    let announced = Announcement::verify(&published.value, publisher, later).expect("genuine");
    assert_eq!(announced.addresses, listening[..1]);
}

#[test]
fn a_lookup_needs_the_dht_a_peer_and_room() {
    let off = discovery(&[], false);
    assert!(matches!(off.check_lookup(true), Err(LookupError::Off)));

    let on = discovery(&[], true);
    assert!(matches!(on.check_lookup(false), Err(LookupError::NotConnected)));
    assert!(on.check_lookup(true).is_ok());
}

#[test]
fn without_the_dht_nothing_is_ever_due_in_it() {
    let mut discovery = discovery(&[PeerId::random()], false);
    let now = Instant::now();
    discovery.handle_neighbour(now);
    discovery.handle_absent(now);

    let work = discovery.poll_dht(now, start_time(), nobody_is_present, [].iter(), as_they_are);

    assert_eq!((discovery.poll_due(), work), (None, DhtWork::default()));
}
