//! Two nodes of a program that was installed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use xtask::lab::probe::PingPlan;
use xtask::lab::{CleanRoot, Pair, PairPlan, ScratchDir};

/// Starts two nodes of a program, sends packets both ways and stops them.
pub(super) fn carry_packets(program: &Path) -> Result<()> {
    between_nodes(program, ScratchDir::unique("pair")?)
}

/// Does the same with the program that is installed in a root, on its libraries, and leaves nothing there.
pub(super) fn carry_packets_in(root: &CleanRoot) -> Result<()> {
    // The files of the nodes have the same paths inside and outside.
    let outside = root.path();
    let alias = outside.strip_prefix("/").context("a root has a whole path")?;
    let alias = outside.join(alias);
    let parent = alias.parent().context("a root is not /")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    symlink("/", &alias).with_context(|| format!("cannot link {}", alias.display()))?;
    let enter = ScratchDir::unique("enter")?;
    let program = enter.path().join("stream-router");
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'root={root}\n\
         for place in dev proc sys; do mount --rbind /$place $root/$place || exit; done\n\
         exec chroot $root /usr/bin/stream-router \"$@\"' sh \"$@\"\n",
        root = outside.display()
    );
    fs::write(&program, script).with_context(|| format!("cannot write {}", program.display()))?;
    fs::set_permissions(&program, Permissions::from_mode(0o755)).context("cannot make it executable")?;
    let files = ScratchDir::create(&outside.join("tmp/nodes"))?;
    let carried = between_nodes(&program, files);
    fs::remove_file(&alias).with_context(|| format!("cannot remove {}", alias.display()))?;
    carried
}

fn between_nodes(program: &Path, files: ScratchDir) -> Result<()> {
    let mut pair = Pair::prepare(program, &PairPlan::unique(), files)?;
    pair.start_nodes()?;
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        for address in [to.v4, to.v6] {
            let lost = PingPlan::new(address).run(&from.host)?.n_lost();
            ensure!(lost == 0, "{lost} pings to {address} were lost");
        }
    }
    for side in [&mut pair.a, &mut pair.b] {
        let ended = side.node.stop(Signal::SIGTERM)?;
        ensure!(ended.success(), "a node ended with {ended}");
    }
    Ok(())
}
