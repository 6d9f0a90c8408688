//! A disk with a file system of a kind, which can go down as in a power cut, and a machine that has booted anew since.
//!
//! A file system in a file, on a loop device: it is shut down without its journal being written out, then mounted again.
//! Another boot is a file bind-mounted over the kernel's boot id, so all of it lives in a mount namespace of its own:
//! [`in_own_mounts`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::temp_tree::mount_at;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// mkfs.xfs wants 300 MB; only what is written takes memory.
const IMAGE_BYTES: u64 = 512 << 20;
/// Set in the process that has its own mounts.
const INSIDE: &str = "TDFS_OWN_MOUNTS";

/// The disk.
#[derive(Debug)]
pub struct CrashDisk {
    image: PathBuf,
    place: PathBuf,
    /// Directories of it, and where else they are mounted.
    bound: Vec<(PathBuf, PathBuf)>,
}

impl CrashDisk {
    /// The disk in `home` that has a directory for each of `places`.
    pub fn new(home: &Path, places: &[&Path]) -> Self {
        let (image, place) = (home.join("disk.image"), home.join("disk"));
        let bound = places.iter().enumerate();
        let bound = bound.map(|(number, at)| (place.join(number.to_string()), (*at).to_owned())).collect();
        Self { image, place, bound }
    }

    /// Makes a file system of `kind`, and mounts its directories on their places: ext4 or xfs, and what can't go down,
    /// btrfs or tmpfs.
    pub fn make(&self, kind: &str) -> Result<()> {
        fs::create_dir(&self.place)?;
        if kind == "tmpfs" {
            run(Command::new("mount").args(["-t", "tmpfs", "tdfs-test"]).arg(&self.place))?;
        } else {
            File::create(&self.image)?.set_len(IMAGE_BYTES)?;
            // Large xattrs, as other file systems take them.
            let options: &[&str] = if kind == "ext4" { &["-b", "4096", "-O", "ea_inode"] } else { &[] };
            run(Command::new(format!("mkfs.{kind}")).arg("-q").args(options).arg(&self.image))?;
            self.attach()?;
        }
        for (dir, at) in &self.bound {
            fs::create_dir(dir)?;
            fs::create_dir_all(at)?;
            mount_bind(dir, at)?;
        }
        Ok(())
    }

    /// The power goes: what was not synced is gone, and nothing works any more.
    pub fn crash(&self) -> Result<()> {
        crate::sys::shut_file_system_down(&File::open(&self.place)?).context("shut the disk down")
    }

    /// The machine comes up again. Nobody may have anything open there any more.
    pub fn come_back(&self) -> Result<()> {
        for (_, at) in &self.bound {
            // Also the mount of a tdfs that was killed.
            while mount_at(at).is_some() {
                unmount(at, UnmountFlags::empty()).with_context(|| format!("unmount {}", at.display()))?;
            }
        }
        unmount(&self.place, UnmountFlags::empty()).context("unmount the disk")?;
        self.attach()?;
        for (dir, at) in &self.bound {
            mount_bind(dir, at)?;
        }
        Ok(())
    }

    fn attach(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.place))
    }
}

/// The machine has booted: daemons that start from now on find another boot id. `number` tells this boot from others.
pub fn boot(home: &Path, number: u32) -> Result<()> {
    let id = home.join("boot");
    let first = !id.exists();
    fs::write(&id, format!("00000000-0000-4000-8000-{number:012}\n"))?;
    if first {
        mount_bind(&id, BOOT_ID).context("mount another boot id")?;
    }
    Ok(())
}

/// Runs `test` in a process with a mount namespace of its own, which ends with it. `name` is the calling test's.
#[track_caller]
pub fn in_own_mounts(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let this = std::env::current_exe().expect("find this program");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(this).args([name, "--exact", "--nocapture"]);
    let ended = command.env(INSIDE, "1").status().expect("run the test in its own mounts");
    assert!(ended.success(), "{name} in its own mounts: {ended}");
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
