//! The node's own table of nftables, made and removed with the program `nft`.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Output, Stdio};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use thiserror::Error;

/// Why the table cannot be made or removed.
#[derive(Debug, Error)]
pub enum NftError {
    /// There is no such program.
    #[error("the program nft is not installed (package nftables)")]
    Missing,
    /// The program cannot be run.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    /// The rules are refused.
    #[error(
        "nft refuses: {said}; are the kernel's modules there (modprobe -a nft_chain_nat nft_masq nft_ct), and may this \
         process change the firewall (CAP_NET_ADMIN)?"
    )]
    Refused {
        /// What the program says.
        said: String,
    },
}

/// What the table does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NftRules {
    /// Packets from the device leave to other interfaces with the host's address, and are let pass.
    pub serve: bool,
    /// Packets of connections that the node makes with this mark have it when they arrive, so that the reverse-path
    /// filter looks their source up as it would the way there.
    pub restore_mark: Option<u32>,
}

impl NftRules {
    /// Returns whether no table is needed.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Makes the table of `device`, in place of one that there is, or removes it if it is not needed.
    ///
    /// # Errors
    /// There is no `nft`, or it refuses; nothing has changed then.
    pub fn apply(self, device: &str) -> Result<(), NftError> {
        if self.is_empty() {
            return remove(device);
        }
        feed(&self.text(device)).map(drop)
    }

    /// Tries whether the table of `device` could be made; nothing changes.
    ///
    /// # Errors
    /// There is no `nft`, or it refuses.
    pub fn try_out(self, device: &str) -> Result<(), NftError> {
        if self.is_empty() {
            return Ok(());
        }
        feed_with(&["--check"], &self.text(device)).map(drop)
    }

    /// Returns how many rules the table has.
    pub fn n_rules(self) -> u32 {
        3 * u32::from(self.serve) + 2 * u32::from(self.restore_mark.is_some())
    }

    fn text(self, device: &str) -> String {
        let table = table(device);
        // One transaction: there is always the old one or the new one.
        let mut text = format!("table inet {table} {{}}\ndelete table inet {table}\ntable inet {table} {{\n");
        if self.serve {
            text += &format!(
                "chain forward {{ type filter hook forward priority filter; policy accept;\n\
                 iifname \"{device}\" accept\n\
                 oifname \"{device}\" ct state established,related accept\n}}\n\
                 chain postrouting {{ type nat hook postrouting priority srcnat; policy accept;\n\
                 iifname \"{device}\" oifname != \"{device}\" masquerade\n}}\n"
            );
        }
        if let Some(mark) = self.restore_mark {
            text += &format!(
                "chain prerouting {{ type filter hook prerouting priority mangle; policy accept;\n\
                 iifname != \"{device}\" ct mark {mark} meta mark set {mark}\n}}\n\
                 chain output {{ type filter hook postrouting priority mangle; policy accept;\n\
                 oifname != \"{device}\" meta mark {mark} ct mark set {mark}\n}}\n"
            );
        }
        text + "}\n"
    }
}

/// Removes the table of `device`; one that is not there, or a host without `nft`, is no error.
///
/// # Errors
/// `nft` refuses.
pub fn remove(device: &str) -> Result<(), NftError> {
    let table = table(device);
    match feed(&format!("table inet {table} {{}}\ndelete table inet {table}\n")) {
        Ok(_) | Err(NftError::Missing) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns whether there is a table of `device`.
///
/// # Errors
/// There is no `nft`, or it cannot be run.
pub fn is_there(device: &str) -> Result<bool, NftError> {
    let listed = run(
        Command::new("nft").args(["list", "table", "inet", &table(device)]),
        "",
    )?;
    Ok(listed.status.success())
}

/// Returns how many rules the table of `device` has; a table that is not there has none. It asks the kernel, which costs
/// less than a program.
///
/// # Errors
/// The kernel refuses to say.
pub fn n_rules(device: &str) -> io::Result<u32> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkNetFilter,
    )?;
    send(socket.as_raw_fd(), &request(&table(device)), MsgFlags::empty())?;
    let mut n = 0;
    let mut answer = vec![0; ANSWER_LEN];
    loop {
        let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        if count(answer.get(..len).unwrap_or_default(), &mut n)? {
            return Ok(n);
        }
    }
}

/// Longest part of an answer (kernel: `NLMSG_GOODSIZE`, and what it gives to those that ask for more).
const ANSWER_LEN: usize = 32 * 1024;

/// Lengths of the headers of a netlink message, and of one of netfilter (`nlmsghdr`, `nfgenmsg`).
const HEADER_LEN: usize = 16;
const NETFILTER_LEN: usize = 4;

/// Types of messages: netfilter's subsystem in the upper byte (`NFNL_SUBSYS_NFTABLES`, `NFT_MSG_NEWRULE` and
/// `NFT_MSG_GETRULE`), and those that end an answer.
const NEW_RULE: u16 = (10 << 8) + 6;
const GET_RULE: u16 = NEW_RULE + 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Asks for all that there are (`NLM_F_REQUEST` and `NLM_F_DUMP`).
const DUMP: u16 = 0x301;

