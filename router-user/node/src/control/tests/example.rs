//! A source whose every field has a value.

use std::collections::HashMap;

use super::super::*;

pub(crate) struct Example;

impl Source for Example {
    fn status(&self) -> Status {
        Status {
            version: "1.2.3".to_owned(),
            uptime_seconds: 1.5,
            peer_id: "12D3KooWExample".to_owned(),
            name: Some("berlin".to_owned()),
            device: DeviceStatus {
                name: "sr0".to_owned(),
                index: 7,
                mtu: 1420,
                addresses: vec!["10.42.0.1/24".to_owned()],
            },
            listen: vec!["/ip4/192.0.2.1/tcp/4001".to_owned()],
            port_mapping: PortMappingStatus {
                state: PortMappingState::Mapped,
                gateway: Some("192.168.0.1".to_owned()),
                detail: Some("not quic 4001".to_owned()),
                mapped: vec![MappedPort {
                    address: "/ip4/192.0.2.1/tcp/4001".to_owned(),
                    port: 4001,
                    protocol: "PCP".to_owned(),
                    expires_in_seconds: Some(1799.5),
                }],
                nat: Some("one relay alone sees this node".to_owned()),
            },
            reach: ReachStatus {
                relays: vec![RelayStatus {
                    peer: "12D3KooWOslo".to_owned(),
                    peer_name: Some("oslo".to_owned()),
                    held: false,
                    last_error: Some("no room".to_owned()),
                }],
                seen: vec![SeenAddress {
                    address: "/ip4/198.51.100.1/tcp/4001".to_owned(),
                    peer: "12D3KooWOslo".to_owned(),
                    peer_name: Some("oslo".to_owned()),
                }],
                told: vec!["/ip4/198.51.100.1/tcp/4001".to_owned()],
                announced: vec!["/ip4/192.0.2.1/tcp/4001".to_owned()],
                serves: Some(ServedStatus {
                    reservations: 2,
                    circuits: 1,
                    bytes: 4096,
                }),
            },
            hook: "clsact egress".to_owned(),
            hook_reason: "there".to_owned(),
            sink: "ring buffer".to_owned(),
            sink_reason: "so".to_owned(),
            pins: Some("/sys/fs/bpf/stream-router/sr0".to_owned()),
            workers: 8,
            retired_workers: 1,
            data_threads: vec!["sr-data-0".to_owned()],
            configured_peers: 2,
            connected_peers: 1,
            disabled_peers: 1,
            gateways: vec![GatewayStatus {
                interface: "lan0".to_owned(),
                mode: "generic".to_owned(),
                reason: Some("no driver".to_owned()),
                sink: "AF_XDP, copy mode".to_owned(),
                sink_reason: Some("no zero-copy".to_owned()),
            }],
            host: HostStatus {
                age_seconds: 1.5,
                error: Some("no socket".to_owned()),
                put_back: 3,
                things: vec![HostThing {
                    kind: "route".to_owned(),
                    name: "10.42.0.2/32".to_owned(),
                    state: HostState::Conflict,
                    detail: Some("the route 10.42.0.2/32 is missing".to_owned()),
                    fix: Some("ip route del 10.42.0.2/32 dev u0".to_owned()),
                }],
            },
            memory: MemoryStatus {
                limit_bytes: Some(256 << 20),
                limited_by: Some("/sys/fs/cgroup/system.slice".to_owned()),
                max_flows: 32_768,
                table_bytes: 5 << 20,
                received_table_bytes: 2 << 20,
                ring_bytes: 512 << 10,
                peers_bytes: 45_000,
            },
            kernel: KernelStatus {
                release: "6.18.0".to_owned(),
                features: vec![KernelFeature {
                    name: "btf".to_owned(),
                    available: true,
                    detail: "types".to_owned(),
                }],
            },
        }
    }

    fn traffic(&self) -> TrafficTotals {
        TrafficTotals {
            tx_frames: 1,
            tx_bytes: 2,
            rx_frames: 3,
            rx_bytes: 4,
        }
    }

    fn peers(&self) -> PeerList {
        let peer = PeerStatus {
            id: "12D3KooWPeer".to_owned(),
            name: Some("paris".to_owned()),
            comment: Some("in the cellar".to_owned()),
            state: PeerState::Connected,
            address: Some("/ip4/192.0.2.2/tcp/4001".to_owned()),
            transport: Some(Transport::Quic),
            path: Some(PeerPath::Punched),
            direction: Some(Direction::Inbound),
            rtt_ms: Some(0.25),
            handshake_age_seconds: Some(3.5),
            connections: 1,
            links: vec![PeerLink {
                address: "/ip4/192.0.2.2/tcp/4001".to_owned(),
                transport: Transport::Tcp,
                direction: Direction::Outbound,
                uplink: Some("wan0".to_owned()),
                metered: false,
                rtt_ms: Some(0.25),
                loss: Some(0.02),
                age_seconds: 3.5,
                answers: true,
                leaving: false,
            }],
            streams: 2,
            allowed_ips: vec!["10.42.0.2/32".to_owned()],
            rate_bytes_per_second: Some(125_000),
            tx_frames: 1,
            tx_bytes: 2,
            rx_frames: 3,
            rx_bytes: 4,
            tx_bytes_per_second: Some(0.5),
            rx_bytes_per_second: Some(1.5),
            addresses: vec![PeerAddress {
                address: "/ip4/192.0.2.2/tcp/4001".to_owned(),
                origin: AddressOrigin::Configured,
                last_dial_error: Some("refused".to_owned()),
                last_dial_error_age_seconds: Some(4.5),
            }],
            last_dial_error: Some("refused".to_owned()),
            refuses: false,
            relayed_because: Some("nobody answers".to_owned()),
            direct_tries: vec![DirectTry {
                address: "/ip4/198.51.100.2/tcp/4001".to_owned(),
                error: "timed out".to_owned(),
            }],
            direct_tried_age_seconds: Some(12.5),
        };
        let disabled = DisabledPeer {
            id: "12D3KooWRome".to_owned(),
            name: Some("rome".to_owned()),
            comment: Some("at the workshop".to_owned()),
            allowed_ips: vec!["10.42.0.3/32".to_owned()],
            addresses: vec!["/ip4/192.0.2.3/tcp/4001".to_owned()],
        };
        PeerList {
            peers: vec![peer],
            disabled: vec![disabled],
        }
    }

