//! Policy rules: which table the kernel looks a packet up in.

use std::fmt;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::IpVersion;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::netlink::{Netlink, NetlinkError, refused};

/// In place of a table: the destination is unreachable.
pub const NOWHERE: u32 = 0;

/// A policy rule that leads to a table, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// IPv6 rather than IPv4.
    pub ipv6: bool,
    /// Place among the rules.
    pub priority: u32,
    /// Number of the table, or [`NOWHERE`].
    pub table: u32,
    /// Mark of the packets that it is for.
    pub mark: Option<u32>,
    /// It is for the packets that do not match.
    pub not: bool,
    /// Longest prefix of a route that does not count.
    pub suppress_prefix_len: Option<u32>,
}

impl Rule {
    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = if self.ipv6 {
            AddressFamily::Inet6
        } else {
            AddressFamily::Inet
        };
        message.header.action = match self.table {
            NOWHERE => RuleAction::Unreachable,
            _ => RuleAction::ToTable,
        };
        if self.not {
            message.header.flags |= RuleFlags::Invert;
        }
        match u8::try_from(self.table) {
            Ok(table) => message.header.table = table,
            Err(_) => message.attributes.push(RuleAttribute::Table(self.table)),
        }
        message.attributes.push(RuleAttribute::Priority(self.priority));
        if let Some(mark) = self.mark {
            message.attributes.push(RuleAttribute::FwMark(mark));
        }
        if let Some(len) = self.suppress_prefix_len {
            message.attributes.push(RuleAttribute::SuppressPrefixLen(len));
        }
        message
    }

    /// Reads a message of the kernel; `None` for a rule that says more than [`Rule`] can.
    fn of(message: &RuleMessage) -> Option<Self> {
        let header = &message.header;
        let leads_nowhere = header.action == RuleAction::Unreachable;
        if !(leads_nowhere || header.action == RuleAction::ToTable)
            || header.dst_len != 0
            || header.src_len != 0
            || header.tos != 0
        {
            return None;
        }
        let mut rule = Self {
            ipv6: match header.family {
                AddressFamily::Inet => false,
                AddressFamily::Inet6 => true,
                _ => return None,
            },
            priority: 0,
            table: u32::from(header.table),
            mark: None,
            not: header.flags.contains(RuleFlags::Invert),
            suppress_prefix_len: None,
        };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
                RuleAttribute::FwMask(u32::MAX) | RuleAttribute::Protocol(_) => {}
                RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
                RuleAttribute::SuppressPrefixLen(len) => rule.suppress_prefix_len = Some(*len),
                _ => return None,
            }
        }
        Some(rule)
    }
}

/// A policy rule as the kernel has it, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRule(RuleMessage);

impl From<Rule> for SeenRule {
    fn from(rule: Rule) -> Self {
        Self(rule.message())
    }
}

impl SeenRule {
    /// Returns the rule; `None` for one that says more than [`Rule`] can.
    pub fn rule(&self) -> Option<Rule> {
        Rule::of(&self.0)
    }

    /// Returns whether it is a rule of IPv6 rather than IPv4.
    pub fn is_ipv6(&self) -> bool {
        self.0.header.family == AddressFamily::Inet6
    }

    /// Returns its place among the rules.
    pub fn priority(&self) -> u32 {
        let priority = self.0.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
        priority.unwrap_or(0)
    }

    /// Returns the table that it leads to; `None` for one that leads nowhere, or to another rule.
    pub fn table(&self) -> Option<u32> {
        if self.0.header.action != RuleAction::ToTable {
            return None;
        }
        let number = self.0.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::Table(table) => Some(*table),
            _ => None,
        });
        Some(number.unwrap_or_else(|| u32::from(self.0.header.table)))
    }

    /// Returns whether it leads nowhere.
    pub fn leads_nowhere(&self) -> bool {
        matches!(
            self.0.header.action,
            RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit
        )
    }

    /// Returns whether it may be for packets of this host to an address, from `source` if that is known. What else it asks
    /// is not looked at.
    pub fn may_be_for(&self, to: IpAddr, source: Option<IpAddr>) -> bool {
        if self.is_ipv6() != to.is_ipv6() || self.0.header.flags.contains(RuleFlags::Invert) {
            return self.is_ipv6() == to.is_ipv6();
        }
        let holds =
            |net: IpAddr, len: u8, ip: IpAddr| IpNet::new(net, len).is_ok_and(|net| net.contains(&ip));
        self.0.attributes.iter().all(|attribute| match attribute {
            RuleAttribute::Destination(net) => holds(*net, self.0.header.dst_len, to),
            RuleAttribute::Source(net) => {
                source.is_some_and(|source| holds(*net, self.0.header.src_len, source))
            }
            _ => true,
        })
    }

    /// Returns whether it asks where packets come from.
    pub fn has_source(&self) -> bool {
        self.0.header.src_len != 0
    }

    /// Returns the command that removes it.
    pub fn removal(&self) -> String {
        let ip = if self.is_ipv6() { "ip -6" } else { "ip" };
        format!("{ip} rule del pref {}", self.priority())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        match self.table {
            NOWHERE => write!(f, "{family} rule {} that leads nowhere", self.priority),
            table => write!(f, "{family} rule {} to table {table}", self.priority),
        }
    }
}

impl Netlink {
    /// Returns the policy rules of both families that [`Rule`] can say.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn rules(&self) -> Result<Vec<Rule>, NetlinkError> {
        Ok(self
            .seen_rules()
            .await?
            .iter()
            .filter_map(SeenRule::rule)
            .collect())
    }

    /// Returns all policy rules of both families, each family's in their order.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn seen_rules(&self) -> Result<Vec<SeenRule>, NetlinkError> {
        let mut found = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let messages: Result<Vec<_>, _> = self.handle.rule().get(version).execute().try_collect().await;
            match messages.map_err(|error| refused("list rules".to_owned(), error)) {
                Ok(messages) => found.extend(messages.into_iter().map(SeenRule)),
                Err(error) if error.errno() == Some(Errno::EAFNOSUPPORT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Adds a policy rule; one that is there already is as good.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn put_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule.message();
        let Err(error) = request.execute().await else {
            return Ok(());
        };
        let error = refused(format!("add the {rule}"), error);
        match error.errno() {
            Some(Errno::EEXIST) => Ok(()),
            _ => Err(error),
        }
    }

    /// Removes a policy rule; one that is gone already is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn take_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let Err(error) = self.handle.rule().del(rule.message()).execute().await else {
            return Ok(());
        };
        let error = refused(format!("remove the {rule}"), error);
        match error.errno() {
            Some(Errno::ENOENT | Errno::EAFNOSUPPORT) => Ok(()),
            _ => Err(error),
        }
    }
}
