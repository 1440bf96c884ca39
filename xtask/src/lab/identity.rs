//! Names that tell which process made a thing.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

const NAME_PREFIX: &str = "sr-t";
const DEVICE_PREFIX: char = 't';

/// Returns a name for a namespace or directory that no other process and no other call gives out.
pub fn unique_name(label: &str) -> String {
    format!("{NAME_PREFIX}{}-{}-{label}", process::id(), next())
}

/// Returns a device name that no other process and no other call gives out, within the kernel's 15 bytes.
pub fn unique_device() -> String {
    format!("{DEVICE_PREFIX}{}x{}", process::id(), next())
}

/// Returns the process that made a thing with this name, if it is a name of ours.
pub(super) fn maker(name: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix(NAME_PREFIX)?.split_once('-')?;
    pid.parse().ok()
}

/// Returns the process that made a device with this name, if it is a name of ours.
pub(super) fn device_maker(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix(DEVICE_PREFIX)?.split_once('x')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn next() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unique_name_tells_its_maker() {
        assert_eq!(maker(&unique_name("left")), Some(process::id()));
        assert_eq!(device_maker(&unique_device()), Some(process::id()));
    }

    #[test]
    fn foreign_names_have_no_maker() {
        for name in ["sr-demo-a", "sr-t12", "sr-tx-0-a", "default"] {
            assert_eq!(maker(name), None, "{name}");
        }
        for name in ["tun0", "tailscale0", "t12xy", "sr0"] {
            assert_eq!(device_maker(name), None, "{name}");
        }
    }

    #[test]
    fn the_longest_device_name_fits_the_kernel() {
        let longest = format!("{DEVICE_PREFIX}{}x{}", 4_194_304, 999_999);

        assert!(longest.len() <= 15);
    }
}
