use std::collections::HashMap;

use futures::StreamExt;

use super::*;
use crate::control::{CaptureBlocks, CaptureDirection, CaptureDirections, CaptureRecord, MAX_SNAPLEN};
use router_common::frame::VnetHeader;

fn packet(last: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 42, 0, 1], [10, 42, 0, last], 64)
        .udp(1000, 2000)
        .write(&mut packet, b"payload")
        .unwrap();
    packet
}

fn view(packet: &[u8], direction: CaptureDirection) -> PacketView<'_> {
    PacketView {
        direction,
        peer: None,
        vnet: VnetHeader::default(),
        packet,
    }
}

fn open(taps: &Arc<CaptureTaps>, query: &CaptureQuery) -> CaptureStream {
    let filter = CaptureFilter::parse(&query.filter).unwrap();
    let filter = filter.map(|filter| filter.resolve(|_| Ok::<_, TooMany>(PeerId::random())).unwrap());
    taps.open(query, filter, encoder()).unwrap()
}

fn encoder() -> CaptureEncoder {
    CaptureEncoder::new("sr0", MAX_SNAPLEN, HashMap::new())
}

/// Packets, those dropped as it said last, and why it ended.
async fn read(mut stream: CaptureStream, n_packets: usize) -> (Vec<Vec<u8>>, u64, Option<String>) {
    let (mut blocks, mut packets, mut dropped) = (CaptureBlocks::default(), Vec::new(), 0);
    while packets.len() < n_packets {
        let Some(bytes) = stream.next().await else { break };
        blocks.handle_bytes(&bytes);
        while let Some(block) = blocks.next_block().unwrap() {
            match block.record {
                CaptureRecord::Packet(packet) => packets.push(packet.bytes.to_vec()),
                CaptureRecord::Dropped(n) => dropped = n,
                CaptureRecord::End { dropped, reason } => return (packets, dropped, Some(reason)),
                CaptureRecord::Other => {}
            }
        }
    }
    (packets, dropped, None)
}

#[tokio::test]
async fn without_a_capture_a_turn_has_no_taps_and_with_one_until_it_is_dropped() {
    let taps = Arc::new(CaptureTaps::default());
    assert!(taps.begin_turn().is_none());

    let stream = open(&taps, &CaptureQuery::default());

    assert!(taps.begin_turn().is_some());
    drop(stream);
    assert!(taps.begin_turn().is_none());
}

#[tokio::test]
async fn a_capture_shows_what_its_filter_direction_and_length_say() {
    let taps = Arc::new(CaptureTaps::default());
    let all = open(&taps, &CaptureQuery::default());
    let some = open(
        &taps,
        &CaptureQuery {
            filter: "host 10.42.0.2".to_owned(),
            snaplen: 20,
            directions: CaptureDirections::Out,
        },
    );
    let (second, third) = (packet(2), packet(3));
    let mut turn = taps.begin_turn().unwrap();
    turn.take(view(&second, CaptureDirection::In));
    turn.take(view(&third, CaptureDirection::Out));
    turn.take(view(&second, CaptureDirection::Out));
    drop(turn);

    assert_eq!(
        read(all, 3).await,
        (vec![second.clone(), third, second.clone()], 0, None)
    );
    assert_eq!(read(some, 1).await, (vec![second[..20].to_vec()], 0, None));
}

#[tokio::test]
async fn what_the_queue_has_no_room_for_is_counted_and_the_rest_comes() {
    let taps = Arc::new(CaptureTaps::default());
    let stream = open(&taps, &CaptureQuery::default());
    let packet = packet(2);
    let n_offered = 2 * tap::MAX_QUEUED_BYTES / packet.len();
    for _ in 0..n_offered / 100 {
        let mut turn = taps.begin_turn().unwrap();
        for _ in 0..100 {
            turn.take(view(&packet, CaptureDirection::Out));
        }
    }
    let stopping = tokio::spawn({
        let taps = taps.clone();
        async move { taps.end().await }
    });

    let (packets, dropped, reason) = read(stream, usize::MAX).await;

    assert!(dropped > 0);
    assert_eq!(packets.len() as u64 + dropped, (n_offered / 100 * 100) as u64);
    assert_eq!(reason.as_deref(), Some("the node is stopping"));
    stopping.await.unwrap();
}

#[tokio::test]
async fn so_many_captures_run_at_a_time_and_no_more() {
    let taps = Arc::new(CaptureTaps::default());
    let mut streams: Vec<_> = (0..MAX_TAPS)
        .map(|_| open(&taps, &CaptureQuery::default()))
        .collect();

    assert_eq!(
        taps.open(&CaptureQuery::default(), None, encoder()).err(),
        Some(TooMany)
    );
    streams.pop();
    assert!(taps.open(&CaptureQuery::default(), None, encoder()).is_ok());
}

#[tokio::test]
async fn a_capture_that_nobody_reads_does_not_hold_up_the_end_for_long() {
    let taps = Arc::new(CaptureTaps::default());
    let _stream = open(&taps, &CaptureQuery::default());

    taps.end().await;
}