/// Attribute of a rule: the name of its table (`NFTA_RULE_TABLE`).
const TABLE: u16 = 1;

/// Family of tables for IPv4 and IPv6 (`NFPROTO_INET`).
const INET: u8 = 1;

fn request(table: &str) -> Vec<u8> {
    let name_len = 4 + table.len() + 1;
    let len = HEADER_LEN + NETFILTER_LEN + name_len.next_multiple_of(4);
    let mut message = Vec::with_capacity(len);
    message.extend((len as u32).to_ne_bytes());
    message.extend(GET_RULE.to_ne_bytes());
    message.extend(DUMP.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([INET, 0, 0, 0]);
    message.extend((name_len as u16).to_ne_bytes());
    message.extend(TABLE.to_ne_bytes());
    message.extend(table.as_bytes());
    message.resize(len, 0);
    message
}

/// Counts the rules in a part of the answer; says whether it is the last part.
fn count(mut part: &[u8], n: &mut u32) -> io::Result<bool> {
    let malformed = || io::Error::other("the kernel's answer about nftables cannot be read");
    while !part.is_empty() {
        let (header, rest) = part.split_first_chunk::<HEADER_LEN>().ok_or_else(malformed)?;
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        match u16::from_ne_bytes([header[4], header[5]]) {
            NEW_RULE => *n += 1,
            DONE => return Ok(true),
            ERROR => {
                let code = rest
                    .first_chunk()
                    .copied()
                    .map(i32::from_ne_bytes)
                    .ok_or_else(malformed)?;
                return match Errno::from_raw(-code) {
                    // Without nftables there is no table either.
                    Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EINVAL => Ok(true),
                    errno => Err(errno.into()),
                };
            }
            _ => {}
        }
        part = part
            .get(len.max(HEADER_LEN).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(false)
}

/// Returns the name of the table: a name of nftables has no hyphen, and that of a device no full stop.
pub fn table(device: &str) -> String {
    format!("stream_router_{}", device.replace('-', "."))
}

fn feed(text: &str) -> Result<Output, NftError> {
    feed_with(&[], text)
}

fn feed_with(options: &[&str], text: &str) -> Result<Output, NftError> {
    let output = run(Command::new("nft").args(options).args(["-f", "-"]), text)?;
    match output.status.success() {
        true => Ok(output),
        false => Err(NftError::Refused {
            said: String::from_utf8_lossy(&output.stderr)
                .lines()
                .next()
                .unwrap_or("it gives no reason")
                .to_owned(),
        }),
    }
}

fn run(command: &mut Command, input: &str) -> Result<Output, NftError> {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NftError::Missing,
        _ => NftError::Run(error),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(NftError::Run)?;
    }
    child.wait_with_output().map_err(NftError::Run)
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn a_table_is_made_replaced_and_removed() {
        let in_own_network = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            let serving = NftRules {
                serve: true,
                restore_mark: None,
            };
            let both = NftRules {
                restore_mark: Some(0x2053),
                ..serving
            };
            assert!(!is_there("sr-0").unwrap());
            remove("sr-0").unwrap();

            serving.try_out("sr-0").unwrap();
            assert_eq!(n_rules("sr-0").unwrap(), 0);
            serving.apply("sr-0").unwrap();
            assert_eq!(n_rules("sr-0").unwrap(), serving.n_rules());
            both.apply("sr-0").unwrap();
            assert_eq!(n_rules("sr-0").unwrap(), both.n_rules());
            feed("flush table inet stream_router_sr.0").unwrap();
            assert_eq!(n_rules("sr-0").unwrap(), 0);
            assert!(is_there("sr-0").unwrap());
            both.apply("sr-0").unwrap();
            // Those of another table do not count.
            feed("table inet other {\nchain forward {\naccept\n}\n}\n").unwrap();
            assert_eq!(n_rules("sr-0").unwrap(), both.n_rules());
            feed("delete table inet other").unwrap();

            let listed = run(Command::new("nft").args(["list", "ruleset"]), "").unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            assert_eq!(listed.matches("table inet").count(), 1, "{listed}");
            for part in [
                "masquerade",
                "ct mark 0x00002053 meta mark set 0x00002053",
                "iifname \"sr-0\" accept",
            ] {
                assert!(listed.contains(part), "{part}: {listed}");
            }
            assert!(is_there("sr-0").unwrap());
            NftRules::default().apply("sr-0").unwrap();
            assert!(!is_there("sr-0").unwrap());
        };
        std::thread::spawn(in_own_network).join().unwrap();
    }

    #[test]
    fn what_is_refused_is_said() {
        let refused = feed("table inet x { nonsense }").unwrap_err().to_string();

        assert!(refused.starts_with("nft refuses: "), "{refused}");
    }
}
