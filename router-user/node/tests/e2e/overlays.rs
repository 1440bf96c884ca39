//! Networks on top of the tunnel: their packets are unfinished inside of headers that no offload of a device describes.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::support::{NODE, machine};
use xtask::lab::probe::{IperfServer, PingPlan, iperf};
use xtask::lab::process::patience;
use xtask::lab::{Namespace, Pair, PairPlan, Side, link};

/// A rate that retransmissions alone do not reach: of packets that get lost whenever they hold several segments, a few pass in
/// each 200 ms. A debug build on a busy machine does, also in an emulated one that is given ten times as long.
const FLOOR_BITS_PER_SECOND: f64 = 10e6;

/// A pod of each side, at a bridge that a VXLAN device of its node joins to the other's.
struct Pods {
    pods: [Namespace; 2],
    at: [IpAddr; 2],
    _pair: Pair,
}

impl Pods {
    fn start(v6: bool, options: &[&str]) -> Result<Self> {
        let pair = Pair::start(Path::new(NODE), &PairPlan::unique())?;
        let pods = [Namespace::unique("pod")?, Namespace::unique("pod")?];
        join(&pair.a, &pair.b, v6, options, &pods[0], "10.77.0.1/24")?;
        join(&pair.b, &pair.a, v6, options, &pods[1], "10.77.0.2/24")?;
        Ok(Self {
            pods,
            at: ["10.77.0.1".parse()?, "10.77.0.2".parse()?],
            _pair: pair,
        })
    }
}

/// Puts a pod at a bridge of `own` whose packets go to that of `other` by VXLAN.
fn join(own: &Side, other: &Side, v6: bool, options: &[&str], pod: &Namespace, address: &str) -> Result<()> {
    let pick = |side: &Side| if v6 { side.v6 } else { side.v4 }.to_string();
    let (local, remote) = (pick(own), pick(other));
    let host = &own.host;
    let vxlan = [
        "link", "add", "vx0", "mtu", "1350", "type", "vxlan", "id", "100", "dstport", "4789",
    ];
    host.ip(&[&vxlan[..], &["local", &local, "remote", &remote], options].concat())?;
    host.ip(&["link", "add", "br0", "mtu", "1350", "type", "bridge"])?;
    link((pod, "eth0", &[address]), (host, "pod0", &[]))?;
    pod.ip(&["link", "set", "eth0", "mtu", "1350"])?;
    for device in ["vx0", "pod0"] {
        host.ip(&["link", "set", device, "master", "br0", "up"])?;
    }
    host.ip(&["link", "set", "br0", "up"])?;
    Ok(())
}

#[test]
fn pods_reach_each_other_over_vxlan() {
    let _machine = machine::alone();
    for (v6, options) in [
        (false, &["noudpcsum"][..]),
        (false, &["udpcsum"]),
        (true, &[]),
        (true, &["udp6zerocsumtx", "udp6zerocsumrx"]),
    ] {
        let what = format!("IPv6 {v6}, {options:?}");
        let pods = Pods::start(v6, options).unwrap();
        let [from, to] = &pods.pods;

        let pings = PingPlan {
            payload_bytes: 3000,
            ..PingPlan::new(pods.at[1])
        }
        .run(from)
        .unwrap();
        assert_eq!(pings.n_received, 3, "{what}");
        let _server = IperfServer::start(to).unwrap();
        for args in [&[][..], &["--reverse"]] {
            let report = iperf(from, pods.at[1], Duration::from_secs(2), args).unwrap();
            eprintln!(
                "{what} {args:?}: {:.0} Mbit/s",
                report.received_bits_per_second / 1e6
            );
            assert!(
                report.received_bits_per_second > FLOOR_BITS_PER_SECOND / f64::from(patience()),
                "{what} {args:?}: {report:?}"
            );
        }
    }
}
