//! What a capture shows: the query of `/v1/capture`.

use std::fmt;
use std::str::FromStr;

use form_urlencoded::Serializer;

use super::packet::CaptureDirection;
use router_common::frame::MAX_PACKET_LEN;
use stream_router_engine::capture_filter::CaptureFilter;

/// Most bytes of each packet: all of it.
pub const MAX_SNAPLEN: u32 = MAX_PACKET_LEN as u32;

/// Every parameter.
const PARAMETERS: &str = "filter, snaplen, direction";

/// Which packets, and how much of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureQuery {
    /// An expression that [`CaptureFilter`] reads; empty for all.
    pub filter: String,
    /// Bytes of each packet, from its IP header on, 1 to [`MAX_SNAPLEN`].
    pub snaplen: u32,
    /// Which way the packets go.
    pub directions: CaptureDirections,
}

/// Which way packets go that a capture shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureDirections {
    /// From peers into the host.
    In,
    /// From the host to peers.
    Out,
    /// Both.
    #[default]
    Both,
}

impl Default for CaptureQuery {
    fn default() -> Self {
        Self {
            filter: String::new(),
            snaplen: MAX_SNAPLEN,
            directions: CaptureDirections::default(),
        }
    }
}

impl CaptureQuery {
    /// Reads the query of a request, what stands behind the `?`.
    ///
    /// # Errors
    /// The parameter that is wrong, and what is allowed.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut capture = Self::default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |why: String| format!("{name}={value}: {why}");
            match name.as_ref() {
                "filter" => {
                    CaptureFilter::parse(&value).map_err(|error| wrong(error.to_string()))?;
                    capture.filter = value.clone().into_owned();
                }
                "snaplen" => capture.snaplen = parse_snaplen(&value).map_err(wrong)?,
                "direction" => capture.directions = value.parse().map_err(wrong)?,
                _ => return Err(format!("there is no parameter {name:?}; there are {PARAMETERS}")),
            }
            if seen.contains(&name) {
                return Err(format!("{name} is there twice"));
            }
            seen.push(name);
        }
        Ok(capture)
    }

    /// Returns the query of a request; empty if it says nothing that is not the default.
    pub fn query(&self) -> String {
        let default = Self::default();
        let mut query = Serializer::new(String::new());
        if self.filter != default.filter {
            query.append_pair("filter", &self.filter);
        }
        if self.snaplen != default.snaplen {
            query.append_pair("snaplen", &self.snaplen.to_string());
        }
        if self.directions != default.directions {
            query.append_pair("direction", &self.directions.to_string());
        }
        query.finish()
    }
}

/// Reads a number of bytes.
///
/// # Errors
/// What it should be.
pub(crate) fn parse_snaplen(text: &str) -> Result<u32, String> {
    let snaplen = text
        .parse()
        .ok()
        .filter(|snaplen| (1..=MAX_SNAPLEN).contains(snaplen));
    snaplen.ok_or_else(|| format!("a number of bytes from 1 to {MAX_SNAPLEN}"))
}

impl CaptureDirections {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::In, Self::Out, Self::Both];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Both => "both",
        }
    }

    /// Returns whether packets of this direction are shown.
    pub fn contains(self, direction: CaptureDirection) -> bool {
        match self {
            Self::In => direction == CaptureDirection::In,
            Self::Out => direction == CaptureDirection::Out,
            Self::Both => true,
        }
    }
}

impl fmt::Display for CaptureDirections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CaptureDirections {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|directions| directions.to_string() == text)
            .ok_or_else(|| "in, out or both".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_back_as_it_was_written() {
        let full = CaptureQuery {
            filter: "tcp port 80 && !(src net fd42::/64)".to_owned(),
            snaplen: 96,
            directions: CaptureDirections::In,
        };
        for query in [CaptureQuery::default(), full] {
            assert_eq!(CaptureQuery::parse(&query.query()), Ok(query));
        }
        assert_eq!(CaptureQuery::default().query(), "");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        for (query, said) in [
            (
                "colour=red",
                "there is no parameter \"colour\"; there are filter, snaplen, direction",
            ),
            ("snaplen=0", "snaplen=0: a number of bytes from 1 to 65535"),
            (
                "snaplen=65536",
                "snaplen=65536: a number of bytes from 1 to 65535",
            ),
            ("direction=up", "direction=up: in, out or both"),
            ("snaplen=1&snaplen=2", "snaplen is there twice"),
        ] {
            assert_eq!(CaptureQuery::parse(query), Err(said.to_owned()));
        }
        let filter = CaptureQuery::parse("filter=tcp+and").unwrap_err();
        assert!(
            filter.starts_with("filter=tcp and: the filter is wrong at character 8: "),
            "{filter}"
        );
    }
}
