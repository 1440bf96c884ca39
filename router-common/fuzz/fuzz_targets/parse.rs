//! Whatever the bytes, the parser does not panic, stays inside them and says the same of the same packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router_common::flow_key::{FAMILY_V4, FAMILY_V6};
use router_common::packet::{Behind, ethernet, parse, protocol};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = ethernet::parse(bytes) {
        assert!((14..=22).contains(&frame.len) && frame.len as usize <= bytes.len());
        let behind = Behind {
            reader: bytes,
            base: frame.len,
        };
        let payload = &bytes[frame.len as usize..];
        let len = payload.len() as u32;
        assert_eq!(
            parse(&behind, len),
            parse(payload, len),
            "behind an Ethernet header"
        );
    }

    let len = bytes.len() as u32;
    let Ok(parsed) = parse(bytes, len) else { return };
    let header_end = parsed.transport_offset + parsed.transport_len;
    assert!(parsed.total_len <= len && header_end <= len);
    assert_eq!(parsed.key.family, bytes[0] >> 4);
    match parsed.key.family {
        FAMILY_V4 => {
            assert!(parsed.transport_offset >= 20 && parsed.transport_offset.is_multiple_of(4));
            let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
            assert!(parsed.key.source.starts_with(&mapped) && parsed.key.destination.starts_with(&mapped));
        }
        FAMILY_V6 => assert!(parsed.transport_offset >= 40),
        other => panic!("family {other}"),
    }
    if parsed.fragment {
        assert_eq!(
            (parsed.key.source_port_be, parsed.key.destination_port_be),
            ([0; 2], [0; 2])
        );
        assert_eq!(parsed.transport_len, 0);
    } else if matches!(parsed.key.protocol, protocol::TCP | protocol::UDP) {
        let at = parsed.transport_offset as usize;
        assert_eq!(parsed.key.source_port_be, bytes[at..at + 2]);
        assert_eq!(parsed.key.destination_port_be, bytes[at + 2..at + 4]);
    }
    assert_eq!(parsed.key.padding, [0; 2]);
});
