//! Values, their bounds and their defaults.

use super::*;

#[test]
fn the_document_has_every_field_with_its_default() {
    let config = Config::parse("[device]\naddresses = [\"10.42.0.1/24\"]\n", Path::new("sr.toml")).unwrap();
    let (node, workers, connections) = (config.node(), config.workers(), config.connections());
    let (workers_scaling, streams) = (workers.scaling(), config.streams());
    let (workers_scaler, streams_scaler) = (workers_scaling.scaler, streams.scaling().scaler);
    let seconds = |duration: std::time::Duration| format!("`{}s`", duration.as_secs());
    let rows = [
        ("`node.key`", format!("`{}`", node.key().display())),
        (
            "`node.listen`",
            "TCP and QUIC on port 4001, IPv4 and IPv6".to_owned(),
        ),
        ("`node.control`", format!("`{}`", node.control().display())),
        ("`device.name`", format!("`{}`", config.device().name())),
        ("`device.addresses`", "required".to_owned()),
        ("`device.mtu`", config.device().mtu().to_string()),
        (
            "`workers.min`, `workers.initial`, `workers.max`",
            format!(
                "{}, {}, {}",
                workers_scaler.min,
                workers.initial(),
                workers_scaler.max
            ),
        ),
        (
            "`workers.queue_size`",
            "by [memory](operations.md#memory), up to 2000".to_owned(),
        ),
        ("`workers.threads`", "half the CPUs".to_owned()),
        ("`workers.scale_interval`", seconds(workers_scaling.interval)),
        ("`workers.scale_up`", workers_scaler.scale_up.to_string()),
        ("`workers.scale_down`", workers_scaler.scale_down.to_string()),
        ("`connections.ttl`", seconds(connections.ttl())),
        (
            "`connections.cleanup_interval`",
            seconds(connections.cleanup_interval()),
        ),
        (
            "`connections.max_entries`",
            "by [memory](operations.md#memory), up to 262144".to_owned(),
        ),
        ("`connections.shards`", connections.shards().to_string()),
        (
            "`streams.min_per_peer`, `streams.max_per_peer`",
            format!("{}, {}", streams_scaler.min, streams_scaler.max),
        ),
        (
            "`streams.throughput_threshold`",
            streams.throughput_threshold().to_string(),
        ),
        ("`streams.scale_interval`", seconds(streams.scaling().interval)),
        ("`streams.scale_up`", streams_scaler.scale_up.to_string()),
        ("`streams.scale_down`", streams_scaler.scale_down.to_string()),
        ("`transport.prefer`", "`[\"tcp\", \"quic\"]`".to_owned()),
        (
            "`transport.connections_per_peer`",
            "`workers.threads`, up to 4".to_owned(),
        ),
        ("`transport.hold_time`", seconds(config.transport().hold_time())),
        ("`transport.busy_poll`", "`0us`".to_owned()),
        ("`transport.dscp`", "0".to_owned()),
        ("`transport.fwmark`", "8275 (0x2053)".to_owned()),
        ("`transport.congestion`", "the host's".to_owned()),
        (
            "`transport.mptcp`",
            config.transport().tcp().multipath.to_string(),
        ),
        ("`transport.uplink.weight`", "1".to_owned()),
        ("`transport.uplink.cost`", "0".to_owned()),
        ("`transport.uplink.metered`", "false".to_owned()),
        ("`transport.punch`", config.transport().punch().to_string()),
        (
            "`transport.port_mapping`",
            config.transport().port_mapping().to_string(),
        ),
        ("`transport.proxy`", "none".to_owned()),
        ("`transport.no_proxy`", "none".to_owned()),
        ("`transport.proxy_password_file`", "none".to_owned()),
        ("`otlp.ca_file`", "the system's".to_owned()),
        ("`device.clamp_mss`", config.device().clamp_mss().to_string()),
        (
            "`device.on_stop`",
            "see [stopping](operations.md#packets-of-a-node-that-does-not-run)".to_owned(),
        ),
        ("`exit.serve`", config.exit().serve().to_string()),
        (
            "`peer.override`",
            config.peers().iter().any(|peer| peer.overrides()).to_string(),
        ),
        ("`discovery.mdns`", config.discovery().mdns().to_string()),
        ("`discovery.dht`", config.discovery().dht().to_string()),
        ("`discovery.announce`", "what it listens on".to_owned()),
        ("`metrics.listen`", "none".to_owned()),
        ("`metrics.hosts`", "none".to_owned()),
        ("`otlp.endpoint`", "none".to_owned()),
        ("`otlp.interval`", seconds(config.otlp().interval())),
        ("`otlp.headers_file`", "none".to_owned()),
        ("`otlp.attributes`", "none".to_owned()),
        ("`peer.id`", "required".to_owned()),
        ("`peer.addresses`", "none".to_owned()),
        ("`peer.allowed_ips`", "required".to_owned()),
        ("`peer.rate`", "none".to_owned()),
    ];

    let document = include_str!("../../../../docs/configuration.md");
    for (field, default) in rows {
        assert!(
            document.contains(&format!("\n| {field} | {default} | ")),
            "{field}, {default}"
        );
    }
}

