//! `stream-router capture`

mod icmp;
mod line;
mod output;

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;

use clap::{ArgAction, Args};
use tokio::signal::unix::{SignalKind, signal};

use super::choice::one_of;
use super::outcome::Outcome;
use super::request::RequestArguments;
use super::which::WhichNode;
use crate::control::{
    CaptureBlocks, CaptureDirections, CaptureQuery, CaptureReader, CaptureRecord, ControlError, MAX_SNAPLEN,
    Status, fetch, parse_snaplen,
};
use output::{Output, Target};
use stream_router_engine::capture_filter::CaptureFilter;

/// A line needs the headers only, also behind extension headers.
const LINE_SNAPLEN: u32 = 256;

/// What to capture, and where it goes.
#[derive(Debug, Args)]
pub(super) struct CaptureArguments {
    /// Only packets that match, such as: tcp port 443 and not host 10.42.0.2
    #[arg(value_name = "FILTER", long_help = FILTER_HELP)]
    filter: Vec<String>,
    /// Packets of the node that has this device, where a host has several
    #[arg(short = 'i', long = "interface", value_name = "DEVICE")]
    interface: Option<String>,
    /// Name no peers in lines, but show the ends of their ids
    #[arg(short = 'n', long = "numeric")]
    numeric: bool,
    /// Write pcapng to this file, or to standard output for -, instead of lines
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    write: Option<PathBuf>,
    /// End after so many packets
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Bytes of each packet; all of them with -w, 256 without, unless it is said
    #[arg(short = 's', long, value_name = "BYTES", value_parser = parse_snaplen)]
    snaplen: Option<u32>,
    /// Which way packets go: in (from peers), out (to peers) or both
    #[arg(long, value_name = "WAY", default_value_t, action = ArgAction::Set, value_parser = one_of(CaptureDirections::ALL, CaptureDirections::name))]
    direction: CaptureDirections,
}

const FILTER_HELP: &str = "Only packets that match. Tests are: host ADDRESS, net PREFIX, port N, portrange A-B, each \
with src or dst before it or not; ip, ip6, tcp, udp, icmp, icmpv6, sctp, proto N; peer NAME (or an inner address, or an id or the end of it); less N, \
greater N (bytes). They are joined by and, or, not and parentheses; `tcp dst port 443` is short for `tcp and dst port \
443`. `and` beside `or` needs parentheses";

/// How a capture ended.
struct Ended {
    n_packets: u64,
    n_dropped: u64,
    /// Why, when neither the user nor `--count` ended it.
    reason: Option<String>,
    failure: Option<ControlError>,
}

