//! Why the kernel side could not be set up.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// Why the kernel side could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The object was built for other layouts.
    #[error(
        "the eBPF object has ABI version {found:?}, this program needs {needed}; build both with `cargo xtask build`"
    )]
    Abi {
        /// What the object says, if anything.
        found: Option<u32>,
        /// What this program was built with.
        needed: u32,
    },
    /// The process may not use BPF.
    #[error(
        "not permitted to load eBPF programs; run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NotPermitted(#[source] Box<dyn Error + Send + Sync>),
    /// The kernel refused the object.
    #[error("the kernel refused {what}; Linux 5.19 or newer with CONFIG_BPF_SYSCALL is needed")]
    Load {
        /// Which part.
        what: &'static str,
        /// What the kernel or the loader said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A map or program is missing from the object.
    #[error("the eBPF object has no {name}; build it with `cargo xtask build-ebpf`")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A map operation failed.
    #[error("cannot {action} map {map}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// Which map.
        map: &'static str,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The ring of a worker could not be made.
    #[error("cannot make the ring of worker {worker} ({bytes} bytes)")]
    Ring {
        /// Which worker.
        worker: u32,
        /// Size asked for.
        bytes: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program could not be attached.
    #[error(
        "cannot attach to the egress of {device}; the kernel needs CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF"
    )]
    Attach {
        /// Which device.
        device: String,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The program could not be attached to a gateway interface.
    #[error(
        "cannot attach to the ingress of {interface} ({native}; the kernel's receive path refused too); take another \
         XDP program off it, or remove its [[gateway]] section"
    )]
    AttachGateway {
        /// Which interface.
        interface: String,
        /// Why not in the driver.
        native: String,
        /// Why not in the receive path.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The program could not be attached to a gateway interface behind the kernel's merging of frames.
    #[error(
        "cannot attach to the ingress of {interface} by TC, which needs Linux 6.6; hook = \"xdp\" does without"
    )]
    AttachGatewayTc {
        /// Which interface.
        interface: String,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The sockets of a gateway interface could not be opened.
    #[error(
        "cannot receive from {interface} by AF_XDP sockets, which need 8 MiB of locked memory for each receive queue \
         (`ulimit -l`, LimitMEMLOCK=); sink = \"ring\" does without them"
    )]
    Sockets {
        /// Which interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pin directory could not be prepared.
    #[error("cannot {action} {}", path.display())]
    Pins {
        /// What was tried.
        action: &'static str,
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl KernelError {
    /// Tells a lack of privilege from other refusals.
    pub(super) fn load(what: &'static str, error: impl Error + Send + Sync + 'static) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            let errno = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error);
            // EACCES is the verifier's, which says what it refused.
            if errno == Some(Errno::EPERM as i32) {
                return Self::NotPermitted(Box::new(error_text(error)));
            }
            cause = error.source();
        }
        Self::Load {
            what,
            source: Box::new(error),
        }
    }
}

fn error_text(error: &dyn Error) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, error.to_string())
}