#[test]
fn numbers_of_workers_that_are_not_written_give_way() {
    let parse = |text: &str| {
        let text = format!("[device]\naddresses = [\"10.42.0.1/24\"]\n[workers]\n{text}");
        let config = Config::parse(&text, Path::new("sr.toml")).unwrap();
        let workers = config.workers();
        let scaler = workers.scaling().scaler;
        (scaler.min, workers.initial(), scaler.max)
    };

    assert_eq!(parse(""), (4, 8, 32));
    assert_eq!(parse("max = 2"), (2, 2, 2));
    assert_eq!(parse("min = 16"), (16, 16, 32));
    assert_eq!(parse("initial = 5"), (4, 5, 32));
}

#[test]
fn durations_and_shares_out_of_range_are_reported() {
    let text = "[device]\naddresses = [\"10.42.0.1/24\"]\n[workers]\nscale_interval = \"1ms\"\nscale_up = 1.5\n\
                scale_down = 0.9\n[connections]\nttl = \"soon\"\ncleanup_interval = 5\nmax_entries = 100\n";

    let error = Config::parse(text, Path::new("sr.toml")).unwrap_err();

    let allowed = "(allowed: a duration from \"100ms\" to \"1h\", such as \"5s\")";
    let said = error.to_string();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 6, "{said}");
    assert_eq!(
        lines[0],
        format!("sr.toml:4: workers.scale_interval: 1ms is out of range {allowed}")
    );
    assert!(lines[1].starts_with("sr.toml:5: workers.scale_up: is out of range (allowed: a number above 0"));
    assert!(
        lines[2].starts_with("sr.toml:6: workers.scale_down: scale_down, 0.9, is not below scale_up, 0.75")
    );
    assert!(lines[3].starts_with("sr.toml:8: connections.ttl: \"soon\" is no duration: "));
    assert_eq!(
        lines[4],
        format!("sr.toml:9: connections.cleanup_interval: expected a string, found an integer {allowed}")
    );
    assert!(lines[5].starts_with("sr.toml:10: connections.max_entries: 100 is out of range"));
}

#[test]
fn the_preferred_transport_is_dialled_first_and_each_ones_addresses_keep_their_order() {
    let [a, b] = ["/ip4/192.0.2.2/tcp/4001", "/ip4/192.0.2.3/tcp/4001"];
    let [c, d] = [
        "/ip4/192.0.2.2/udp/4001/quic-v1",
        "/ip4/192.0.2.3/udp/4001/quic-v1",
    ];
    let dialled = |transport: &str| {
        let text = format!(
            "[device]\naddresses = [\"10.42.0.1/24\"]\n{transport}\n[[peer]]\nid = \"{}\"\n\
             addresses = [\"{c}\", \"{a}\", \"{b}\", \"{d}\"]\nallowed_ips = [\"10.42.0.2/32\"]\n",
            A
        );
        let config = Config::parse(&text, Path::new("sr.toml")).unwrap();
        let addresses = config.peers()[0].addresses().iter();
        addresses.map(ToString::to_string).collect::<Vec<_>>()
    };

    assert_eq!(dialled(""), [a, b, c, d]);
    assert_eq!(dialled("[transport]\nprefer = [\"tcp\"]"), [a, b, c, d]);
    assert_eq!(dialled("[transport]\nprefer = [\"quic\", \"tcp\"]"), [c, d, a, b]);
}

