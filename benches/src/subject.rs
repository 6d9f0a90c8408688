//! The filesystems that are compared, and how each is mounted and unmounted.
//!
//! A `Mounted` unmounts when it is dropped, so a failed run leaves nothing behind; a good run calls
//! `unmount`, which also says whether the subject ended as it should.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);
/// For `tdfs wait`: the initial copy of 100,000 files fits into it many times.
const WAIT_SECONDS: &str = "300";

/// Where one run lives: backing tree, mountpoint, replica and state below one directory.
pub struct Place {
    /// Holds all of it; on tmpfs.
    pub dir: PathBuf,
    /// The tdfs program, if one is measured.
    pub tdfs: Option<PathBuf>,
}

impl Place {
    /// Removes what the last run left and makes an empty backing tree.
    pub fn fresh(&self) -> anyhow::Result<PathBuf> {
        for name in ["backing", "mount", "replica", "state"] {
            match fs::remove_dir_all(self.dir.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {name} of the last run"));
                }
                _ => {}
            }
        }
        let backing = self.dir.join("backing");
        fs::create_dir(&backing)?;
        Ok(backing)
    }
}

/// One filesystem that is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The backing tree itself.
    Native,
    /// Debian's bindfs with its defaults: it passes a directory through FUSE and does nothing else.
    Bindfs,
    /// TDFS, mounted in place, with one embedded slave.
    Tdfs,
    /// The same with LZF.
    TdfsLzf,
}

impl Subject {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Native, Self::Bindfs, Self::Tdfs, Self::TdfsLzf];

    /// Its name in tables and on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Bindfs => "bindfs",
            Self::Tdfs => "tdfs",
            Self::TdfsLzf => "tdfs-z1",
        }
    }

    /// Whether it is a form of TDFS.
    pub fn is_tdfs(&self) -> bool {
        matches!(self, Self::Tdfs | Self::TdfsLzf)
    }

    /// The Debian package it lacks, if it can't run here.
    pub fn missing(&self) -> Option<&'static str> {
        let runs = || Command::new("bindfs").arg("--version").stdout(Stdio::null()).status().is_ok();
        (*self == Self::Bindfs && !runs()).then_some("bindfs")
    }

    /// Mounts it over the place's backing tree and waits until it is ready to be measured.
    pub fn mount(&self, place: &Place) -> anyhow::Result<Mounted> {
        match self {
            Self::Native => Ok(Mounted { path: place.dir.join("backing"), daemon: None }),
            Self::Bindfs => mount_bindfs(place),
            Self::Tdfs => mount_tdfs(place, "0"),
            Self::TdfsLzf => mount_tdfs(place, "1"),
        }
    }
}

/// A mounted subject.
pub struct Mounted {
    path: PathBuf,
    daemon: Option<Daemon>,
}

impl Mounted {
    /// Where the work is done.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The process id of the filesystem's daemon.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(|daemon| daemon.child.id())
    }

    /// Stops the daemon as a user would and insists on a clean end.
    pub fn unmount(mut self) -> anyhow::Result<()> {
        self.daemon.take().map_or(Ok(()), Daemon::stop)
    }
}

/// When a daemon is ready to be measured.
pub enum Ready {
    /// Its filesystem is mounted there.
    Mounted(PathBuf),
    /// It listens on this port of the loopback.
    Listens(u16),
}

impl Ready {
    fn is_so(&self) -> anyhow::Result<bool> {
        match self {
            Self::Mounted(mountpoint) => is_mountpoint(mountpoint),
            Self::Listens(port) => Ok(TcpStream::connect(("127.0.0.1", *port)).is_ok()),
        }
    }
}

/// A process in the foreground: a filesystem's, or the receiving side of a copy. Killed when it is dropped.
pub struct Daemon {
    child: Child,
    ready: Ready,
    log: PathBuf,
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub fn start(mut command: Command, ready: Ready, log: PathBuf) -> anyhow::Result<Self> {
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let mut daemon = Self { child, ready, log };
        let deadline = Instant::now() + START_MAX;
        while !daemon.ready.is_so()? {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("it ended with {status} before it was ready: {}", daemon.said());
            }
            ensure!(Instant::now() < deadline, "not ready after {START_MAX:?}: {}", daemon.said());
            std::thread::sleep(POLL);
        }
        Ok(daemon)
    }

    /// Stops it as a user would and insists on a clean end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = Pid::from_raw(i32::try_from(self.child.id())?) {
            kill_process(pid, Signal::TERM).context("send SIGTERM")?;
        }
        let deadline = Instant::now() + STOP_MAX;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => bail!("it does not end: {}", self.said()),
                None => std::thread::sleep(POLL),
            }
        };
        ensure!(status.success(), "it ended with {status}: {}", self.said());
        ensure!(!self.ready.is_so()?, "it has ended, but its mount or port is still there");
        Ok(())
    }

    /// What the daemon printed, for a message.
    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After a good stop there is no process and no mount, and both lines do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Ready::Mounted(mountpoint) = &self.ready
            && is_mountpoint(mountpoint).unwrap_or(false)
        {
            let _ = Command::new("umount").arg("-l").arg(mountpoint).status();
        }
    }
}

fn mount_bindfs(place: &Place) -> anyhow::Result<Mounted> {
    let path = place.dir.join("mount");
    fs::create_dir(&path)?;
    let mut command = Command::new("bindfs");
    command.arg("-f").arg(place.dir.join("backing")).arg(&path);
    let daemon = Daemon::start(command, Ready::Mounted(path.clone()), place.dir.join("bindfs.log"))?;
    Ok(Mounted { path, daemon: Some(daemon) })
}

fn mount_tdfs(place: &Place, codec: &str) -> anyhow::Result<Mounted> {
    let program = place.tdfs.as_ref().context("no tdfs program")?;
    let path = place.dir.join("backing");
    let state = place.dir.join("state");
    let mut command = Command::new(program);
    command.arg("-m").arg(&path).arg("-c").arg(place.dir.join("replica")).args(["-z", codec]);
    command.arg("--state").arg(&state);
    let daemon = Daemon::start(command, Ready::Mounted(path.clone()), place.dir.join("tdfs.log"))?;
    let mounted = Mounted { path: path.clone(), daemon: Some(daemon) };
    // The initial copy is no part of any figure here; the kernel's caches of the mount are as cold after it.
    wait_until_equal(program, &path, &state)?;
    Ok(mounted)
}

/// Runs `tdfs wait`: after it all slaves are equal.
pub fn wait_until_equal(program: &Path, path: &Path, state: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(["wait", "--timeout", WAIT_SECONDS, "-m"]).arg(path).arg("--state").arg(state);
    let equal = command.output().context("run tdfs wait")?;
    ensure!(equal.status.success(), "tdfs wait: {}", String::from_utf8_lossy(&equal.stderr));
    Ok(())
}

/// Whether a FUSE filesystem is mounted on exactly `path`.
fn is_mountpoint(path: &Path) -> anyhow::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().any(|line| {
        let mut fields = line.split(' ');
        let on = fields.nth(4).is_some_and(|on| Path::new(on) == path);
        on && line.split(" - ").nth(1).is_some_and(|kind| kind.starts_with("fuse"))
    }))
}