/// Shows or writes packets until somebody ends it.
pub(super) fn capture(request: &RequestArguments, arguments: &CaptureArguments) -> Outcome {
    let query = arguments.query();
    // Before a node is asked: a wrong filter is wrong usage.
    CaptureFilter::parse(&query.filter)?;
    let to_stdout = arguments
        .write
        .as_deref()
        .is_some_and(|path| path.as_os_str() == "-");
    if to_stdout && stdout().is_terminal() {
        return Err(Box::new(UsageError(
            "-w - would write pcapng to a terminal; give it to a program, such as | tcpdump -r -, or name a file",
        )));
    }
    if arguments.write.is_some() && request.json {
        return Err(Box::new(UsageError("--json is for lines; -w writes pcapng")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(request, arguments, &query));
    // A write that nobody takes does not hold up the end.
    runtime.shutdown_background();
    let ended = ended?;
    ended.report();
    match ended.failure {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}

/// A combination of arguments that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(&'static str);

/// No node has this device.
#[derive(Debug, thiserror::Error)]
#[error("no node has the device {device}; the nodes that run have {others}")]
struct NoSuchDevice {
    device: String,
    others: String,
}

impl CaptureArguments {
    fn query(&self) -> CaptureQuery {
        let whole = if self.write.is_some() {
            MAX_SNAPLEN
        } else {
            LINE_SNAPLEN
        };
        CaptureQuery {
            filter: self.filter.join(" "),
            snaplen: self.snaplen.unwrap_or(whole),
            directions: self.direction,
        }
    }

    fn target(&self, json: bool) -> Target<'_> {
        match &self.write {
            None if json => Target::Json,
            None => Target::Lines {
                is_numeric: self.numeric,
            },
            Some(path) if path.as_os_str() == "-" => Target::PcapngStdout,
            Some(path) => Target::PcapngFile(path),
        }
    }
}

async fn run(
    request: &RequestArguments,
    arguments: &CaptureArguments,
    query: &CaptureQuery,
) -> Result<Ended, Box<dyn std::error::Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut stopped = std::pin::pin!(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    let socket = match &arguments.interface {
        Some(device) => socket_of(&request.which, device).await?,
        None => request.which.socket()?,
    };
    let mut reader = CaptureReader::open(&socket, query).await?;
    let mut output = Output::open(arguments.target(request.json)).await?;
    let mut ended = Ended {
        n_packets: 0,
        n_dropped: 0,
        reason: None,
        failure: None,
    };
    let mut blocks = CaptureBlocks::default();
    let (mut is_begun, mut is_over) = (false, false);
    while !is_over {
        let bytes = tokio::select! {
            biased;
            () = &mut stopped => break,
            bytes = reader.next_bytes() => bytes,
        };
        match bytes {
            Ok(Some(bytes)) => blocks.handle_bytes(&bytes),
            Ok(None) => {
                ended.reason = Some("the node has ended the capture".to_owned());
                break;
            }
            Err(failure) => {
                ended.failure = Some(failure);
                break;
            }
        }
        is_over = ended.handle(&mut blocks, &mut output, arguments.count, &socket);
        if !output.write(stopped.as_mut()).await? {
            break;
        }
        // The first bytes describe the capture, and are in the file now.
        if !is_begun {
            is_begun = true;
            say_begun(query);
        }
    }
    Ok(ended)
}

/// Returns the control socket of the node that has `device`.
async fn socket_of(which: &WhichNode, device: &str) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let (mut others, mut failure) = (Vec::new(), None);
    for socket in which.sockets()? {
        match fetch::<Status>(&socket, "").await {
            Ok(status) if status.device.name == device => return Ok(socket),
            Ok(status) => others.push(status.device.name),
            Err(error) => failure = Some(error),
        }
    }
    Err(match failure {
        // The device may be that of the node that did not answer.
        Some(failure) => failure.into(),
        None => Box::new(NoSuchDevice {
            device: device.to_owned(),
            others: others.join(", "),
        }),
    })
}

fn say_begun(query: &CaptureQuery) {
    eprintln!(
        "capturing {}, {} bytes of each packet; Ctrl-C ends it",
        match query.directions {
            CaptureDirections::Both => "in and out".to_owned(),
            one => one.to_string(),
        },
        query.snaplen
    );
}

impl Ended {
    /// Gives the whole blocks to `output`, and returns whether it is over then.
    fn handle(
        &mut self,
        blocks: &mut CaptureBlocks,
        output: &mut Output,
        count: Option<u64>,
        socket: &std::path::Path,
    ) -> bool {
        loop {
            let block = match blocks.next_block() {
                Ok(None) => return false,
                Ok(Some(block)) => block,
                Err(reason) => {
                    self.failure = Some(ControlError::BadAnswer {
                        path: socket.to_owned(),
                        reason,
                    });
                    return true;
                }
            };
            output.add(&block);
            match block.record {
                CaptureRecord::Packet(_) => {
                    self.n_packets += 1;
                    if count == Some(self.n_packets) {
                        return true;
                    }
                }
                CaptureRecord::Dropped(n) => self.n_dropped = n,
                CaptureRecord::End { dropped, reason } => {
                    self.n_dropped = dropped;
                    self.reason = Some(reason);
                    return true;
                }
                CaptureRecord::Other => {}
            }
        }
    }

    fn report(&self) {
        if let Some(reason) = &self.reason {
            eprintln!("{reason}");
        }
        eprintln!(
            "{} packets captured, {} dropped by the node for lack of room",
            self.n_packets, self.n_dropped
        );
    }
}
