//! Checks what the host does with packets that come out of the tunnel: reverse-path filter, forwarding, IPv6.

use super::finding::Finding;
use super::input::CheckInput;
use super::sysctl::read;

/// Checks the settings that apply to the device, or will apply when it is made.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    let device = input.config.device();
    let own = |family: &str, name: &str| {
        let of_device = read(&format!("net.{family}.conf.{}.{name}", device.name()));
        of_device.or_else(|| read(&format!("net.{family}.conf.default.{name}")))
    };
    let all = read("net.ipv4.conf.all.rp_filter");
    let mut findings = vec![judge_rp_filter(
        all.as_deref(),
        own("ipv4", "rp_filter").as_deref(),
    )];
    let prefixes: Vec<_> = input
        .config
        .peers()
        .iter()
        .flat_map(|peer| peer.allowed_ips())
        .collect();
    let has_gateway = !input.config.gateways().is_empty();
    let families = [
        ("net.ipv4.ip_forward", true),
        (
            "net.ipv6.conf.all.forwarding",
            prefixes.iter().any(|net| net.addr().is_ipv6()),
        ),
    ];
    for (name, is_used) in families {
        if is_used {
            findings.push(judge_forwarding(name, read(name).as_deref(), has_gateway));
        }
    }
    if device.addresses().iter().any(|address| address.addr().is_ipv6()) {
        findings.push(judge_ipv6(device.name(), own("ipv6", "disable_ipv6").as_deref()));
    }
    findings
}

/// Judges the reverse-path filter. The kernel takes the larger of the two values: 0 none, 1 strict, 2 loose.
fn judge_rp_filter(all: Option<&str>, own: Option<&str>) -> Finding {
    const CHECK: &str = "rp_filter";
    let (Some(all), Some(own)) = (all, own) else {
        return Finding::unknown(CHECK, "net.ipv4.conf.all.rp_filter cannot be read");
    };
    match all.max(own) {
        "0" => Finding::ok(CHECK, "off"),
        "1" => Finding::warning(
            CHECK,
            "strict: the host drops what comes from a peer's address that it routes elsewhere, without a trace",
        )
        .fix("sysctl -w net.ipv4.conf.all.rp_filter=2"),
        _ => Finding::ok(CHECK, "loose"),
    }
}

fn judge_forwarding(name: &'static str, value: Option<&str>, has_gateway: bool) -> Finding {
    const CHECK: &str = "forwarding";
    let finding = match value {
        None => Finding::unknown(CHECK, "cannot be read"),
        Some("0") if has_gateway => Finding::problem(
            CHECK,
            "off: what peers answer to the gateway's network goes nowhere",
        )
        .fix(format!("sysctl -w {name}=1")),
        Some("0") => Finding::ok(CHECK, "off, as long as only this host itself uses the tunnel"),
        Some(_) => Finding::ok(CHECK, "on"),
    };
    finding.about(name)
}

fn judge_ipv6(device: &str, disabled: Option<&str>) -> Finding {
    const CHECK: &str = "ipv6";
    match disabled {
        Some("0") => Finding::ok(CHECK, "on"),
        Some(_) => Finding::problem(
            CHECK,
            format!("turned off, but {device} is to have an IPv6 address"),
        )
        .fix("sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0"),
        None => Finding::problem(
            CHECK,
            format!("the kernel has none, but {device} is to have an IPv6 address"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn the_larger_reverse_path_filter_counts() {
        for (all, own, verdict) in [
            ("0", "0", Verdict::Ok),
            ("1", "0", Verdict::Warning),
            ("0", "1", Verdict::Warning),
            ("2", "1", Verdict::Ok),
            ("1", "2", Verdict::Ok),
        ] {
            assert_eq!(
                judge_rp_filter(Some(all), Some(own)).verdict,
                verdict,
                "{all} {own}"
            );
        }
        assert_eq!(judge_rp_filter(None, Some("0")).verdict, Verdict::Unknown);
    }

    #[test]
    fn only_a_gateway_needs_forwarding() {
        let judged = |value, has_gateway| judge_forwarding("net.ipv4.ip_forward", value, has_gateway);
        assert_eq!(judged(Some("0"), false).verdict, Verdict::Ok);
        assert_eq!(judged(Some("1"), true).verdict, Verdict::Ok);
        assert_eq!(judged(None, true).verdict, Verdict::Unknown);
        let off = judged(Some("0"), true);
        assert_eq!(off.verdict, Verdict::Problem);
        assert_eq!(off.fix.as_deref(), Some("sysctl -w net.ipv4.ip_forward=1"));
    }

    #[test]
    fn an_ipv6_address_needs_ipv6() {
        assert_eq!(judge_ipv6("sr0", Some("0")).verdict, Verdict::Ok);
        assert_eq!(judge_ipv6("sr0", Some("1")).verdict, Verdict::Problem);
        assert_eq!(judge_ipv6("sr0", None).verdict, Verdict::Problem);
    }
}
