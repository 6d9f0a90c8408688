//! A temp directory that takes its mounts with it.
//!
//! Dropping it, also while a test panics, detaches whatever is mounted below it and removes the rest.
//! Also owns the look at what a test may have left behind there.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};

/// Mounts stacked on one another need more than one pass.
const UNMOUNT_PASSES: usize = 8;

/// One temp directory with everything that a test starts or mounts below it.
#[derive(Debug)]
pub struct TempTree {
    root: PathBuf,
}

/// One line of /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub place: PathBuf,
    /// The type, such as `tmpfs` or `fuse.tdfs`.
    pub kind: String,
}

impl TempTree {
    /// Makes one on tmpfs.
    pub fn new() -> Result<Self> {
        Self::below("/dev/shm")
    }

    /// Makes one on the disk, for what tmpfs does differently.
    pub fn on_disk() -> Result<Self> {
        Self::below("/tmp")
    }

    fn below(parent: &str) -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("tdfs-test.").tempdir_in(parent).context("make temp dir")?;
        let root = dir.keep();
        // Other users must get in: some tests act as nobody.
        std::fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .context("open temp dir to all")?;
        Ok(Self { root })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Makes the directory `name` in it.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.root.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    /// Names what still hangs on this tree: mounts, processes that name it, our own open files.
    pub fn leaks(&self) -> Vec<String> {
        let mut found = Vec::new();
        for mount in mounts_below(&self.root) {
            found.push(format!("mount {} on {}", mount.kind, mount.place.display()));
        }
        found.extend(processes_naming(&self.root));
        for (fd, target) in fds_of("self") {
            if target.starts_with(&self.root) {
                found.push(format!("fd {fd} of the test on {}", target.display()));
            }
        }
        found
    }

    /// Fails the test when something still hangs on this tree.
    #[track_caller]
    pub fn assert_no_leaks(&self) {
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "left behind:\n  {}", leaks.join("\n  "));
    }
}

impl Drop for TempTree {
    fn drop(&mut self) {
        unmount_below(&self.root);
        if std::env::var_os("TDFS_KEEP").is_some() {
            eprintln!("kept: {}", self.root.display());
        } else if let Err(error) = remove_tree(&self.root) {
            eprintln!("remove {}: {error}", self.root.display());
        }
    }
}

/// `rm -rf`, which (unlike std) does not mind a path beyond `PATH_MAX`. Never crosses into a mount.
fn remove_tree(root: &Path) -> std::io::Result<()> {
    let status = std::process::Command::new("rm").args(["-rf", "--one-file-system"]).arg(root).status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("rm ended with {status}"))) }
}

/// Detaches every mount at or below `root`, the youngest first.
pub fn unmount_below(root: &Path) {
    for _ in 0..UNMOUNT_PASSES {
        let mounts = mounts_below(root);
        if mounts.is_empty() {
            return;
        }
        for mount in mounts.iter().rev() {
            if let Err(error) = unmount(&mount.place, UnmountFlags::DETACH) {
                eprintln!("unmount {}: {error}", mount.place.display());
            }
        }
    }
}

/// The mounts at or below `root`, in the order in which they were made.
pub fn mounts_below(root: &Path) -> Vec<Mount> {
    all_mounts().into_iter().filter(|mount| mount.place.starts_with(root)).collect()
}

/// The topmost mount whose mountpoint is exactly `place`.
pub fn mount_at(place: &Path) -> Option<Mount> {
    all_mounts().into_iter().rev().find(|mount| mount.place == place)
}

fn all_mounts() -> Vec<Mount> {
    let text = std::fs::read("/proc/self/mountinfo").expect("read /proc/self/mountinfo");
    text.split(|byte| *byte == b'\n').filter_map(parse_mount).collect()
}

/// `36 35 98:0 /root /place options - type source superoptions`; any number of fields before the dash.
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let place = PathBuf::from(std::ffi::OsString::from_vec(unescape_octal(fields.get(4)?)));
    let kind = String::from_utf8_lossy(fields.get(dash + 1)?).into_owned();
    Some(Mount { place, kind })
}

/// Undoes the kernel's `\040` for a space and the like.
fn unescape_octal(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

/// Live processes whose command line names something below `root`.
fn processes_naming(root: &Path) -> Vec<String> {
    let needle = root.as_os_str().as_bytes();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(line) = std::fs::read(process.path().join("cmdline")) else { continue };
        if pid != std::process::id() && line.windows(needle.len()).any(|part| part == needle) {
            found.push(format!("process {pid}: {}", String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// The open files of a process (`self` or a pid), with what they are open on.
pub fn fds_of(pid: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        if let Ok(target) = std::fs::read_link(fd.path()) {
            found.push((fd.file_name().to_string_lossy().into_owned(), target));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{TempTree, mount_at, mounts_below, parse_mount};

    #[test]
    fn a_mount_with_a_space_is_read() {
        let mount = parse_mount(b"36 35 98:0 / /a\\040b rw,noatime shared:1 - fuse.tdfs tdfs:/x rw").unwrap();
        assert_eq!((mount.place.to_str(), mount.kind.as_str()), (Some("/a b"), "fuse.tdfs"));
    }

    #[test]
    fn mounts_go_with_the_tree_even_in_a_panic() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let tree = TempTree::new().unwrap();
            let dir = tree.dir("on it").unwrap();
            for _ in 0..2 {
                let flags = rustix::mount::MountFlags::empty();
                rustix::mount::mount("none", &dir, "tmpfs", flags, None).unwrap();
            }
            assert_eq!(mount_at(&dir).unwrap().kind, "tmpfs");
            assert_eq!(tree.leaks().len(), 2);
            sender.send(tree.path().to_owned()).unwrap();
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        let root = receiver.recv().unwrap();
        assert!(mounts_below(&root).is_empty());
        assert!(!root.exists());
    }
}
