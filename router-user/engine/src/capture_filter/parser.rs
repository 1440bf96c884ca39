//! The recursive-descent parser of filter expressions.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use router_common::packet::protocol;

use super::error::FilterError;
use super::expression::Expression;
use super::lexer::{Lexer, Token};
use super::primitive::{Endpoint, Primitive};

/// Most parentheses and `not`s around a primitive.
pub const MAX_FILTER_DEPTH: usize = 32;

/// What may stand where an operand begins, for error messages.
const OPERANDS: &str = "a test (host, net, port, portrange, peer, ip, ip6, tcp, udp, icmp, icmpv6, sctp, proto, less, \
                     greater), src or dst before one, not, or (";

/// Reads one expression, looking one token ahead.
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    depth: usize,
}

type ParseResult<T> = Result<T, FilterError>;

impl<'a> Parser<'a> {
    /// Returns a parser at the first token of `text`.
    pub(super) fn new(text: &'a str) -> ParseResult<Self> {
        let mut lexer = Lexer::new(text);
        let token = lexer.next();
        Ok(Self {
            lexer,
            token,
            depth: 0,
        })
    }

    /// Reads the whole expression. Returns `None` for an empty one.
    pub(super) fn parse(mut self) -> ParseResult<Option<Expression<String>>> {
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

    fn expression(&mut self) -> ParseResult<Expression<String>> {
        let first = self.unary()?;
        let Some(operator) = Operator::of(self.token) else {
            return Ok(first);
        };
        let mut parts = vec![first];
        while let Some(next) = Operator::of(self.token) {
            if next != operator {
                return Err(
                    self.error("and and or stand side by side: parentheses say which comes first".to_owned())
                );
            }
            self.advance();
            parts.push(self.unary()?);
        }
        Ok(match operator {
            Operator::And => Expression::All(parts),
            Operator::Or => Expression::Any(parts),
        })
    }

    fn unary(&mut self) -> ParseResult<Expression<String>> {
        let is_not = matches!(self.token.text, "not" | "!");
        if !is_not && self.token.text != "(" {
            return self.primitive();
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

    fn primitive(&mut self) -> ParseResult<Expression<String>> {
        let endpoint = self.endpoint();
        if endpoint != Endpoint::Either {
            return match self.token.text {
                "host" | "net" | "port" | "portrange" => self.at_endpoint(endpoint),
                _ => self
                    .address(endpoint, "host, net, port, portrange or an address")
                    .map(Expression::Primitive),
            };
        }
        let word = self.token;
        if let Some(number) = named_protocol(word.text) {
            self.advance();
            return self.protocol(number);
        }
        let primitive = match word.text {
            "host" | "net" | "port" | "portrange" => return self.at_endpoint(endpoint),
            "ip" => Primitive::Family(router_common::flow_key::FAMILY_V4),
            "ip6" => Primitive::Family(router_common::flow_key::FAMILY_V6),
            "proto" => {
                self.advance();
                let named = named_protocol(self.token.text);
                let number = named.or_else(|| self.token.text.parse().ok());
                Primitive::Protocol(
                    number
                        .ok_or_else(|| self.wrong("tcp, udp, icmp, icmpv6, sctp, or a number up to 255"))?,
                )
            }
            "peer" => {
                self.advance();
                // Letters and digits of ids; the others are of names and addresses.
                let fits = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
                if self.token.text.is_empty() || !self.token.text.chars().all(fits) {
                    return Err(self.wrong("a peer's name, inner address or id, or the end of the id"));
                }
                Primitive::Peer(self.token.text.to_owned())
            }
            "less" => Primitive::Len(0..=self.number_behind("a number of bytes")?),
            "greater" => Primitive::Len(self.number_behind("a number of bytes")?..=u32::MAX),
            _ => return Err(self.wrong(OPERANDS)),
        };
        self.advance();
        Ok(Expression::Primitive(primitive))
    }

    /// Reads what stands behind the name of a protocol: a condition on its ports, or nothing.
    fn protocol(&mut self, number: u8) -> ParseResult<Expression<String>> {
        let protocol = Expression::Primitive(Primitive::Protocol(number));
        let has_ports = matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP);
        if !matches!(self.token.text, "src" | "dst" | "port" | "portrange") {
            return Ok(protocol);
        }
        if !has_ports {
            return Err(
                self.error("this protocol has no ports; with and, another test may follow".to_owned())
            );
        }
        let endpoint = self.endpoint();
        if !matches!(self.token.text, "port" | "portrange") {
            return Err(self.wrong("port or portrange; with and, another test may follow"));
        }
        Ok(Expression::All(vec![protocol, self.at_endpoint(endpoint)?]))
    }

    /// Reads a primitive that `src` or `dst` may stand before.
    fn at_endpoint(&mut self, endpoint: Endpoint) -> ParseResult<Expression<String>> {
        let word = self.token;
        self.advance();
        let primitive = match word.text {
            "host" => return self.address(endpoint, "an address").map(Expression::Primitive),
            "net" => {
                let net = self.token.text.parse::<IpNet>().ok();
                let net = net.or_else(|| self.token.text.parse::<IpAddr>().ok().map(IpNet::from));
                Primitive::Net(
                    endpoint,
                    net.ok_or_else(|| self.wrong("a prefix such as 10.0.0.0/8"))?
                        .trunc(),
                )
            }
            "port" => {
                let port = self.port(self.token.text)?;
                Primitive::Port(endpoint, port..=port)
            }
            _ => Primitive::Port(endpoint, self.port_range()?),
        };
        self.advance();
        Ok(Expression::Primitive(primitive))
    }

    fn address(&mut self, endpoint: Endpoint, allowed: &str) -> ParseResult<Primitive<String>> {
        let address = self.token.text.parse::<IpAddr>();
        let address = address.map_err(|_no_address| self.wrong(allowed))?;
        self.advance();
        Ok(Primitive::Net(endpoint, IpNet::from(address)))
    }

    fn endpoint(&mut self) -> Endpoint {
        let endpoint = match self.token.text {
            "src" => Endpoint::Source,
            "dst" => Endpoint::Destination,
            _ => return Endpoint::Either,
        };
        self.advance();
        endpoint
    }

    fn port(&self, text: &str) -> ParseResult<u16> {
        text.parse().map_err(|_no_port| self.wrong("a port, 0 to 65535"))
    }

    fn port_range(&self) -> ParseResult<RangeInclusive<u16>> {
        const ALLOWED: &str = "two ports, such as 1024-2047, the smaller one first";
        let ends = self.token.text.split_once('-');
        let (first, last) = ends.ok_or_else(|| self.wrong(ALLOWED))?;
        let range = self.port(first)?..=self.port(last)?;
        if range.is_empty() {
            return Err(self.wrong(ALLOWED));
        }
        Ok(range)
    }

    fn number_behind(&mut self, allowed: &str) -> ParseResult<u32> {
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

/// A word that joins expressions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    And,
    Or,
}

impl Operator {
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