#[test]
fn wrong_transports_and_stream_numbers_are_reported() {
    let text = "[device]\naddresses = [\"10.42.0.1/24\"]\n[transport]\nprefer = [\"udp\", \"tcp\", \"tcp\"]\n\
                [streams]\nmin_per_peer = 4\nmax_per_peer = 3\nscale_down = 0.9\nthroughput_threshold = 0\n";

    let error = Config::parse(text, Path::new("sr.toml")).unwrap_err();

    let said = error.to_string();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert!(
        lines[0].starts_with("sr.toml:4: transport.prefer[0]: \"udp\" is no transport (allowed: "),
        "{said}"
    );
    assert!(
        lines[1].starts_with("sr.toml:4: transport.prefer[2]: \"tcp\" is listed twice"),
        "{said}"
    );
    assert!(
        lines[2].starts_with("sr.toml:6: streams.min_per_peer: 4 is more than streams.max_per_peer, 3"),
        "{said}"
    );
    assert!(
        lines[3].starts_with("sr.toml:8: streams.scale_down: scale_down, 0.9, is not below scale_up, 0.8"),
        "{said}"
    );
    assert!(
        lines[4].starts_with("sr.toml:9: streams.throughput_threshold: 0 is out of range"),
        "{said}"
    );
}

#[test]
fn a_peer_has_as_many_connections_as_there_are_threads_unless_it_is_said() {
    let parse = |text: &str| {
        let text = format!("[device]\naddresses = [\"10.42.0.1/24\"]\n[transport]\n{text}");
        Config::parse(&text, Path::new("sr.toml"))
    };

    let unsaid = parse("").unwrap();
    let said = parse("connections_per_peer = 2").unwrap();
    let wrong = parse("connections_per_peer = 5").unwrap_err();

    let of = |config: &Config| [1, 3, 64].map(|n_threads| config.transport().connections_per_peer(n_threads));
    assert_eq!(of(&unsaid), [1, 3, 4]);
    assert_eq!(of(&said), [2, 2, 2]);
    assert_eq!(
        wrong.problems()[0].to_string(),
        "sr.toml:4: transport.connections_per_peer: 5 is out of range (allowed: an integer from 1 to 4)"
    );
}

#[test]
fn workers_look_on_for_as_long_as_is_said() {
    let parse = |text: &str| {
        let text = format!("[device]\naddresses = [\"10.42.0.1/24\"]\n[transport]\n{text}");
        Config::parse(&text, Path::new("sr.toml"))
    };
    let micros = |text: &str| parse(text).unwrap().transport().busy_poll().as_micros();

    assert_eq!(micros(""), 0);
    assert_eq!(micros("busy_poll = \"50us\""), 50);
    assert_eq!(micros("busy_poll = \"1ms\""), 1000);
    assert_eq!(
        parse("busy_poll = \"2ms\"").unwrap_err().problems()[0].to_string(),
        "sr.toml:4: transport.busy_poll: \"2ms\" is out of range (allowed: a duration from \"0us\" to \"1ms\", such as \"100us\")"
    );
}

#[test]
fn packets_wait_for_a_peer_as_long_as_is_said() {
    let parse = |text: &str| {
        let text = format!("[device]\naddresses = [\"10.42.0.1/24\"]\n[transport]\n{text}");
        Config::parse(&text, Path::new("sr.toml"))
    };
    let seconds = |text: &str| parse(text).unwrap().transport().hold_time().as_secs();
    let wrong = |text: &str| parse(text).unwrap_err().problems()[0].to_string();

    assert_eq!(seconds(""), 3);
    assert_eq!(seconds("hold_time = \"0s\""), 0);
    assert_eq!(seconds("hold_time = \"1m\""), 60);
    assert_eq!(
        wrong("hold_time = \"61s\""),
        "sr.toml:4: transport.hold_time: \"61s\" is out of range (allowed: a duration from \"0s\" to \"60s\", such as \"3s\")"
    );
    assert!(wrong("hold_time = \"soon\"").contains("\"soon\" is no duration: "));
}

