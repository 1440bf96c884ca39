//! Checks by trial what cannot be told otherwise: makes device, programs and hook in a network namespace that ends with
//! it.

use std::error::Error;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::finding::Finding;
use super::input::CheckInput;
use crate::config::{Config, Hook, Sink};
use crate::device::{Device, DeviceError, DeviceSettings, TunError};
use crate::kernel::{GatewayHook, Kernel, KernelConfig, KernelError, SocketPool};

const DEVICE: &str = "sr-doctor";
const MTU: u32 = 1420;
/// Flows in the trial's table, as few as possible: the memory is not used.
const MAX_FLOWS: u32 = 4096;
const RING_BYTES: u32 = 1 << 20;

/// The outcome of the trial; `None` for what was not tried.
#[derive(Debug, Default)]
struct Trial {
    /// Why no namespace could be made.
    not_isolated: Option<String>,
    device: Option<Result<(), DeviceError>>,
    programs: Option<Result<(), KernelError>>,
    hook: Option<Result<(), KernelError>>,
    /// Why the egress program does not see a packet's offloads, if it does not.
    offloads: Option<Result<(), String>>,
    gateway: Option<Result<(), KernelError>>,
    sockets: Option<std::io::Result<()>>,
}

/// Makes everything, removes it again, and judges the outcome.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    let gateways = input.config.gateways();
    let hooks = hooks(&input.config);
    let with_sockets = gateways.iter().any(|gateway| gateway.sink() != Sink::Ring);
    // A thread of its own: the namespace is the thread's, and goes with it.
    let trial = std::thread::spawn(move || Trial::run(&hooks, with_sockets)).join();
    match trial {
        Ok(Ok(trial)) => trial.judge(),
        Ok(Err(error)) => vec![Finding::unknown("programs", format!("cannot be tried: {error}"))],
        Err(_panic) => vec![Finding::unknown(
            "programs",
            "cannot be tried: a defect of doctor",
        )],
    }
}

impl Trial {
    fn run(hooks: &[GatewayHook], with_sockets: bool) -> std::io::Result<Self> {
        let mut trial = Self::default();
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            trial.not_isolated = Some(errno.desc().to_owned());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Without a namespace nothing is made that others could see.
        let device = trial.not_isolated.is_none().then(|| {
            runtime.block_on(Device::create(DeviceSettings {
                name: DEVICE,
                addresses: &[],
                mtu: MTU,
            }))
        });
        let kernel = Kernel::load(&KernelConfig {
            device: DEVICE.to_owned(),
            ring_bytes: RING_BYTES,
            device_mtu: MTU,
            flow_ttl: Duration::from_secs(5),
            max_connections: MAX_FLOWS,
            // No BPF file system, so nothing is pinned.
            bpffs: "/proc".into(),
        });
        if let Ok(kernel) = &kernel {
            trial.offloads = Some(kernel.offloads.clone());
            trial.hook = matches!(device, Some(Ok(_))).then(|| kernel.programs.attach_egress());
            let mut loaded = hooks.iter().map(|hook| kernel.programs.load_gateway(*hook));
            trial.gateway = loaded.next().map(|first| first.and_then(|()| loaded.collect()));
        }
        trial.sockets = with_sockets.then(SocketPool::try_socket);
        trial.programs = Some(kernel.and_then(|kernel| kernel.rings.open(0).map(drop)));
        trial.device = device.map(|device| device.map(drop));
        Ok(trial)
    }

