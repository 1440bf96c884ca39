//! Pins of programs and maps, for bpftool and other observers.

use std::error::Error;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::{AccessFlags, faccessat, geteuid};
use tracing::warn;

use super::bpf;
use super::error::KernelError;
use super::maps::lock;

/// Where the BPF file system is usually mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Directory of all nodes below it.
const ROOT: &str = "stream-router";

/// The pin directory of one device, locked while this lives and removed with it.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    lock: Mutex<Flock<File>>,
    pinned: Mutex<Vec<Pinned>>,
}

/// What is pinned, to pin it again.
#[derive(Debug)]
struct Pinned {
    name: String,
    object: OwnedFd,
}

impl Pins {
    /// Takes `<bpffs>/stream-router/<device>`, clearing what a killed node left there.
    ///
    /// `None`, with a warning, where no BPF file system is mounted, where it is not this user's to write to, or where the
    /// node of a device of this name in another network namespace was first: a node does without.
    ///
    /// # Errors
    /// It cannot be made, locked or cleared.
    pub(super) fn take(bpffs: &Path, device: &str) -> Result<Option<Self>, KernelError> {
        let is_bpffs = |path: &Path| statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
        // The service sees nothing of the BPF file system but our directory.
        if !is_bpffs(bpffs) && !is_bpffs(&bpffs.join(ROOT)) {
            warn!(
                path = %bpffs.display(),
                "no BPF file system here: going on without pins; `mount -t bpf bpf {}` gives one", bpffs.display()
            );
            return Ok(None);
        }
        let directory = bpffs.join(ROOT).join(device);
        match Self::take_directory(directory) {
            Err(KernelError::Pins { action, path, source }) if is_forbidden(&*source) => {
                warn!(
                    path = %path.display(),
                    "this user may not {action} the directory of its pins: going on without pins; `chown` gives it to the user"
                );
                Ok(None)
            }
            taken => taken,
        }
    }

    fn take_directory(directory: PathBuf) -> Result<Option<Self>, KernelError> {
        let failed = |action| {
            let path = directory.clone();
            move |source: io::Error| KernelError::Pins {
                action,
                path,
                source: source.into(),
            }
        };
        make(&directory).map_err(failed("make"))?;
        let opened = File::open(&directory).map_err(failed("open"))?;
        // Another user's node may have left it.
        faccessat(AT_FDCWD, &directory, AccessFlags::W_OK, AtFlags::AT_EACCESS)
            .map_err(|errno| failed("write to")(errno.into()))?;
        // The lock ends with its process, however that ends.
        let lock = match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::Error::EWOULDBLOCK)) => {
                warn!(
                    path = %directory.display(),
                    "another network namespace has a node with a device of this name: going on without pins; another \
                     device name gives them back"
                );
                return Ok(None);
            }
            Err((_, error)) => return Err(failed("lock")(error.into())),
        };
        clear(&directory).map_err(failed("clear"))?;
        Ok(Some(Self {
            directory,
            lock: Mutex::new(lock),
            pinned: Mutex::default(),
        }))
    }

    /// Returns where they are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Pins what is called `name` with `pin`.
    ///
    /// # Errors
    /// The kernel refuses the pin.
    pub(super) fn pin<E: Error + Send + Sync + 'static>(
        &self,
        name: &str,
        pin: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), KernelError> {
        let path = self.directory.join(name);
        pin(&path).map_err(|error| self.failed("pin", name, error))?;
        let object = bpf::open_pin(&path).map_err(|error| self.failed("open the pin", name, error))?;
        lock(&self.pinned).push(Pinned {
            name: name.to_owned(),
            object,
        });
        Ok(())
    }

    /// Returns the names of the pins that somebody has removed.
    pub(super) fn missing(&self) -> Vec<String> {
        let pinned = lock(&self.pinned);
        let is_missing = |pinned: &&Pinned| !self.directory.join(&pinned.name).exists();
        let missing = pinned.iter().filter(is_missing);
        missing.map(|pinned| pinned.name.clone()).collect()
    }

    /// Pins again what somebody has removed, and makes and locks the directory again if it was removed too.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn restore(&self) -> Result<(), KernelError> {
        if !self.directory.exists() {
            make(&self.directory).map_err(|error| self.failed("make", "", error))?;
            let opened = File::open(&self.directory).map_err(|error| self.failed("open", "", error))?;
            let locked = Flock::lock(opened, FlockArg::LockExclusiveNonblock);
            *lock(&self.lock) =
                locked.map_err(|(_, errno)| self.failed("lock", "", io::Error::from(errno)))?;
        }
        for pinned in lock(&self.pinned).iter() {
            let path = self.directory.join(&pinned.name);
            if !path.exists() {
                bpf::pin(pinned.object.as_fd(), &path)
                    .map_err(|error| self.failed("pin", &pinned.name, error))?;
            }
        }
        Ok(())
    }

    fn failed(
        &self,
        action: &'static str,
        name: &str,
        error: impl Error + Send + Sync + 'static,
    ) -> KernelError {
        KernelError::Pins {
            action,
            path: self.directory.join(name),
            source: Box::new(error),
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let removed = clear(&self.directory).and_then(|()| fs::remove_dir(&self.directory));
        if let Err(error) = removed {
            warn!(path = %self.directory.display(), %error, "cannot remove the pins");
        }
        // The parent stays while another node has pins below it, or if it was made for the service's user.
        if let Some(root) = self.directory.parent()
            && fs::metadata(root).is_ok_and(|root| root.uid() == geteuid().as_raw())
        {
            let _ = fs::remove_dir(root);
        }
    }
}

/// Removes the pins that a killed node has left of a device, and returns where they were; `None` if there are none, or a
/// node has them.
///
/// # Errors
/// They cannot be removed.
pub fn remove_left_pins(bpffs: &Path, device: &str) -> io::Result<Option<PathBuf>> {
    let directory = bpffs.join(ROOT).join(device);
    let opened = match File::open(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
        Ok(_lock) => {
            clear(&directory)?;
            fs::remove_dir(&directory)?;
            Ok(Some(directory))
        }
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}

fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn is_forbidden(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn clear(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::unistd::{Uid, setfsuid};

    use super::*;
    use xtask::lab::ScratchDir;

    const NOBODY: Uid = Uid::from_raw(65_534);

    #[test]
    fn a_user_who_may_not_write_to_the_file_system_does_without_pins() {
        let directory = ScratchDir::unique("pins").unwrap();
        let bpffs = directory.path();
        fs::set_permissions(bpffs, PermissionsExt::from_mode(0o755)).unwrap();
        mount(
            Some("bpf"),
            bpffs,
            Some("bpf"),
            MsFlags::empty(),
            Some("mode=755"),
        )
        .unwrap();
        let take_as = |user| {
            // The user of file accesses is the thread's own.
            let take = || {
                setfsuid(user);
                Pins::take(bpffs, "sr0").map(|pins| pins.is_some())
            };
            thread::scope(|scope| scope.spawn(take).join().unwrap())
        };

        let refused = take_as(NOBODY);
        let taken = take_as(Uid::from_raw(0));
        // What another user's node has left is no more theirs.
        fs::create_dir_all(bpffs.join(ROOT).join("sr0")).unwrap();
        let left = take_as(NOBODY);
        umount2(bpffs, MntFlags::MNT_DETACH).unwrap();

        assert!(!refused.unwrap());
        assert!(taken.unwrap());
        assert!(!left.unwrap());
    }
}
