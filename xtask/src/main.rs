//! Build, run, test and measure Stream Router.
//!
//! Every task begins with what the task before it produced: the eBPF toolchain, the object built with it, the
//! workspace that embeds the object, a network of real nodes.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool reports on its standard output"
)]

mod bench;
mod build;
mod ci;
mod command;
mod cross;
mod demo;
mod dirs;
mod install;
mod kernels;
mod nat;
mod ready;
mod release;
mod smoke;
mod test;
mod toolchain;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use build::Profile;
use release::Release;
use xtask::dist::Packages;

/// Build, run, test and measure Stream Router.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the eBPF object and the workspace that embeds it.
    Build(BuildArgs),
    /// Build the eBPF object alone.
    BuildEbpf,
    /// Run two nodes in network namespaces of their own, or a real node: `run -- --config FILE`.
    Run(RunArgs),
    /// Run the whole test suite, end-to-end tests included (needs root).
    Test {
        /// Leave out what boots other kernels; so do arguments.
        #[arg(long)]
        without_kernels: bool,
        /// Arguments for `cargo test`, after `--`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Make packages of the node in target/dist: .deb, .rpm, .tar.gz, an image for containers, and their checksums.
    Dist {
        /// Cargo profile of the node.
        #[arg(long, default_value = "shipped")]
        profile: String,
        /// Target of the node, such as aarch64-unknown-linux-musl, in place of that of the compiler; may be repeated.
        #[arg(long = "target", value_name = "TRIPLE")]
        targets: Vec<String>,
        /// Command that signs the file of checksums, whose path is added to it; if it fails, so does this.
        #[arg(long, value_name = "COMMAND")]
        sign: Option<String>,
        /// Try the packages in bare roots of Debian 12 and 13, in one with RPM and in a container (needs root).
        #[arg(long)]
        verify: bool,
    },
    /// Measure this build beside other VPNs (needs root).
    Bench(BenchArgs),
    /// Boot other kernels in emulated machines, and run the node there.
    Kernels(kernels::KernelsPlan),
    /// Try every pair of NATs between two nodes and their relay (needs root).
    Nat(nat::NatsPlan),
    /// Check format, lints and documentation, then run the whole test suite (needs root).
    Ci {
        /// Leave out what boots other kernels.
        #[arg(long)]
        without_kernels: bool,
    },
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
struct BenchArgs {
    #[command(subcommand)]
    task: Option<BenchTask>,
    #[command(flatten)]
    plan: bench::ComparisonPlan,
}

#[derive(Subcommand)]
enum BenchTask {
    /// Measure packets per second through the router that programs embed, beside a naive one.
    Dispatch,
    /// Measure what the egress program costs, and a TCP flow beside a flood of new flows.
    Steering {
        /// Seconds of each TCP flow.
        #[arg(long, default_value = "10")]
        secs: u64,
    },
    /// Measure what a peer whose node is stopped costs another peer.
    Isolation {
        /// Windows of each kind.
        #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
        repeats: u32,
    },
    /// Measure how long a flow is silent when addresses, interfaces, gateways, NATs and paths change.
    Roaming(bench::RoamingPlan),
    /// Measure one flow over a path that is long and loses packets, by every transport.
    Far(bench::FarPlan),
    /// Measure what ten flows carry through two uplinks together.
    Uplinks {
        /// Run this program in place of one that is built.
        #[arg(long, value_name = "PROGRAM")]
        program: Option<PathBuf>,
    },
    /// Measure a network behind a node: forwarded by the host, and captured by a gateway of each kind.
    Gateway {
        /// Seconds of each measurement.
        #[arg(long, default_value = "3")]
        secs: u64,
        /// Measurements of each kind.
        #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
        repeats: u32,
    },
}

#[derive(Args)]
struct BuildArgs {
    /// Build with the release profile.
    #[arg(long, conflicts_with = "profile")]
    release: bool,
    /// Build with this cargo profile.
    #[arg(long)]
    profile: Option<String>,
}

#[derive(Args)]
struct RunArgs {
    /// Send real traffic over the ready network, print the figures and exit 0 or 1.
    #[arg(long, conflicts_with = "node")]
    smoke: bool,
    /// Arguments for `stream-router run`, after `--`: a real node on this host.
    #[arg(last = true)]
    node: Vec<String>,
}

fn main() -> ExitCode {
    match perform(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    match task {
        Task::Build(args) => {
            let profile = match (args.release, args.profile) {
                (true, _) => Profile::release(),
                (false, Some(name)) => Profile::named(name),
                (false, None) => Profile::dev(),
            };
            let binary: PathBuf = build::workspace(&profile)?;
            println!("built {}", binary.display());
        }
        Task::BuildEbpf => {
            let object = build::object()?;
            println!("built {}", object.display());
        }
        Task::Run(args) if args.smoke => return smoke::run(),
        Task::Run(args) if !args.node.is_empty() => return demo::run_node(&args.node),
        Task::Run(_) => demo::run()?,
        Task::Test {
            without_kernels,
            args,
        } => test::run_all(&args, !without_kernels)?,
        Task::Dist {
            profile,
            targets,
            sign,
            verify,
        } => {
            let made = release::package(&Release {
                profile: Profile::named(profile),
                targets,
                sign,
                verify,
            })?;
            for file in made.iter().flat_map(Packages::files) {
                println!("made {}", file.display());
            }
        }
        Task::Bench(args) => match args.task {
            Some(BenchTask::Dispatch) => bench::dispatch()?,
            Some(BenchTask::Steering { secs }) => bench::steering(Duration::from_secs(secs))?,
            Some(BenchTask::Isolation { repeats }) => bench::isolation(repeats)?,
            Some(BenchTask::Roaming(plan)) => bench::roaming(&plan)?,
            Some(BenchTask::Far(plan)) => bench::far(&plan)?,
            Some(BenchTask::Uplinks { program }) => bench::uplinks(program)?,
            Some(BenchTask::Gateway { secs, repeats }) => {
                bench::gateway(Duration::from_secs(secs), repeats)?;
            }
            None => bench::compare(&args.plan)?,
        },
        Task::Nat(plan) => return nat::run(&plan),
        Task::Kernels(plan) => kernels::run(&plan)?,
        Task::Ci { without_kernels } => ci::run_all(!without_kernels)?,
    }
    Ok(ExitCode::SUCCESS)
}