    fn judge(self) -> Vec<Finding> {
        let mut findings = Vec::new();
        match (&self.not_isolated, self.device) {
            (Some(why), _) => findings.push(Finding::unknown(
                "tun",
                format!("not tried: no network namespace to try it in ({why}); run doctor as root"),
            )),
            (None, Some(Err(error))) => findings.push(judge_device(&error)),
            (None, _) => findings.push(Finding::ok("tun", "a TUN device with offloads can be made")),
        }
        let tried = [
            (
                "programs",
                "the verifier takes the egress program, and a worker's ring can be made",
                self.programs,
            ),
            ("hook", "the egress program can be attached", self.hook),
            (
                "gateway_program",
                "the verifier takes the gateway program",
                self.gateway,
            ),
        ];
        for (check, fine, outcome) in tried {
            match outcome {
                Some(Ok(())) => findings.push(Finding::ok(check, fine)),
                Some(Err(error)) => findings.push(judge_refusal(check, &error)),
                None => {}
            }
        }
        match self.offloads {
            Some(Ok(())) => findings.push(Finding::ok(
                "packet_offloads",
                "the egress program sees what of a packet is open",
            )),
            Some(Err(why)) => findings.push(Finding::warning(
                "packet_offloads",
                format!(
                    "{why}; UDP and tunnel packets with finished checksums take the slower way through the device"
                ),
            )),
            None => {}
        }
        match self.sockets {
            Some(Ok(())) => findings.push(Finding::ok("af_xdp", "AF_XDP sockets can be opened")),
            Some(Err(error)) => findings.push(Finding::problem(
                "af_xdp",
                format!("no AF_XDP socket: {error}; the kernel needs CONFIG_XDP_SOCKETS, or a gateway sink = \"ring\""),
            )),
            None => {}
        }
        findings
    }
}

/// Returns the hooks that the gateways may be at.
fn hooks(config: &Config) -> Vec<GatewayHook> {
    let may_be = |hook: Hook| {
        let mut gateways = config.gateways().iter();
        gateways.any(|gateway| [hook, Hook::Auto].contains(&gateway.hook()))
    };
    let hooks = [(Hook::Tc, GatewayHook::Tc), (Hook::Xdp, GatewayHook::Xdp)];
    let hooks = hooks.into_iter().filter(|(hook, _)| may_be(*hook));
    hooks.map(|(_, hook)| hook).collect()
}

fn judge_device(error: &DeviceError) -> Finding {
    let finding = Finding::problem("tun", chain(error));
    match error {
        DeviceError::Tun(TunError::NoDriver(_)) => finding.fix("modprobe tun"),
        _ => finding,
    }
}

fn judge_refusal(check: &'static str, error: &KernelError) -> Finding {
    match error {
        KernelError::NotPermitted(_) => {
            Finding::problem(check, error.to_string()).fix("sudo stream-router doctor")
        }
        KernelError::Attach { .. } => {
            Finding::problem(check, chain(error)).fix("modprobe -a sch_ingress cls_bpf")
        }
        _ => Finding::problem(check, chain(error)),
    }
}

/// Returns the text of an error with its causes. Of a long one, such as the verifier's, the beginning is enough.
fn chain(error: &(dyn Error + 'static)) -> String {
    const MAX_CHARS: usize = 400;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX_CHARS {
        return line;
    }
    format!("{}...", line.chars().take(MAX_CHARS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn what_was_not_tried_is_not_called_good() {
        let findings = Trial {
            not_isolated: Some("EPERM".to_owned()),
            programs: Some(Err(KernelError::NotPermitted("EPERM".into()))),
            ..Trial::default()
        }
        .judge();

        let verdicts: Vec<_> = findings.iter().map(|one| (one.check, one.verdict)).collect();
        assert_eq!(
            verdicts,
            [("tun", Verdict::Unknown), ("programs", Verdict::Problem)]
        );
    }

    #[test]
    fn a_refusal_is_named_with_what_fixes_it() {
        let no_driver = DeviceError::Tun(TunError::NoDriver(io::ErrorKind::NotFound.into()));
        let attach = KernelError::Attach {
            device: DEVICE.to_owned(),
            source: "no such file".into(),
        };
        let trial = Trial {
            device: Some(Err(no_driver)),
            programs: Some(Ok(())),
            hook: Some(Err(attach)),
            gateway: Some(Ok(())),
            offloads: Some(Err("locked down".to_owned())),
            sockets: Some(Err(io::ErrorKind::Unsupported.into())),
            ..Trial::default()
        };

        let findings = trial.judge();
        let fixes: Vec<_> = findings
            .iter()
            .map(|one| (one.check, one.fix.as_deref()))
            .collect();
        assert_eq!(
            fixes,
            [
                ("tun", Some("modprobe tun")),
                ("programs", None),
                ("hook", Some("modprobe -a sch_ingress cls_bpf")),
                ("gateway_program", None),
                ("packet_offloads", None),
                ("af_xdp", None),
            ]
        );
        assert_eq!(findings[4].verdict, Verdict::Warning);
        assert!(findings[4].detail.starts_with("locked down; "));
        assert_eq!(findings[5].verdict, Verdict::Problem);
    }
}
