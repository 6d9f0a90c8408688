//! The file systems below the mount and the modes of tdfs in which the suites run.

use std::fmt;
use std::path::Path;

use crate::cluster::{Cluster, ClusterBuilder, ClusterPaths};
use crate::crash_disk::CrashDisk;
use crate::daemon::Binaries;

/// A file system that the master's directory and the replica lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// In a file, on a loop device.
    Ext4,
    /// The same.
    Xfs,
    /// The same.
    Btrfs,
    /// Mounted for the cluster alone.
    Tmpfs,
}

impl Backing {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Tmpfs];

    /// Its type, as mount(8) names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
        }
    }

    /// Makes one in `home`, with a directory of it on each of `places`.
    pub fn make(self, home: &Path, places: &[&Path]) {
        CrashDisk::new(home, places).make(self.name()).expect("make a file system");
    }

    /// The same below a cluster, before it starts.
    pub fn prepare(self) -> fn(&ClusterPaths) {
        fn below(backing: Backing, paths: &ClusterPaths) {
            let home = paths.backing.parent().expect("find the cluster's home");
            backing.make(home, &[&paths.backing, &paths.replicas[0]]);
        }
        match self {
            Self::Ext4 => |paths| below(Self::Ext4, paths),
            Self::Xfs => |paths| below(Self::Xfs, paths),
            Self::Btrfs => |paths| below(Self::Btrfs, paths),
            Self::Tmpfs => |paths| below(Self::Tmpfs, paths),
        }
    }
}

/// How tdfs is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// With a MOUNTPOINT, and not in place.
    pub elsewhere: bool,
    /// The kernel reads files itself.
    pub passthrough: bool,
    /// `-z 1`.
    pub compressed: bool,
}

impl Mode {
    /// Each place with and without `--passthrough`, and each of these four with and without `-z 1` once.
    pub const ALL: [Self; 4] = [
        Self { elsewhere: false, passthrough: false, compressed: false },
        Self { elsewhere: true, passthrough: false, compressed: true },
        Self { elsewhere: false, passthrough: true, compressed: true },
        Self { elsewhere: true, passthrough: true, compressed: false },
    ];

    /// A cluster in this mode with an embedded slave.
    pub fn builder(self, binaries: Binaries) -> ClusterBuilder {
        let builder = Cluster::builder(binaries).embedded();
        let builder = if self.elsewhere { builder.elsewhere() } else { builder };
        let builder = if self.passthrough { builder.flag("--passthrough") } else { builder };
        if self.compressed { builder.compressed() } else { builder.flag("-z").flag("0") }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.elsewhere { "mountpoint" } else { "in place" })?;
        f.write_str(if self.compressed { ", `-z 1`" } else { ", `-z 0`" })?;
        f.write_str(if self.passthrough { ", `--passthrough`" } else { "" })
    }
}

#[test]
fn every_pair_of_choices_occurs() {
    let pairs =
        |of: fn(&Mode) -> (bool, bool)| Mode::ALL.iter().map(of).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(pairs(|mode| (mode.elsewhere, mode.passthrough)).len(), 4);
    assert_eq!(pairs(|mode| (mode.elsewhere, mode.compressed)).len(), 4);
    assert_eq!(pairs(|mode| (mode.passthrough, mode.compressed)).len(), 4);
}
