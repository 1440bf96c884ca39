//! From text to an expression.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use router_common::packet::protocol;

use super::lexer::{Lexer, Token};
use super::test::{Side, Test};
use super::{Expression, FilterError, MAX_FILTER_DEPTH};

const TESTS: &str = "a test (host, net, port, portrange, peer, ip, ip6, tcp, udp, icmp, icmpv6, sctp, proto, less, \
                     greater), src or dst before one, not, or (";

/// Reads one expression, a token ahead.
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    depth: usize,
}

type Outcome<T> = Result<T, FilterError>;

impl<'a> Parser<'a> {
    /// A parser at the first token.
    pub(super) fn new(text: &'a str) -> Outcome<Self> {
        let mut lexer = Lexer::new(text);
        let token = lexer.next();
        Ok(Self {
            lexer,
            token,
            depth: 0,
        })
    }

    /// The whole expression; `None` for an empty one.
    pub(super) fn parse(mut self) -> Outcome<Option<Expression<String>>> {
        if self.token.text.is_empty() {
            return Ok(None);
        }
        let expression = self.expression()?;
        if self.token.text.is_empty() {
            Ok(Some(expression))
        } else {
            Err(self.wrong("and, or, or the end of the filter"))
        }
    }

    fn expression(&mut self) -> Outcome<Expression<String>> {
        let first = self.unary()?;
        let Some(joint) = Joint::of(self.token) else {
            return Ok(first);
        };
        let mut parts = vec![first];
        while let Some(next) = Joint::of(self.token) {
            if next != joint {
                return Err(
                    self.error("and and or stand side by side: parentheses say which comes first".to_owned())
                );
            }
            self.advance();
            parts.push(self.unary()?);
        }
        Ok(match joint {
            Joint::And => Expression::All(parts),
            Joint::Or => Expression::Any(parts),
        })
    }

    fn unary(&mut self) -> Outcome<Expression<String>> {
        let is_not = matches!(self.token.text, "not" | "!");
        if !is_not && self.token.text != "(" {
            return self.test();
        }
        if self.depth == MAX_FILTER_DEPTH {
            return Err(self.error(format!(
                "more than {MAX_FILTER_DEPTH} parentheses and nots inside each other"
            )));
        }
        self.advance();
        self.depth += 1;
        let inner = if is_not {
            Expression::Not(Box::new(self.unary()?))
        } else {
            let inner = self.expression()?;
            if self.token.text != ")" {
                return Err(self.wrong("and, or, or )"));
            }
            self.advance();
            inner
        };
        self.depth -= 1;
        Ok(inner)
    }

    fn test(&mut self) -> Outcome<Expression<String>> {
        let side = self.side();
        if side != Side::Either {
            return match self.token.text {
                "host" | "net" | "port" | "portrange" => self.sided(side),
                _ => self
                    .address(side, "host, net, port, portrange or an address")
                    .map(Expression::Test),
            };
        }
        let word = self.token;
        if let Some(number) = named_protocol(word.text) {
            self.advance();
            return self.protocol(number);
        }
        let test = match word.text {
            "host" | "net" | "port" | "portrange" => return self.sided(side),
            "ip" => Test::Family(router_common::flow_key::FAMILY_V4),
            "ip6" => Test::Family(router_common::flow_key::FAMILY_V6),
            "proto" => {
                self.advance();
                let named = named_protocol(self.token.text);
                let number = named.or_else(|| self.token.text.parse().ok());
                Test::Protocol(
                    number
                        .ok_or_else(|| self.wrong("tcp, udp, icmp, icmpv6, sctp, or a number up to 255"))?,
                )
            }
            "peer" => {
                self.advance();
                if self.token.text.is_empty() || !self.token.text.chars().all(|c| c.is_ascii_alphanumeric()) {
                    return Err(self.wrong("a peer's id, or the end of it"));
                }
                Test::Peer(self.token.text.to_owned())
            }
            "less" => Test::Len(0..=self.number_behind("a number of bytes")?),
            "greater" => Test::Len(self.number_behind("a number of bytes")?..=u32::MAX),
            _ => return Err(self.wrong(TESTS)),
        };
        self.advance();
        Ok(Expression::Test(test))
    }

