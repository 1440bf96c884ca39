//! Checks what a configuration names outside of itself: files with secrets, programs, names of hosts, parts of the kernel.

use std::error::Error;
use std::fs;
use std::io;
use std::net::ToSocketAddrs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

use super::finding::Finding;
use super::input::CheckInput;
use crate::config::{Config, HooksSection};
use crate::node::NamedFile;
use stream_router::p2p::UplinkBy;
use stream_router_engine::causes::with_sources;

/// The congestion control of connections that name none.
const HOSTS_CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// How long the system's resolver may take; it need not end by itself.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// Checks everything that is named.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    let config = &input.config;
    let owner = fs::metadata(config.node().key()).ok().map(|meta| meta.uid());
    let files = NamedFile::all_of(config).into_iter();
    let mut findings: Vec<_> = files.map(|file| judge_file(&file, owner, config)).collect();
    findings.extend(hooks(config.hooks()));
    findings.extend(hosts(config).map(|(field, host, port)| {
        let outcome = look_up(&host, port);
        judge_host(field, &host, outcome)
    }));
    findings.extend(congestion(config));
    findings.extend(
        config
            .transport()
            .uplinks()
            .iter()
            .map(|uplink| judge_uplink(&uplink.by)),
    );
    findings
}

/// Judges a file that a start reads. `owner` is the user whose key it is.
fn judge_file(file: &NamedFile, owner: Option<u32>, config: &Config) -> Finding {
    let NamedFile {
        field,
        path,
        is_secret,
        outcome,
    } = file;
    let shown = path.display();
    let uid = fs::metadata(path).ok().map(|meta| meta.uid());
    let finding = match outcome {
        Ok(()) => match (uid, owner) {
            (Some(uid), Some(owner)) if *is_secret && uid != owner => Finding::problem(
                field,
                format!(
                    "{shown} belongs to the user {uid}, and the node's key to the user {owner}: a node that runs as that user \
                     cannot read it"
                ),
            )
            .fix(format!(
                "chown --reference={} {shown}",
                config.node().key().display()
            )),
            _ if *is_secret => Finding::ok(field, format!("{shown} is there and private")),
            _ => Finding::ok(field, format!("{shown} has certificates")),
        },
        Err(error) if is(error.as_ref(), io::ErrorKind::PermissionDenied) => Finding::unknown(
            field,
            format!("no permission for {shown}; run this as the node's user or as root"),
        ),
        Err(error) => {
            let finding = Finding::problem(field, format!("{}; a node does not start so", with_sources(error.as_ref())));
            match fs::metadata(path) {
                Ok(meta) if *is_secret && meta.is_file() && meta.mode() & 0o077 != 0 => {
                    finding.fix(format!("chmod 600 {shown}"))
                }
                _ => finding,
            }
        }
    };
    finding.about(shown.to_string())
}

/// Says whether an error comes from one of the system of this kind.
fn is(error: &(dyn Error + 'static), kind: io::ErrorKind) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let of_system = cause.downcast_ref::<io::Error>();
        if of_system.is_some_and(|cause| cause.kind() == kind) {
            return true;
        }
        next = cause.source();
    }
    false
}

fn hooks(section: &HooksSection) -> Vec<Finding> {
    let commands = [
        ("hooks.up", section.up()),
        ("hooks.down", section.down()),
        ("hooks.peer_up", section.peer_up()),
        ("hooks.peer_down", section.peer_down()),
    ];
    let programs = commands
        .into_iter()
        .filter_map(|(field, command)| Some((field, command.first()?)));
    programs
        .map(|(field, program)| judge_program(field, Path::new(program)))
        .collect()
}

fn judge_program(field: &'static str, program: &Path) -> Finding {
    let shown = program.display();
    let finding = match fs::metadata(program) {
        Ok(meta) if !meta.is_file() => Finding::problem(field, format!("{shown} is no program")),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
            Finding::problem(field, format!("{shown} may not be executed")).fix(format!("chmod +x {shown}"))
        }
        Ok(_) => Finding::ok(field, format!("{shown} is a program")),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::unknown(
            field,
            format!("no permission to look at {shown}; run this as the node's user or as root"),
        ),
        Err(error) => Finding::problem(field, format!("cannot find the program {shown}: {error}")),
    };
    finding.about(shown.to_string())
}

