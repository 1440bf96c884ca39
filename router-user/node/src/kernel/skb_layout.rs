//! Where the running kernel keeps what it knows of a packet's offloads, from its type information (BTF).

use std::path::Path;

use btf_rs::{Btf, Struct, Type};

use router_common::skb_layout::SkbLayout;

/// The type information of the running kernel.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const SKB: &str = "sk_buff";
const SHARED_INFO: &str = "skb_shared_info";

/// Returns the layout of the running kernel's socket buffers, or why it cannot be known.
pub(super) fn running() -> Result<SkbLayout, String> {
    described_in(Path::new(VMLINUX))
}

fn described_in(file: &Path) -> Result<SkbLayout, String> {
    let shown = file.display();
    if !file.exists() {
        return Err(format!(
            "there is no {shown}: the kernel was built without CONFIG_DEBUG_INFO_BTF"
        ));
    }
    let btf = Btf::from_file(file).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    layout(&btf).ok_or_else(|| format!("{shown} does not say where a packet's offloads are"))
}

fn layout(btf: &Btf) -> Option<SkbLayout> {
    let skb = structure(btf, SKB)?;
    let shared_info = structure(btf, SHARED_INFO)?;
    let bits = |name| bit_offset(btf, &skb, name);
    let bytes = |name| bits(name).map(|bits| bits / 8);
    let ip_summed = bits("ip_summed")?;
    // Only kernels with SCTP have it.
    let csum_not_inet = bits("csum_not_inet");
    Some(SkbLayout {
        ip_summed: ip_summed / 8,
        ip_summed_shift: ip_summed % 8,
        csum_not_inet: csum_not_inet.map_or(0, |bits| bits / 8),
        csum_not_inet_mask: csum_not_inet.map_or(0, |bits| 1 << (bits % 8)),
        csum_start: bytes("csum_start")?,
        inner_network_header: bytes("inner_network_header")?,
        mac_header: bytes("mac_header")?,
        end: bytes("end")?,
        head: bytes("head")?,
        gso_type: bit_offset(btf, &shared_info, "gso_type")? / 8,
    })
}

fn structure(btf: &Btf, name: &str) -> Option<Struct> {
    let types = btf.resolve_types_by_name(name).ok()?;
    types.into_iter().find_map(|found| match found {
        Type::Struct(found) => Some(found),
        _ => None,
    })
}

/// Returns where a field is, also one of a nameless structure or union inside.
fn bit_offset(btf: &Btf, structure: &Struct, name: &str) -> Option<u32> {
    structure.members.iter().find_map(|member| {
        let found = btf.resolve_name(member).ok()?;
        if found == name {
            return Some(member.bit_offset());
        }
        if !found.is_empty() {
            return None;
        }
        match btf.resolve_chained_type(member).ok()? {
            Type::Struct(inner) | Type::Union(inner) => {
                Some(member.bit_offset() + bit_offset(btf, &inner, name)?)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_says_where_everything_is() {
        let layout = running().expect("a kernel with type information");

        assert_ne!(layout, SkbLayout::default());
        assert!(layout.csum_start > layout.ip_summed);
        assert!(layout.mac_header > layout.inner_network_header);
        // Both stand in the same block, the network header before it and nothing else.
        assert_eq!(layout.head % 8, 0);
    }

    #[test]
    fn a_kernel_that_does_not_describe_itself_is_told_from_one_that_does_it_badly() {
        let missing = described_in(Path::new("/proc/no-such-file")).unwrap_err();
        let other = described_in(Path::new("/proc/self/status")).unwrap_err();

        assert_eq!(
            missing,
            "there is no /proc/no-such-file: the kernel was built without CONFIG_DEBUG_INFO_BTF"
        );
        assert!(other.starts_with("/proc/self/status cannot be read: "), "{other}");
    }
}
