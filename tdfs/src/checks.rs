//! Checks before anything is mounted: wrong use gets one sentence that says what to do.
//!
//! Called by `daemon` once. Changes nothing that has a name.

use crate::args::Serve;
use crate::fuse::mount::{self, FSTYPE, MountInfo};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use tdfs_host::cli::{WrongUse, absolute, absolute_to_make, check_directory, stderr_inside, wrong};
use tdfs_host::{object, state};

/// Where everything is: absolute paths without symbolic links.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory that is distributed.
    pub directory: PathBuf,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Log and state.
    pub state: PathBuf,
    /// Replicas of embedded slaves.
    pub replicas: Vec<PathBuf>,
}

impl Places {
    /// Finds them, clears a dead tdfs's mount away, and checks that none lies inside another.
    pub fn find(serve: &Serve, replicas: &[PathBuf]) -> Result<Places, WrongUse> {
        if serve.adopt && replicas.is_empty() {
            return wrong(
                "--adopt is for slaves inside tdfs, and -c names none: give it to tdfs-slave".into(),
            );
        }
        let directory = absolute(&serve.directory)?;
        let mountpoint = serve.mountpoint.as_deref().map_or(Ok(directory.clone()), absolute)?;
        for path in [&directory, &mountpoint] {
            mount::clear_stale(path).map_err(|e| WrongUse(format!("{e:#}")))?;
            check_directory(path)?;
        }
        let state = match &serve.state {
            Some(path) => absolute_to_make(path)?,
            None => state::default_path(state::Side::Master, &directory)
                .map_err(|e| WrongUse(format!("no default state directory ({e}): give one with --state")))?,
        };
        let replicas = replicas.iter().map(|path| absolute_to_make(path)).collect::<Result<_, _>>()?;
        let places = Places { directory, mountpoint, state, replicas };
        places.check_nesting()?;
        Ok(places)
    }

    /// Checks that one more replica lies apart from all else.
    pub fn check_replica(&self, replica: &Path) -> Result<(), WrongUse> {
        Places { replicas: vec![replica.to_owned()], ..self.clone() }.check_nesting()
    }

    fn check_nesting(&self) -> Result<(), WrongUse> {
        let (directory, mountpoint) = (self.directory.display(), self.mountpoint.display());
        if self.mountpoint != self.directory {
            if self.mountpoint.starts_with(&self.directory) {
                return wrong(format!(
                    "the mountpoint {mountpoint} lies inside the directory {directory}: choose one outside"
                ));
            }
            if self.directory.starts_with(&self.mountpoint) {
                return wrong(format!(
                    "the directory {directory} lies inside the mountpoint {mountpoint}: choose another mountpoint"
                ));
            }
        }
        for tree in [&self.directory, &self.mountpoint] {
            if self.state.starts_with(tree) {
                let (state, tree) = (self.state.display(), tree.display());
                return wrong(format!(
                    "the state directory {state} would lie inside {tree}: give one outside with --state"
                ));
            }
            if let Some(log) = stderr_inside(tree) {
                let (log, tree) = (log.display(), tree.display());
                return wrong(format!(
                    "stderr goes to {log}, which lies inside {tree}: send it to a file outside"
                ));
            }
            for replica in &self.replicas {
                if replica.starts_with(tree) || tree.starts_with(replica) {
                    let (replica, tree) = (replica.display(), tree.display());
                    return wrong(format!(
                        "the replica {replica} and {tree} lie inside one another: choose another place for the replica"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Other file systems below the directory can't be distributed.
    pub fn check_mounts_below(&self, skip: bool) -> Result<(), WrongUse> {
        let mounts = mount::mounts().map_err(|e| WrongUse(format!("{e:#}")))?;
        let below = |mount: &MountInfo| {
            mount.mountpoint != self.directory && mount.mountpoint.starts_with(&self.directory)
        };
        match mounts.iter().find(|mount| below(mount)) {
            Some(mount) if !skip => wrong(format!(
                "{} is another file system mounted inside {}: unmount it, or leave it out with --skip-mounts",
                mount.mountpoint.display(),
                self.directory.display()
            )),
            _ => Ok(()),
        }
    }

    /// Files must be of the directory's own device, or they count as mounted: an overlayfs over several file systems gives
    /// each layer's a device of its own, and inode numbers that don't last. A file without a name tells; where
    /// none can be made, what differs is named when it is met.
    pub fn check_files_device(&self) -> Result<(), WrongUse> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let made = rustix::fs::open(&self.directory, flags, Mode::RUSR | Mode::WUSR);
        let differs = made.is_ok_and(|file| {
            let directory = rustix::fs::stat(&self.directory);
            let device = |fd: OwnedFd| object::stat(fd.as_fd()).map(|stat| object::device(&stat));
            matches!((device(file), directory), (Ok(own), Ok(directory)) if own != directory.st_dev)
        });
        if differs {
            return wrong(format!(
                "files in {} are of another device than the directory: where it is an overlayfs, mount it with xino=on, \
                 or with all layers on one file system",
                self.directory.display()
            ));
        }
        Ok(())
    }

    /// Takes the directory for this process: opened as a path fd, and locked as long as the second fd lives.
    pub fn take_directory(&self) -> Result<(OwnedFd, OwnedFd), WrongUse> {
        let shown = self.directory.display();
        let served = || WrongUse(format!("{shown} is served by another tdfs already: stop that one first"));
        for path in [&self.directory, &self.mountpoint] {
            let mount = mount::mount_at(path).map_err(|e| WrongUse(format!("{e:#}")))?;
            if mount.is_some_and(|mount| mount.fstype == FSTYPE) {
                return Err(served());
            }
        }
        let open = |flags| {
            rustix::fs::open(&self.directory, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| {
                    WrongUse(format!("{shown} can't be opened ({e}): give tdfs the right to read it"))
                })
        };
        let (root, lock) = (open(OFlags::PATH)?, open(OFlags::RDONLY)?);
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => Err(served()),
            Err(e) => wrong(format!("{shown} can't be locked: {e}")),
            Ok(()) => Ok((root, lock)),
        }
    }
}