    /// What stands behind a protocol: ports of it, or nothing.
    fn protocol(&mut self, number: u8) -> Outcome<Expression<String>> {
        let protocol = Expression::Test(Test::Protocol(number));
        let has_ports = matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP);
        if !matches!(self.token.text, "src" | "dst" | "port" | "portrange") {
            return Ok(protocol);
        }
        if !has_ports {
            return Err(
                self.error("this protocol has no ports; with and, another test may follow".to_owned())
            );
        }
        let side = self.side();
        if !matches!(self.token.text, "port" | "portrange") {
            return Err(self.wrong("port or portrange; with and, another test may follow"));
        }
        Ok(Expression::All(vec![protocol, self.sided(side)?]))
    }

    /// One of the tests that `src` and `dst` may stand before.
    fn sided(&mut self, side: Side) -> Outcome<Expression<String>> {
        let word = self.token;
        self.advance();
        let test = match word.text {
            "host" => return self.address(side, "an address").map(Expression::Test),
            "net" => {
                let net = self.token.text.parse::<IpNet>().ok();
                let net = net.or_else(|| self.token.text.parse::<IpAddr>().ok().map(IpNet::from));
                Test::Net(
                    side,
                    net.ok_or_else(|| self.wrong("a prefix such as 10.0.0.0/8"))?
                        .trunc(),
                )
            }
            "port" => {
                let port = self.port(self.token.text)?;
                Test::Port(side, port..=port)
            }
            _ => Test::Port(side, self.port_range()?),
        };
        self.advance();
        Ok(Expression::Test(test))
    }

    fn address(&mut self, side: Side, allowed: &str) -> Outcome<Test<String>> {
        let address = self.token.text.parse::<IpAddr>();
        let address = address.map_err(|_no_address| self.wrong(allowed))?;
        self.advance();
        Ok(Test::Net(side, IpNet::from(address)))
    }

    fn side(&mut self) -> Side {
        let side = match self.token.text {
            "src" => Side::Source,
            "dst" => Side::Destination,
            _ => return Side::Either,
        };
        self.advance();
        side
    }

    fn port(&self, text: &str) -> Outcome<u16> {
        text.parse().map_err(|_no_port| self.wrong("a port, 0 to 65535"))
    }

    fn port_range(&self) -> Outcome<RangeInclusive<u16>> {
        const ALLOWED: &str = "two ports, such as 1024-2047, the smaller one first";
        let ends = self.token.text.split_once('-');
        let (first, last) = ends.ok_or_else(|| self.wrong(ALLOWED))?;
        let range = self.port(first)?..=self.port(last)?;
        if range.is_empty() {
            return Err(self.wrong(ALLOWED));
        }
        Ok(range)
    }

    fn number_behind(&mut self, allowed: &str) -> Outcome<u32> {
        self.advance();
        self.token.text.parse().map_err(|_no_number| self.wrong(allowed))
    }

    fn advance(&mut self) {
        self.token = self.lexer.next();
    }

    fn wrong(&self, allowed: &str) -> FilterError {
        self.error(format!(
            "{}, and what may stand here is {allowed}",
            self.token.shown()
        ))
    }

    fn error(&self, wrong: String) -> FilterError {
        FilterError {
            position: self.token.position,
            wrong,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Joint {
    And,
    Or,
}

impl Joint {
    fn of(token: Token<'_>) -> Option<Self> {
        match token.text {
            "and" | "&&" => Some(Self::And),
            "or" | "||" => Some(Self::Or),
            _ => None,
        }
    }
}

fn named_protocol(word: &str) -> Option<u8> {
    Some(match word {
        "tcp" => protocol::TCP,
        "udp" => protocol::UDP,
        "icmp" => protocol::ICMP,
        // As tcpdump calls it, too.
        "icmpv6" | "icmp6" => protocol::ICMPV6,
        "sctp" => protocol::SCTP,
        _ => return None,
    })
}
