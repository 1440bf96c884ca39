//! What the running kernel can do, as far as the node has tried it.

use std::path::Path;

use crate::control::{GatewayStatus, KernelFeature, KernelStatus};

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Returns the kernel's release and the features that were tried.
pub(super) fn look(pins: Option<&Path>, gateways: &[GatewayStatus]) -> KernelStatus {
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
        features.push(feature(
            "xdp_native",
            gateway.mode == "native",
            format!("the driver of {name}{}", reason(&gateway.reason)),
        ));
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