#[test]
fn a_node_that_says_nothing_has_the_default_router_but_for_what_its_memory_sets() {
    let router = |mib: u64, sections: &str| {
        let file = format!("[device]\naddresses = ['10.42.0.1/24']\n{sections}");
        let sizes = Some(Sizes::within(mib << 20));
        let config = Config::parse_sized(&file, Path::new("sr.toml"), &[], sizes).unwrap();
        config.router().clone()
    };
    let sizes = |router: StreamRouterConfig| {
        (
            router.connections().max_entries(),
            router.workers().queue_size(),
            router.workers().ring_bytes(),
        )
    };

    let usual = StreamRouterConfig::default();
    assert_eq!(sizes(usual.clone()), (262_144, 1000, 2 << 20));
    assert_eq!(
        router(2048, "[workers]\nqueue_size = 1000\n"),
        usual,
        "the rest is the same"
    );
    assert_eq!(sizes(router(2048, "")), (262_144, 1024, 2 << 20));
    assert_eq!(sizes(router(4096, "")), (262_144, 2000, 4 << 20));
    assert_eq!(sizes(router(256, "")), (32_768, 256, 512 << 10));
    assert_eq!(
        sizes(router(
            256,
            "[connections]\nmax_entries = 5000\n[workers]\nmin = 2\nqueue_size = 128\n"
        )),
        (5000, 128, 256 << 10)
    );
    assert_eq!(
        sizes(router(256, "[connections]\nshards = 2\n")).0,
        32_768,
        "a section may say other things"
    );
}

#[test]
fn a_section_that_is_none_is_reported_whatever_sizes_follow_from_memory() {
    let file = "connections = 3\n[device]\naddresses = ['10.42.0.1/24']\n";

    let error = Config::parse_sized(file, Path::new("sr.toml"), &[], Some(Sizes::within(0))).unwrap_err();

    assert_eq!(
        error.to_string(),
        "sr.toml:1: connections: expected a table, found an integer (allowed: a [connections] section)"
    );
}

#[test]
fn a_nodes_file_says_the_same_as_the_library_in_the_same_words() {
    let sections = r#"
        [workers]
        min = 2
        max = 16
        initial = 3
        queue_size = 500
        threads = 2
        scale_interval = "1s 500ms"
        scale_up = 0.7
        scale_down = 0.2
        [connections]
        ttl = "30s"
        cleanup_interval = "10s"
        max_entries = 8192
        shards = 4
        [streams]
        min_per_peer = 2
        max_per_peer = 5
        throughput_threshold = 1000
        scale_interval = "2s"
        scale_up = 0.9
        scale_down = 0.4
    "#;

    let deserialized: StreamRouterConfig = toml::from_str(sections).unwrap();
    let file = format!("{sections}\n[device]\naddresses = ['10.42.0.1/24']\n");
    let of_node = Config::parse(&file, Path::new("sr.toml")).unwrap();

    assert_ne!(deserialized, StreamRouterConfig::default());
    assert_eq!(*of_node.router(), deserialized);
}

#[test]
fn a_rate_and_a_mark_have_bounds_and_by_default_there_are_none() {
    use stream_router::p2p::Dscp;

    let text = |dscp: &str, rate: &str| {
        format!(
            "[device]\naddresses = ['10.42.0.1/24']\n[transport]\n{dscp}\n\
             [[peer]]\nid = '{A}'\nallowed_ips = ['10.42.0.2/32']\n{rate}\n"
        )
    };
    let read = |dscp, rate| {
        let config = parse(&text(dscp, rate)).unwrap();
        (config.transport().dscp(), config.peers()[0].rate().map(u32::from))
    };

    assert_eq!(read("", ""), (Dscp::default(), None));
    assert_eq!(
        read("dscp = 46", "rate = 8000"),
        (Dscp::new(46).unwrap(), Some(8000))
    );
    assert_eq!(
        problems_of(&text("dscp = 64", "rate = 7999")),
        [
            "sr.toml:4: transport.dscp: 64 is out of range (allowed: an integer from 0 to 63)",
            "sr.toml:8: peer[0].rate: 7999 is out of range (allowed: an integer from 8000 to 4294967295)"
        ]
    );
}

