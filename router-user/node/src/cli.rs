//! The command line: one file per command.

mod capture;
mod check;
mod choice;
mod complete;
mod counters;
mod defaults;
mod doctor;
mod events;
mod flows;
mod generate;
mod host_routes;
mod id;
mod invite;
mod join;
mod keygen;
mod outcome;
mod peer;
mod peers;
mod purge;
mod rates;
mod reach;
mod reload;
mod request;
mod routes;
mod run;
mod status;
mod streams;
mod table;
mod top;
mod units;
mod which;
mod workers;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{ConfigError, InviteError};
use crate::control::ControlError;
use crate::node::peer_files::{ChangeError, OwnPeer, ReplacementError};
use crate::node::{NodeError, RouteConflicts};
use capture::{CaptureArguments, UsageError};
use check::CheckError;
use doctor::DoctorArguments;
use flows::FlowArguments;
use invite::InviteArguments;
use join::{JoinArguments, JoinError};
use peer::PeerCommand;
use peers::PeerArguments;
use purge::PurgeArguments;
use reload::ReloadArguments;
use request::{RequestArguments, ShowArguments};
use status::StatusArguments;
use stream_router_engine::capture_filter::FilterError;
use top::TopArguments;
use which::{NotSaid, WhichFile, WhichInstance};

/// Exit code for wrong usage or configuration; clap uses the same.
const EXIT_USAGE: u8 = 2;