/// Returns the hosts that a node connects to beside its peers, whose names it looks up all the time.
fn hosts(config: &Config) -> impl Iterator<Item = (&'static str, String, u16)> {
    let proxy = config.transport().tcp().proxy.as_ref().map(|proxy| {
        let (host, port) = proxy.destination();
        ("transport.proxy", host, port)
    });
    let collector = config.otlp().endpoint();
    let collector = collector.map(|endpoint| ("otlp.endpoint", endpoint.host().to_owned(), endpoint.port()));
    proxy.into_iter().chain(collector)
}

/// Asks the system's resolver; `None` if it does not answer in time.
fn look_up(host: &str, port: u16) -> Option<Result<usize, io::Error>> {
    let (sender, answer) = mpsc::sync_channel(1);
    let asked = (host.to_owned(), port);
    // It goes on alone if it is late; whoever waits for it may be gone then.
    thread::spawn(move || {
        let found = asked.to_socket_addrs().map(Iterator::count);
        let _gone = sender.send(found);
    });
    answer.recv_timeout(LOOKUP_LIMIT).ok()
}

fn judge_host(field: &'static str, host: &str, outcome: Option<Result<usize, io::Error>>) -> Finding {
    const FIX: &str = "resolvectl status";
    let finding = match outcome {
        Some(Ok(1..)) => Finding::ok(field, "the name is known, or an address"),
        Some(Ok(0)) => Finding::warning(field, "the name stands for no address").fix(FIX),
        Some(Err(error)) => Finding::warning(
            field,
            format!("cannot look up the name: {error}; a node goes on trying"),
        )
        .fix(FIX),
        None => Finding::warning(
            field,
            format!("no resolver has answered within {} s", LOOKUP_LIMIT.as_secs()),
        )
        .fix(FIX),
    };
    finding.about(host)
}

/// Judges an uplink. One that is not there may come later, and the node then takes it.
fn judge_uplink(uplink: &UplinkBy) -> Finding {
    const FIELD: &str = "transport.uplink";
    let finding = match uplink.check() {
        Ok(()) => Finding::ok(FIELD, format!("connections can leave by {uplink}")),
        Err(error) => Finding::warning(FIELD, format!("{error}; the node uses it once that works")),
    };
    finding.about(uplink.to_string())
}

/// Has the kernel take the congestion control that is named, as a start does; says which one it is if none is.
fn congestion(config: &Config) -> Option<Finding> {
    const FIELD: &str = "transport.congestion";
    let Some(named) = config.transport().tcp().congestion.as_ref() else {
        let hosts = fs::read_to_string(HOSTS_CONGESTION).ok()?;
        return Some(Finding::ok(FIELD, of_host(hosts.trim())).about(hosts.trim()));
    };
    let name = named.name();
    let tried = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .and_then(|socket| setsockopt(&socket, sockopt::TcpCongestion, &name.into()));
    let finding = match tried {
        Ok(()) => Finding::ok(FIELD, "the kernel has it"),
        Err(Errno::ENOENT) => Finding::problem(
            FIELD,
            "the kernel has no such congestion control; a node does not start so",
        )
        .fix(format!("modprobe tcp_{name}")),
        Err(Errno::EPERM) => Finding::unknown(
            FIELD,
            "only those with CAP_NET_ADMIN may use it; run this as root",
        ),
        Err(errno) => Finding::unknown(FIELD, format!("the kernel does not say: {errno}")),
    };
    Some(finding.about(name))
}