#[test]
fn sockets_are_marked_unless_it_is_said_that_they_are_not_and_then_no_network_may_need_it() {
    let text = |fwmark: &str, net: &str, rest: &str| {
        format!(
            "[device]\naddresses = ['10.42.0.1/24']\n[transport]\n{fwmark}\n\
             [[peer]]\nid = '{A}'\naddresses = ['/ip4/192.0.2.2/tcp/4001']\nallowed_ips = ['{net}']\n{rest}\n"
        )
    };
    let mark = |fwmark: &str| {
        let config = parse(&text(fwmark, "10.42.0.2/32", "")).unwrap();
        config.transport().fwmark().map(u32::from)
    };

    assert_eq!(mark(""), Some(0x2053));
    assert_eq!(mark("fwmark = 0xCA6C"), Some(51820));
    assert_eq!(mark("fwmark = 0"), None);
    let allowed = "(allowed: networks without the peers' own addresses and without override, or a transport.fwmark \
                   above 0)";
    for net in ["0.0.0.0/0", "128.0.0.0/1", "192.0.0.0/8"] {
        assert!(parse(&text("", net, "")).is_ok(), "{net}");
        assert_eq!(
            problems_of(&text("fwmark = 0", net, "")),
            [format!(
                "sr.toml:8: peer[0].allowed_ips[0]: {net} would take the node's own packets to peers as well, as \
                 transport.fwmark is 0 {allowed}"
            )]
        );
    }
    assert_eq!(
        problems_of(&text("fwmark = 0", "10.42.0.2/32", "override = true")),
        [format!(
            "sr.toml:8: peer[0].allowed_ips[0]: 10.42.0.2/32 cannot go before the host's own networks, as \
             transport.fwmark is 0 {allowed}"
        )]
    );
}

#[test]
fn an_uplink_is_a_device_or_an_address_and_no_other_is_the_same() {
    let parse = |text: &str| {
        let text = format!("[device]\naddresses = [\"10.42.0.1/24\"]\n{text}");
        Config::parse(&text, Path::new("sr.toml"))
    };
    let read = parse(
        "[[transport.uplink]]\ndevice = 'wan0'\n[[transport.uplink]]\nsource = '2001:db8::1'\nweight = 3\ncost = 7\n\
         [[transport.uplink]]\ndevice = 'lte0'\nmetered = true\n",
    )
    .unwrap();
    let uplinks = read.transport().uplinks();
    let shown: Vec<_> = uplinks
        .iter()
        .map(|uplink| (uplink.by.to_string(), uplink.weight, is_metered(uplink)))
        .collect();
    assert_eq!(
        shown,
        [
            ("wan0".to_owned(), 1, false),
            ("2001:db8::1".to_owned(), 3, false),
            ("lte0".to_owned(), 1, true)
        ]
    );
    assert!(uplinks[0].cost < uplinks[1].cost && uplinks[1].cost < uplinks[2].cost);

    let five = [1, 2, 3, 4, 5].map(|last| format!("[[transport.uplink]]\nsource = '192.0.2.{last}'\n"));
    let five = five.concat();
    for (text, expected) in [
        (
            "[[transport.uplink]]\n",
            "transport.uplink[0]: nothing says which uplink it is",
        ),
        (
            "[[transport.uplink]]\ndevice = 'a/b'\n",
            "\"a/b\" cannot name an interface",
        ),
        (
            "[[transport.uplink]]\nsource = '127.0.0.1'\n",
            "\"127.0.0.1\" is no address that connections leave from",
        ),
        (
            "[[transport.uplink]]\nsource = 'wan0'\n",
            "\"wan0\" is no address",
        ),
        (
            "[[transport.uplink]]\nsource = '192.0.2.1'\ndevice = 'wan0'\n",
            "the uplink has a device already",
        ),
        (
            "[[transport.uplink]]\ndevice = 'wan0'\nweight = 0\n",
            "0 is out of range",
        ),
        (
            "[[transport.uplink]]\ndevice = 'wan0'\ncost = 1001\n",
            "1001 is out of range",
        ),
        (
            "[[transport.uplink]]\ndevice = 'wan0'\n[[transport.uplink]]\ndevice = 'wan0'\nweight = 2\n",
            "wan0 is also",
        ),
        (&five, "there are 5 uplinks"),
    ] {
        let said = parse(text).unwrap_err().to_string();
        assert!(said.contains(expected), "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
