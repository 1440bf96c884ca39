//! Boots other kernels, each in a machine of its own, and looks at what the node does there.
//!
//! The machine is emulated (QEMU without KVM), so it needs no privilege and no hardware, and is slow. What it boots into is
//! made here: an init script, the programs of this build with their libraries, and the kernel's own modules.

mod archive;
mod checks;
mod guest;
mod image;
mod modules;
mod root;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command::{cargo, read};
use crate::test::FEATURES;
use crate::{build, dirs, install};
use checks::{Counted, Depth, Outcome};
use guest::Machine;
use image::Image;
use root::Programs;

/// The kernels of Debian 12, with and without its backports: the oldest that most have, and a current one.
pub(crate) const DEFAULT: [&str; 2] = ["6.1", "6.12"];

/// What to boot, and what to look at there.
#[derive(Args, Clone, Debug)]
pub(crate) struct KernelsPlan {
    /// Kernels: a version of which the package manager has Debian's image, or the file of such a package.
    #[arg(default_values_t = DEFAULT.map(String::from))]
    kernels: Vec<String>,
    /// Look at everything, which takes about half an hour.
    #[arg(long)]
    thorough: bool,
    /// Look at what shows most in a few minutes.
    #[arg(long, conflicts_with = "thorough")]
    brief: bool,
    /// Look at this check alone; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Words for the kernel's command line, such as lockdown=confidentiality (with which `programs` fails: it asks for what that
    /// refuses); may be repeated, for a machine each.
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Minutes that one machine may run.
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u64).range(1..=600))]
    minutes: u64,
}

impl KernelsPlan {
    /// Returns the plan of the test suite.
    pub(crate) fn of_the_suite() -> Self {
        Self {
            kernels: DEFAULT.map(String::from).into(),
            thorough: false,
            brief: true,
            only: Vec::new(),
            append: vec![String::new()],
            minutes: 20,
        }
    }

    fn depth(&self) -> Depth {
        match (self.brief, self.thorough) {
            (true, _) => Depth::Brief,
            (false, false) => Depth::Usual,
            (false, true) => Depth::Thorough,
        }
    }
}

/// Boots the kernels side by side, runs the checks in each, and prints a table of them.
///
/// # Errors
/// When a machine cannot be made, a kernel does not boot, or a check fails.
pub(crate) fn run(plan: &KernelsPlan) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("`cargo xtask kernels` makes machines of x86-64 alone");
    }
    install::machine_programs()?;
    let checks = checks::chosen(plan.depth(), &plan.only)?;
    let programs = build_programs()?;
    let checks = checks::counted(
        checks,
        &tests_of(&programs.e2e)?,
        &tests_of(&programs.program_run)?,
    )?;
    let directory = dirs::target()?.join("kernels");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let mut machines = Vec::new();
    for kernel in &plan.kernels {
        let image = Image::find(kernel, &directory)?;
        let initramfs = directory.join(format!("{}.cpio", image.release()));
        root::write(&initramfs, &image, &programs, &checks)?;
        for append in &plan.append {
            let name = format!("{} {append}", image.release());
            let file = name.trim_end().replace([' ', '/'], "-");
            machines.push(Machine {
                log: directory.join(format!("{file}.log")),
                image: image.clone(),
                initramfs: initramfs.clone(),
                append: append.clone(),
                limit: Duration::from_secs(plan.minutes * 60),
            });
        }
    }
    let start = Instant::now();
    let runs: Vec<_> = thread::scope(|scope| {
        let begun: Vec<_> = machines
            .iter()
            .map(|machine| scope.spawn(|| machine.run(&checks)))
            .collect();
        begun
            .into_iter()
            .map(|run| {
                run.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    report(&machines, &checks, runs)?;
    println!("{} machines in {} s", machines.len(), start.elapsed().as_secs());
    Ok(())
}

/// Prints a row for each check with a column for each kernel, and fails if a check did.
fn report(machines: &[Machine], checks: &[Counted], runs: Vec<Result<Vec<Outcome>>>) -> Result<()> {
    let mut failed = Vec::new();
    let mut columns = Vec::new();
    for (machine, run) in machines.iter().zip(runs) {
        let name = machine.name();
        let outcomes = run.unwrap_or_else(|error| {
            failed.push(format!("{name}: {error:#}"));
            Vec::new()
        });
        columns.push((name, outcomes));
    }
    let width = checks
        .iter()
        .map(|counted| counted.check.name.len())
        .max()
        .unwrap_or(0);
    print!("{:width$}", "");
    for (name, _) in &columns {
        print!("  {name:>24}");
    }
    println!();
    for Counted { check, .. } in checks {
        print!("{:width$}", check.name);
        for (name, outcomes) in &columns {
            let outcome = outcomes.iter().find(|outcome| outcome.check == check.name);
            let shown = match outcome {
                Some(Outcome {
                    passed: true, secs, ..
                }) => format!("ok, {secs} s"),
                Some(Outcome { secs, .. }) => {
                    failed.push(format!("{name}: {} ({})", check.name, check.what));
                    format!("FAILED, {secs} s")
                }
                None => "not run".into(),
            };
            print!("  {shown:>0$}", name.len().max(24));
        }
        println!();
    }
    let missing = columns.iter().any(|(_, outcomes)| outcomes.len() != checks.len());
    if failed.is_empty() && !missing {
        return Ok(());
    }
    for machine in machines {
        eprintln!("log of {}: {}", machine.name(), machine.log.display());
    }
    bail!("{}", failed.join("\n"))
}

/// Builds the node and its tests as the test suite does, so that nothing is built twice.
fn build_programs() -> Result<Programs> {
    build::object()?;
    let messages = read(cargo().args([
        "test",
        "--no-run",
        FEATURES,
        "--test=e2e",
        "--test=program_run",
        "--message-format=json",
    ]))?;
    let mut e2e = None;
    let mut program_run = None;
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: serde_json::Value = serde_json::from_str(line).context("cargo printed no JSON")?;
        let Some(executable) = message["executable"].as_str() else {
            continue;
        };
        match message["target"]["name"].as_str() {
            Some("e2e") => e2e = Some(PathBuf::from(executable)),
            Some("program_run") => program_run = Some(PathBuf::from(executable)),
            _ => {}
        }
    }
    Ok(Programs {
        node: dirs::target()?.join("debug/stream-router"),
        e2e: e2e.context("cargo names no program of the end-to-end tests")?,
        program_run: program_run.context("cargo names no program of the tests in the kernel")?,
    })
}

/// Returns the names of the tests in a program.
fn tests_of(program: &Path) -> Result<Vec<String>> {
    let listed = read(Command::new(program).args(["--list", "--format=terse"]))?;
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// Runs a command without any output but its errors.
fn quiet(command: &mut Command) -> Result<()> {
    read(command).map(drop)
}