/// What is to be said of the host's congestion control.
fn of_host(name: &str) -> &'static str {
    match name {
        "bbr" => "the host's",
        _ => "the host's; on paths that lose packets \"bbr\" carries many times as much",
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::super::finding::Verdict;
    use super::*;
    use xtask::lab::ScratchDir;

    #[test]
    fn a_secret_is_judged_by_what_a_start_would_say_to_it() {
        let directory = ScratchDir::unique("named").unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, text, mode) in [
            ("right", "0123456789abcdef", 0o600),
            ("open", "0123456789abcdef", 0o644),
            ("short", "x", 0o600),
        ] {
            fs::write(path(name), text).unwrap();
            fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
        }
        let own = fs::metadata(path("right")).unwrap().uid();
        let judged = |name: &str, owner: u32| {
            let text = format!(
                "[device]\naddresses = ['10.42.0.1/24']\n[metrics]\nlisten = '127.0.0.1:9464'\ntoken_file = {:?}\n",
                path(name)
            );
            let config = Config::parse(&text, Path::new("sr.toml")).unwrap();
            let [file] = &NamedFile::all_of(&config)[..] else {
                panic!("one file");
            };
            judge_file(file, Some(owner), &config)
        };

        assert_eq!(judged("right", own).verdict, Verdict::Ok);
        let open = judged("open", own);
        let fix = format!("chmod 600 {}", path("open").display());
        assert_eq!(
            (open.verdict, open.fix.as_deref()),
            (Verdict::Problem, Some(&*fix))
        );
        let short = judged("short", own);
        assert_eq!((short.verdict, short.fix), (Verdict::Problem, None));
        assert!(short.detail.contains("openssl rand"), "{}", short.detail);
        let missing = judged("missing", own);
        assert_eq!(missing.verdict, Verdict::Problem);
        assert!(missing.detail.contains("No such file"), "{}", missing.detail);
        let anothers = judged("right", own + 1);
        assert_eq!(anothers.verdict, Verdict::Problem);
        assert!(anothers.fix.unwrap().starts_with("chown --reference="));
    }

    #[test]
    fn a_hook_is_a_file_that_can_be_executed() {
        let directory = ScratchDir::unique("hooks").unwrap();
        let program = directory.path().join("program");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let verdict = |program: &Path| judge_program("hooks.up", program).verdict;
        fs::set_permissions(&program, Permissions::from_mode(0o644)).unwrap();
        let fix = judge_program("hooks.up", &program).fix.unwrap();
        assert!(fix.starts_with("chmod +x "), "{fix}");
        assert_eq!(verdict(&program), Verdict::Problem);
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(verdict(&program), Verdict::Ok);
        assert_eq!(verdict(directory.path()), Verdict::Problem);
        assert_eq!(verdict(&directory.path().join("missing")), Verdict::Problem);
    }

    #[test]
    fn an_address_is_known_and_a_name_that_no_resolver_has_is_not() {
        let judged = |host: &str| judge_host("transport.proxy", host, look_up(host, 80)).verdict;
        assert_eq!(judged("192.0.2.8"), Verdict::Ok);
        assert_eq!(judged("2001:db8::8"), Verdict::Ok);
        // Too long for a name, so nobody is asked.
        assert_eq!(judged(&"a".repeat(300)), Verdict::Warning);
        let late = judge_host("transport.proxy", "proxy", None);
        assert!(late.detail.contains("no resolver"), "{}", late.detail);
    }

    #[test]
    fn an_uplink_that_is_not_there_is_a_warning() {
        let there = judge_uplink(&UplinkBy::Source([127, 0, 0, 1].into()));
        assert_eq!(there.verdict, Verdict::Ok);
        let gone = judge_uplink(&UplinkBy::Device("none0".to_owned()));
        assert_eq!(gone.verdict, Verdict::Warning);
        assert!(
            gone.detail.contains("the device none0 of an uplink is not there"),
            "{}",
            gone.detail
        );
    }

    #[test]
    fn a_congestion_control_that_the_kernel_lacks_is_a_problem() {
        let judged = |name: &str| {
            let text =
                format!("[device]\naddresses = ['10.42.0.1/24']\n[transport]\ncongestion = '{name}'\n");
            let config = Config::parse(&text, Path::new("sr.toml")).unwrap();
            congestion(&config).unwrap().verdict
        };
        assert_eq!(judged("reno"), Verdict::Ok);
        assert_ne!(judged("nobody_has_it"), Verdict::Ok);
    }

    #[test]
    fn without_a_name_it_is_the_hosts_and_what_it_lacks_is_said() {
        let text = "[device]\naddresses = ['10.42.0.1/24']\n";
        let config = Config::parse(text, Path::new("sr.toml")).unwrap();
        let hosts = fs::read_to_string(HOSTS_CONGESTION).unwrap();

        let found = congestion(&config).unwrap();

        assert_eq!(found.verdict, Verdict::Ok);
        assert!(found.detail.starts_with("the host's"), "{}", found.detail);
        assert_eq!(found.detail == "the host's", hosts.trim() == "bbr");
        assert!(of_host("cubic").contains("\"bbr\""));
    }
}
