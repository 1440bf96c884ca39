//! Checks that the service's user can read what the service is to read.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::finding::Finding;
use super::input::CheckInput;
use crate::config::INSTALLED_CONFIG;

/// Where a unit may be, the one that counts first.
const UNITS: [&str; 3] = [
    "/etc/systemd/system/stream-router.service",
    "/usr/lib/systemd/system/stream-router.service",
    "/lib/systemd/system/stream-router.service",
];

const READ: u32 = 0o4;
const SEARCH: u32 = 0o1;

/// Who asks for a file.
struct Identity {
    name: String,
    uid: Uid,
    gids: Vec<Gid>,
}

/// Looks at the configuration and the key, if the configuration is that of an installed service.
pub(super) fn check(input: &CheckInput) -> Vec<Finding> {
    const CHECK: &str = "service";
    if input.file.as_deref() != Some(Path::new(INSTALLED_CONFIG)) {
        return Vec::new();
    }
    let Some(unit) = UNITS.iter().find_map(|path| fs::read_to_string(path).ok()) else {
        return Vec::new();
    };
    let identity = match Identity::of_unit(&unit) {
        Ok(Some(identity)) => identity,
        Ok(None) => return vec![Finding::ok(CHECK, "it runs as root")],
        Err(finding) => return vec![finding],
    };
    [Path::new(INSTALLED_CONFIG), input.config.node().key()]
        .into_iter()
        .map(|file| judge(file, &identity, identity.obstacle(file)))
        .collect()
}

impl Identity {
    /// Returns the user of a unit; `None` stands for root.
    fn of_unit(unit: &str) -> Result<Option<Self>, Finding> {
        const CHECK: &str = "service";
        let setting = |name: &str| {
            let values = unit.lines().filter_map(|line| line.trim().strip_prefix(name));
            values
                .filter_map(|rest| rest.trim_start().strip_prefix('='))
                .next_back()
                .map(str::trim)
        };
        let Some(name) = setting("User").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let user = match User::from_name(name) {
            Ok(Some(user)) => user,
            Ok(None) => {
                return Err(Finding::problem(CHECK, format!("its user {name} does not exist"))
                    .fix("systemd-sysusers"));
            }
            Err(errno) => {
                return Err(Finding::unknown(
                    CHECK,
                    format!("the system does not say who {name} is: {errno}"),
                ));
            }
        };
        let group = setting("Group").and_then(|group| Group::from_name(group).ok().flatten());
        let gid = group.map_or(user.gid, |group| group.gid);
        let mut gids = vec![gid];
        if let Ok(name) = std::ffi::CString::new(name) {
            gids.extend(getgrouplist(&name, gid).unwrap_or_default());
        }
        let (name, uid) = (user.name, user.uid);
        Ok((!uid.is_root()).then_some(Self { name, uid, gids }))
    }

    /// Returns the first directory or file on the way to `file` that this user may not use, if there is one.
    fn obstacle(&self, file: &Path) -> io::Result<Option<PathBuf>> {
        let file = fs::canonicalize(file)?;
        let mut way: Vec<_> = file.ancestors().collect();
        way.reverse();
        for (i, place) in way.iter().enumerate() {
            let wanted = if i + 1 == way.len() { READ } else { SEARCH };
            if !self.may(&fs::metadata(place)?, wanted) {
                return Ok(Some(place.to_path_buf()));
            }
        }
        Ok(None)
    }

    fn may(&self, file: &fs::Metadata, wanted: u32) -> bool {
        let shift = if file.uid() == self.uid.as_raw() {
            6
        } else if self.gids.contains(&Gid::from_raw(file.gid())) {
            3
        } else {
            0
        };
        file.mode() >> shift & wanted != 0
    }
}

fn judge(file: &Path, identity: &Identity, obstacle: io::Result<Option<PathBuf>>) -> Finding {
    const CHECK: &str = "service";
    let name = &identity.name;
    let finding = match obstacle {
        Ok(None) => Finding::ok(CHECK, format!("its user {name} can read it")),
        Ok(Some(place)) => {
            let what = if place == file { "read it" } else { "pass" };
            let fix = if place == file {
                format!("chown {name} {}", place.display())
            } else {
                format!("chmod o+x {}", place.display())
            };
            let detail = format!("its user {name} may not {what}: {}", place.display());
            Finding::problem(CHECK, detail).fix(fix)
        }
        // Those are the findings of others.
        Err(error) => Finding::unknown(CHECK, format!("cannot be looked at: {error}")),
    };
    finding.about(file.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use xtask::lab::ScratchDir;

    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn the_user_of_a_unit_is_the_one_set_last() {
        let user = |unit| Identity::of_unit(unit);
        assert!(user("[Service]\nExecStart=/bin/true\n").unwrap().is_none());
        assert!(user("User=root\n").unwrap().is_none());
        assert!(user("User=nobody\nUser=\n").unwrap().is_none());
        let nobody = user("User=root\n User = nobody\n").unwrap().unwrap();
        assert_eq!(nobody.name, "nobody");
        let finding = user("User=no-such-user\n").err().unwrap();
        assert_eq!(finding.verdict, Verdict::Problem);
    }

    #[test]
    fn a_file_is_reached_through_directories_that_may_be_searched() {
        let own = ScratchDir::unique("service").unwrap();
        let inner = own.path().join("inner");
        let file = inner.join("file");
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let stranger = Identity {
            name: "stranger".to_owned(),
            uid: Uid::from_raw(60_001),
            gids: vec![Gid::from_raw(60_001)],
        };
        let owner = Identity {
            name: "owner".to_owned(),
            uid: Uid::current(),
            gids: Vec::new(),
        };
        set(own.path(), 0o711);
        set(&inner, 0o700);
        set(&file, 0o644);
        assert_eq!(
            stranger.obstacle(&file).unwrap(),
            Some(inner.canonicalize().unwrap())
        );
        set(&inner, 0o711);
        assert_eq!(stranger.obstacle(&file).unwrap(), None);
        set(&file, 0o600);
        assert_eq!(
            stranger.obstacle(&file).unwrap(),
            Some(file.canonicalize().unwrap())
        );
        assert_eq!(owner.obstacle(&file).unwrap(), None);

        let finding = judge(&file, &stranger, Ok(Some(file.clone())));
        assert_eq!(finding.verdict, Verdict::Problem);
        assert_eq!(finding.fix, Some(format!("chown stranger {}", file.display())));
        assert_eq!(judge(&file, &owner, Ok(None)).verdict, Verdict::Ok);
    }
}
