//! The mount: made by mount(2) as root, by fusermount3 for an ordinary user; taken away by us alone if it
//! is still ours; a dead one of an earlier tdfs cleared.
//!
//! fuser's own mounting is not used: its unmount can take away a file system of the user (FACTS.md 1.1).

use anyhow::{Context, bail};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};
use std::ffi::{CString, OsString};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Type of our mounts in mount tables.
pub const FSTYPE: &str = "fuse.tdfs";
/// Most bytes of one READ.
const MAX_READ: u32 = 1 << 20;

/// One line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// major:minor of the file system.
    pub device: String,
    /// What of the file system it shows.
    pub root: PathBuf,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Its type.
    pub fstype: String,
}

/// All mounts of this process's namespace, in the order in which they were made.
pub fn mounts() -> anyhow::Result<Vec<MountInfo>> {
    let text = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(text.split(|&b| b == b'\n').filter_map(parse_mount).collect())
}

fn parse_mount(line: &[u8]) -> Option<MountInfo> {
    let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    Some(MountInfo {
        device: String::from_utf8_lossy(fields.get(2)?).into_owned(),
        root: PathBuf::from(OsString::from_vec(unescape(fields.get(3)?))),
        mountpoint: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        fstype: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
    })
}

/// Undoes the octal escapes of mountinfo (space, tab, newline, backslash).
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let code = text.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if text[at] == b'\\' => {
                bytes.push(byte);
                at += 4;
            }
            _ => {
                bytes.push(text[at]);
                at += 1;
            }
        }
    }
    bytes
}

/// The mount that one sees at `path`: the last one made there.
pub fn mount_at(path: &Path) -> anyhow::Result<Option<MountInfo>> {
    Ok(mounts()?.into_iter().rfind(|mount| mount.mountpoint == path))
}

/// Takes away a mount of a tdfs that is dead. Returns true if there was one.
pub fn clear_stale(path: &Path) -> anyhow::Result<bool> {
    let mut cleared = false;
    // statfs always asks the daemon; what stat wants may still be cached by the kernel.
    while matches!(rustix::fs::statfs(path), Err(Errno::NOTCONN)) {
        match mount_at(path)? {
            Some(mount) if mount.fstype == FSTYPE => unmount_path(path)?,
            _ => bail!(
                "{}: a dead FUSE mount that is not of tdfs lies there; unmount it first",
                path.display()
            ),
        }
        cleared = true;
    }
    Ok(cleared)
}

/// A mount that this process made.
#[derive(Debug)]
pub struct Mount {
    mountpoint: PathBuf,
    device: String,
}

impl Mount {
    /// Mounts at `mountpoint` (absolute, no symlinks in it); returns the /dev/fuse fd of the new connection.
    pub fn new(source: &Path, mountpoint: &Path) -> anyhow::Result<(Mount, OwnedFd)> {
        let fuse = if rustix::process::geteuid().is_root() {
            mount_as_root(source, mountpoint)?
        } else {
            mount_as_user(source, mountpoint)?
        };
        let device = mount_at(mountpoint)?.context("the new mount is not in the mount table")?.device;
        Ok((Mount { mountpoint: mountpoint.into(), device }, fuse))
    }

    /// Where it is.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// True while it is what one sees at its mountpoint.
    pub fn is_there(&self) -> bool {
        let ours = |mount: MountInfo| mount.device == self.device && mount.fstype == FSTYPE;
        mount_at(&self.mountpoint).ok().flatten().is_some_and(ours)
    }

    /// Writes all dirty pages of mapped files out through the mount (they arrive as writes).
    pub fn sync(&self) -> std::io::Result<()> {
        let root = rustix::fs::open(
            &self.mountpoint,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(rustix::fs::syncfs(root)?)
    }

    /// Takes it away, lazily where a file is open; does nothing if it is gone already.
    pub fn unmount(&self) -> anyhow::Result<()> {
        if self.is_there() { unmount_path(&self.mountpoint) } else { Ok(()) }
    }
}

fn unmount_path(path: &Path) -> anyhow::Result<()> {
    let what = || format!("unmount {}", path.display());
    if rustix::process::geteuid().is_root() {
        return rustix::mount::unmount(path, UnmountFlags::DETACH).with_context(what);
    }
    let status =
        Command::new("fusermount3").args(["-u", "-z", "-q", "--"]).arg(path).status().with_context(what)?;
    if status.success() { Ok(()) } else { bail!("{}: fusermount3 ended with {status}", what()) }
}

/// Whether /dev/fuse can be used, before anything is changed. For an ordinary user fusermount3 opens it.
pub fn check_device() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists() {
        return Ok(());
    }
    match rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Ok(()),
        Err(Errno::NOENT) => Err("there is no /dev/fuse: load the kernel module fuse (modprobe fuse)".into()),
        Err(e) => {
            Err(format!("/dev/fuse can't be opened ({e}): run tdfs as root or allow this user to use it"))
        }
    }
}

fn mount_as_root(source: &Path, mountpoint: &Path) -> anyhow::Result<OwnedFd> {
    let fuse = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .context("open /dev/fuse")?;
    let root_mode =
        rustix::fs::stat(mountpoint).with_context(|| format!("stat {}", mountpoint.display()))?.st_mode;
    let options = format!(
        "fd={},rootmode={:o},user_id=0,group_id=0,default_permissions,allow_other,max_read={MAX_READ}",
        fuse.as_raw_fd(),
        root_mode & libc::S_IFMT,
    );
    let options = CString::new(options).context("mount options")?;
    let mut named = b"tdfs:".to_vec();
    named.extend_from_slice(source.as_os_str().as_bytes());
    let named = CString::new(named).context("name of the mount")?;
    rustix::mount::mount(&*named, mountpoint, FSTYPE, flags_of(source)?, &*options)
        .with_context(|| format!("mount on {}", mountpoint.display()))?;
    Ok(fuse)
}

/// What the backing file system's mount forbids is forbidden through ours, too.
fn flags_of(source: &Path) -> anyhow::Result<MountFlags> {
    let backing =
        rustix::fs::statvfs(source).with_context(|| format!("statvfs {}", source.display()))?.f_flag;
    let pairs = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
    ];
    let set = pairs.into_iter().filter(|(there, _)| backing.contains(*there)).map(|(_, ours)| ours);
    Ok(set.fold(MountFlags::empty(), MountFlags::union))
}

/// fusermount3(1) mounts for us and passes the fd over a socket whose number it finds in _FUSE_COMMFD.
fn mount_as_user(source: &Path, mountpoint: &Path) -> anyhow::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("socketpair")?;
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).context("pass a socket on")?;
    let name = source.display().to_string().replace('\\', "\\\\").replace(',', "\\,");
    let options =
        format!("rw,nosuid,nodev,default_permissions,subtype=tdfs,fsname=tdfs:{name},max_read={MAX_READ}");
    let status = Command::new("fusermount3")
        .args(["-o", &options, "--"])
        .arg(mountpoint)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .status()
        .context("run fusermount3 (Debian package fuse3)")?;
    if !status.success() {
        bail!("fusermount3 could not mount on {}: {status}", mountpoint.display());
    }
    drop(theirs);
    receive_fd(&ours).context("take the fd from fusermount3")
}

fn receive_fd(socket: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.context("no fd came")
}

#[cfg(test)]
mod tests;