    fn flows(&self, query: &FlowQuery) -> Result<FlowList, SourceError> {
        let flow = Flow {
            protocol: IpProtocol(6),
            source: [10, 42, 0, 1].into(),
            source_port: 40_000,
            destination: [10, 42, 0, 2].into(),
            destination_port: 443,
            worker: Some(3),
            peer: Some("12D3KooWPeer".to_owned()),
            peer_name: Some("paris".to_owned()),
            stream: Some(0),
            age_seconds: 2.5,
            idle_seconds: 0.5,
            packets: 10,
            bytes: 15_000,
            rx_packets: 20,
            rx_bytes: 2000,
        };
        match query.peer.as_deref() {
            Some("broken") => Err(SourceError::Failed(Box::new(Outer(io::Error::other("inner"))))),
            Some(other) => Err(SourceError::Query(format!("no peer's id ends with {other}"))),
            None => Ok(FlowList {
                live: 9,
                rx_live: 8,
                matched: 2,
                max_entries: 4096,
                flows: vec![flow; query.limit.min(2) as usize],
            }),
        }
    }

    fn workers(&self) -> WorkerList {
        let worker = WorkerStatus {
            id: 0,
            state: WorkerState::Retired,
            thread: "sr-data-0".to_owned(),
            ring_bytes: 1 << 21,
            fill: 0.5,
            sockets: 1,
            flows: 4,
            packets: 5,
            bytes: 6,
            wakeups: 7,
        };
        WorkerList {
            workers: vec![worker],
        }
    }

    fn invite(&self) -> InviteStatus {
        InviteStatus {
            invite: Some("sr1example".to_owned()),
            problem: Some("none".to_owned()),
            addresses: vec!["/ip4/192.0.2.1/tcp/4001".to_owned()],
            allowed_ips: vec!["10.42.0.1/32".to_owned()],
            qr: QrCode::of("sr1example"),
        }
    }

    fn events(&self) -> EventList {
        let event = Event {
            number: 1,
            unix_seconds: 1.7e9,
            kind: EventKind::PeerDown,
            peer: Some("12D3KooWPeer".to_owned()),
            peer_name: Some("paris".to_owned()),
            detail: Some("timed out".to_owned()),
        };
        EventList { events: vec![event] }
    }

    fn streams(&self) -> StreamList {
        let stream = StreamStatus {
            peer: "12D3KooWPeer".to_owned(),
            peer_name: Some("paris".to_owned()),
            index: 1,
            state: StreamState::Active,
            open: true,
            transport: Some(Transport::Tcp),
            frames: 1,
            queued_bytes: 2,
            pressed: true,
            refused: 4,
            dropped: 5,
            marked: 6,
        };
        StreamList {
            streams: vec![stream],
        }
    }

    fn counters(&self) -> Result<CounterList, SourceError> {
        let counter = CounterStatus {
            name: "captured".to_owned(),
            value: 9,
            origin: CounterOrigin::Kernel,
            kind: CounterKind::Event,
            meaning: "packets given to a worker".to_owned(),
        };
        Ok(CounterList {
            counters: vec![counter],
        })
    }

    fn routes(&self) -> Result<RouteList, SourceError> {
        let route = RouteStatus {
            prefix: "10.42.0.2/32".parse().expect("a prefix"),
            peer: Some("12D3KooWPeer".to_owned()),
            peer_name: Some("paris".to_owned()),
            source: RouteSource::AllowedIps,
        };
        Ok(RouteList { routes: vec![route] })
    }

    fn capture(&self, query: &CaptureQuery) -> Result<CaptureStream, SourceError> {
        if query.snaplen == 1 {
            return Err(SourceError::Busy("too many".to_owned()));
        }
        let mut encoder = CaptureEncoder::new("sr0", query.snaplen, HashMap::new());
        encoder.put_statistics(query.snaplen.into(), None);
        encoder.put_statistics(7, Some(&query.filter));
        let pcapng = encoder.take();
        let (first, last) = pcapng.split_at(10);
        let pieces = [first.to_vec().into(), last.to_vec().into()];
        Ok(Box::pin(futures::stream::iter(pieces)))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] io::Error);
