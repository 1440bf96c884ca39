//! What the running kernel can do, as far as the node has tried it.

use std::path::Path;

use crate::control::{GatewayStatus, KernelFeature, KernelStatus};

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Returns the kernel's release and the features that were tried.
pub(super) fn look(
    offloads: &Result<(), String>,
    pins: Option<&Path>,
    gateways: &[GatewayStatus],
) -> KernelStatus {
    let release = match nix::sys::utsname::uname() {
        Ok(name) => name.release().to_string_lossy().into_owned(),
        Err(error) => format!("unknown: {error}"),
    };
    let mut features = vec![
        feature(
            "btf",
            Path::new(BTF).exists(),
            format!("types of the kernel, at {BTF}"),
        ),
        feature(
            "packet_offloads",
            offloads.is_ok(),
            match offloads {
                Ok(()) => "the egress program sees what of a packet is open".to_owned(),
                Err(why) => format!("more packets go by way of the device: {why}"),
            },
        ),
        feature(
            "bpffs",
            pins.is_some(),
            match pins {
                Some(path) => format!("programs and maps are pinned at {}", path.display()),
                None => format!(
                    "no BPF file system at {}, so nothing is pinned",
                    crate::kernel::BPFFS
                ),
            },
        ),
    ];
    for gateway in gateways {
        let name = &gateway.interface;
        let reason =
            |reason: &Option<String>| reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
        // By TC nobody has asked the driver.
        if gateway.mode != "tc" {
            features.push(feature(
                "xdp_native",
                gateway.mode == "native",
                format!("the driver of {name}{}", reason(&gateway.reason)),
            ));
        }
        if gateway.sink.starts_with("AF_XDP") {
            features.push(feature(
                "af_xdp_zero_copy",
                gateway.sink == "AF_XDP, zero-copy",
                format!("the driver of {name}{}", reason(&gateway.sink_reason)),
            ));
        }
    }
    KernelStatus { release, features }
}

fn feature(name: &str, available: bool, detail: String) -> KernelFeature {
    KernelFeature {
        name: name.to_owned(),
        available,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(mode: &str, sink: &str, reason: Option<&str>) -> GatewayStatus {
        GatewayStatus {
            interface: "lan0".to_owned(),
            mode: mode.to_owned(),
            reason: reason.map(str::to_owned),
            sink: sink.to_owned(),
            sink_reason: None,
        }
    }

    fn features(pins: Option<&Path>, gateways: &[GatewayStatus]) -> Vec<(String, bool, String)> {
        let features = look(&Err("locked down".to_owned()), pins, gateways);
        let features = features.features.into_iter();
        features
            .map(|one| (one.name, one.available, one.detail))
            .collect()
    }

    #[test]
    fn without_a_gateway_no_driver_was_tried() {
        let features = features(Some(Path::new("/sys/fs/bpf/x")), &[]);

        let names: Vec<_> = features.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["btf", "packet_offloads", "bpffs"]);
        assert!(!features[1].1);
        assert_eq!(features[1].2, "more packets go by way of the device: locked down");
        assert!(features[2].1);
        assert!(features[2].2.ends_with("/sys/fs/bpf/x"));
    }

    #[test]
    fn a_gateway_shows_what_its_driver_can_and_why_not() {
        let generic = gateway("generic", "ring buffer", Some("not supported"));
        let native = gateway("native", "AF_XDP, copy mode", None);

        let tc = gateway("tc", "ring buffer", None);

        let features = features(None, &[generic, tc, native]);

        assert!(!features[2].1, "nothing is pinned");
        assert_eq!(
            features[3..],
            [
                (
                    "xdp_native".to_owned(),
                    false,
                    "the driver of lan0: not supported".to_owned()
                ),
                ("xdp_native".to_owned(), true, "the driver of lan0".to_owned()),
                (
                    "af_xdp_zero_copy".to_owned(),
                    false,
                    "the driver of lan0".to_owned()
                ),
            ]
        );
    }
}