/// Carries IP packets between VPN nodes over libp2p streams, steered by eBPF.
#[derive(Debug, Parser)]
#[command(name = "stream-router", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new Ed25519 identity and print its peer id
    Keygen {
        /// File to write, mode 0600, never overwritten; /var/lib/stream-router/identity.key unless it is said
        #[arg(long, value_name = "FILE", conflicts_with = "instance")]
        out: Option<PathBuf>,
        #[command(flatten)]
        which: WhichInstance,
        /// Keep an identity that is there, and print its peer id
        #[arg(long)]
        if_missing: bool,
    },
    /// Print the peer id of an identity
    Id {
        /// Identity file; /var/lib/stream-router/identity.key unless it is said
        #[arg(long, value_name = "FILE", conflicts_with = "instance")]
        key: Option<PathBuf>,
        #[command(flatten)]
        which: WhichInstance,
    },
    /// Validate a configuration: exit 0, or 2 with every problem
    Check {
        #[command(flatten)]
        which: WhichFile,
        /// Look also at this host: the key, the device, gateways' interfaces, ports, and routes that the peers' networks collide with
        #[arg(long)]
        live: bool,
    },
    /// Run the node in the foreground until SIGINT or SIGTERM
    Run {
        #[command(flatten)]
        which: WhichFile,
        /// Make the node's key if there is none
        #[arg(long)]
        make_key: bool,
    },
    /// Make the running node read its configuration file again: peers, prefixes, limits, log level
    Reload(ReloadArguments),
    /// Print an invite to this node: one string with its id, addresses and prefixes, for `join` on another node
    ///
    /// The invite is no secret and authenticates nothing by itself: anyone who can change it on its way can put another
    /// peer in. Send it over a channel that you trust.
    Invite(InviteArguments),
    /// Add the node that an invite names to the peers of a configuration file
    ///
    /// The file is replaced whole or not at all, and only if it is valid with the new peer; what is in it stays. An
    /// invite authenticates nothing by itself: take it from a channel that you trust.
    Join(JoinArguments),
    /// Add, change or remove a peer, and give it to the running node
    ///
    /// The file is replaced whole or not at all, and only if the configuration is valid afterwards; comments stay.
    Peer {
        #[command(subcommand)]
        command: PeerCommand,
    },
    /// Watch a running node live: throughput, peers, workers, streams, flows and drops
    Top(TopArguments),
    /// Show a running node on one page: addresses, what is the matter with its host, and its peers
    Status(StatusArguments),
    /// Show the peers: VPN address, state and why, path, round trip, traffic of the last minute
    Peers(PeerArguments),
    /// Show the flows that the node captures, those with most bytes first
    Flows {
        #[command(flatten)]
        show: ShowArguments,
        #[command(flatten)]
        which: FlowArguments,
    },
    /// Show the workers and how full their rings are
    Workers(ShowArguments),
    /// Show the streams on which the node sends, and what waits for them
    Streams(ShowArguments),
    /// Show the counters, drops by reason
    Counters {
        #[command(flatten)]
        show: ShowArguments,
        /// Show counters at 0 too, as JSON does
        #[arg(long)]
        all: bool,
    },
    /// Show the last events: peers that came and went and why, reloads, what was put back
    Events(ShowArguments),
    /// Show the kernel's prefix table
    Routes(ShowArguments),
    /// Show packets as they go to peers and come from them, or write them as pcapng
    Capture {
        #[command(flatten)]
        request: RequestArguments,
        #[command(flatten)]
        what: CaptureArguments,
    },
    /// Check what a node needs, and print the commands that fix what is wrong: exit 0, or 1 with a problem
    Doctor(DoctorArguments),
    /// Remove what a node that does not run any more has left: routes, rules, its table of nftables, pins
    Purge(PurgeArguments),
    /// Print what may stand at the end of a command line, for the shells' completion
    #[command(hide = true)]
    Complete {
        /// The words behind the program's name; the last one is completed
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Write the manual pages or shell completions of a package
    #[command(hide = true)]
    Generate {
        /// What to write
        what: generate::PackageFiles,
        /// Directory to write into
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Runs the command that the process was called with. The exit code is 0, 1 for a failure, 2 for wrong usage or
/// configuration.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Keygen {
            out,
            which,
            if_missing,
        } => keygen::keygen(&which.key(out), if_missing),
        Command::Id { key, which } => id::id(&which.key(key)),
        Command::Check { which, live } => check::check(&which, live),
        Command::Run { which, make_key } => run::run(&which, make_key),
        Command::Reload(arguments) => reload::reload(&arguments),
        Command::Invite(arguments) => invite::invite(arguments),
        Command::Join(arguments) => join::join(arguments),
        Command::Peer { command } => peer::peer(command),
        Command::Top(arguments) => top::top(&arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::Peers(arguments) => peers::peers(&arguments),
        Command::Flows { show, which } => show.show(&which.query(), flows::lines),
        Command::Workers(show) => show.show("", workers::lines),
        Command::Streams(show) => show.show("", streams::lines),
        Command::Counters { show, all } => show.show("", |counters| counters::lines(counters, all)),
        Command::Events(show) => show.show("", events::lines),
        Command::Routes(show) => show.show("", routes::lines),
        Command::Capture { request, what } => capture::capture(&request, &what),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Purge(arguments) => purge::purge(&arguments),
        Command::Complete { words } => complete::complete(&words, Arguments::command()),
        Command::Generate { what, out } => generate::generate(what, &out, &Arguments::command()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error.as_ref());
            if is_usage(error.as_ref()) {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn is_usage(error: &(dyn Error + 'static)) -> bool {
    let of_a_node = error.downcast_ref::<ControlError>();
    error.is::<ConfigError>()
        || error.is::<InviteError>()
        || error.is::<JoinError>()
        || error.is::<FilterError>()
        || error.is::<UsageError>()
        || error.is::<RouteConflicts>()
        || error.is::<CheckError>()
        || error.downcast_ref().is_some_and(ChangeError::is_usage)
        || matches!(error.downcast_ref(), Some(ReplacementError::Unreadable(_)))
        || error.is::<OwnPeer>()
        || error.is::<NotSaid>()
        || error.downcast_ref().is_some_and(NodeError::is_for_good)
        || matches!(of_a_node, Some(ControlError::BadConfiguration { .. }))
}

fn report(error: &(dyn Error + 'static)) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  caused by: {error}");
        cause = error.source();
    }
}
