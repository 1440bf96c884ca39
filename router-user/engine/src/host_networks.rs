//! The host's own networks that a peer's prefix would otherwise take.

use std::collections::BTreeSet;

use ipnet::IpNet;

/// Returns the networks of the host that lie inside a prefix of a peer. A prefix that both have is the peer's.
pub fn inside_peers(host: &BTreeSet<IpNet>, peers: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let inside = |net: &&IpNet| !peers.contains(net) && wider(**net).any(|net| peers.contains(&net));
    host.iter().filter(inside).copied().collect()
}

/// Returns every shorter prefix that contains `net`: at most 128, however many peers and routes there are.
fn wider(net: IpNet) -> impl Iterator<Item = IpNet> {
    let prefix = move |len| IpNet::new(net.addr(), len).ok();
    (0..net.prefix_len()).filter_map(prefix).map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets<const N: usize>(texts: [&str; N]) -> BTreeSet<IpNet> {
        texts.map(|text| text.parse().unwrap()).into()
    }

    #[test]
    fn only_what_a_wider_prefix_of_a_peer_holds_is_kept_from_it() {
        let host = nets([
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.0/24",
            "192.168.7.1/32",
            "::/0",
            "fd00::/64",
            "fe80::/64",
        ]);

        assert_eq!(
            inside_peers(&host, &nets(["10.1.0.0/16", "fd00::/8"])),
            nets(["10.1.2.0/24", "fd00::/64"])
        );
        assert_eq!(
            inside_peers(&host, &nets(["0.0.0.0/0"])),
            nets(["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.168.7.1/32"])
        );
        assert_eq!(inside_peers(&host, &nets(["172.16.0.0/12"])), nets([]));
    }
}
