//! Names that a TUN device can have.

/// Name of the device unless told otherwise.
pub(super) const DEFAULT_NAME: &str = "sr0";

/// Longest interface name: `IFNAMSIZ` without its terminating zero.
pub(super) const MAX_NAME_LEN: usize = 15;

/// What such a name looks like.
pub(super) const NAME_ALLOWED: &str =
    "1 to 15 of the characters A-Z a-z 0-9 _ -, not \"all\", \"default\" or \"lo\"";

/// Returns whether an interface can have this name.
pub(super) fn is_device_name(name: &str) -> bool {
    // Narrower than the kernel: '%' is a pattern to it, and bpffs refuses the '.' when maps are pinned under the name.
    (1..=MAX_NAME_LEN).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && !["all", "default", "lo"].contains(&name)
}
