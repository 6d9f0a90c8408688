//! The state directory: where it is, who holds it, and the small JSON files in it.
//!
//! Used by both daemons and their commands. Files are replaced whole and are on the disk when a write
//! returns. Each says its version; one from a later TDFS is refused, a damaged one is an error that names it.

use crate::step::step;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use tdfs_wire::version::STATE;

/// Longest file name that all file systems take.
const NAME_BYTES_MAX: usize = 255;
/// Most symbolic links that are followed at the end of a path.
const LINKS_MAX: usize = 40;
/// Most bytes that a state file may have.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Whose state it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The master's.
    Master,
    /// A slave's.
    Slave,
}

/// Why the state can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A system call failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the state directory {} is in use by process {pid}: is the daemon running already?", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as it wrote itself down.
        pid: String,
    },
    /// A later TDFS wrote it.
    #[error(
        "{} has version {theirs}, this program knows {STATE}: it was written by a later TDFS; install that version again, or use another state directory", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        theirs: u64,
    },
    /// Others than its owner can read it.
    #[error(
        "{} is a secret and can be reached by others (mode {mode:04o}): chmod 600 it if nobody else has read it, or \
         remove it, and a new key is made, which the other side has to be told of", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody else than this user, or root, has put it there.
    #[error("{} belongs to another user ({uid}): it is not taken for this daemon's", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others may replace what is in the state directory. (Where the sticky bit lets them only add to it, as in a
    /// tmpfs, their files are not read.)
    #[error("others may write to the state directory {} (mode {mode:04o}): chmod 700 it", path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not what was written.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Where the state of a daemon is by default: `master-` or `slave-` and the escaped path of the directory it
/// serves, below /var/lib/tdfs for root, `$XDG_STATE_HOME/tdfs` or ~/.local/state/tdfs else.
///
/// # Errors
/// When an ordinary user has no home.
pub fn default_path(side: Side, served: &Path) -> io::Result<PathBuf> {
    let base = if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/lib/tdfs")
    } else {
        let own = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
        let why = "neither XDG_STATE_HOME nor HOME is set: say where the state belongs with --state";
        own.or_else(home).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, why))?.join("tdfs")
    };
    Ok(base.join(name_of(side, served)))
}

/// The absolute path of `path`, its symbolic links followed, without asking anything of the directory itself:
/// a dead mount may lie there.
///
/// # Errors
/// When the directory above it can't be reached.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        let Some(name) = path.file_name() else {
            return std::fs::canonicalize(&path); // `/`, `.` or `..` at its end
        };
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        let above = std::fs::canonicalize(above.unwrap_or(Path::new(".")))?;
        let full = above.join(name);
        match std::fs::read_link(&full) {
            Ok(target) => path = above.join(target),
            Err(_) => return Ok(full),
        }
    }
    Err(io::Error::from(rustix::io::Errno::LOOP))
}

fn name_of(side: Side, served: &Path) -> String {
    let side = match side {
        Side::Master => "master",
        Side::Slave => "slave",
    };
    let name = format!("{side}-{}", escape(served));
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let hash = blake3::hash(served.as_os_str().as_bytes()).to_hex();
    // An escape may be cut in two; the hash makes the name unique, the rest is for people.
    format!("{}-{}", &name[..NAME_BYTES_MAX - 33], &hash[..32])
}

/// What `systemd-escape --path` makes of an absolute path.
pub fn escape(path: &Path) -> String {
    let mut escaped = String::new();
    let parts = path.as_os_str().as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    for (i, part) in parts.enumerate() {
        if i > 0 {
            escaped.push('-');
        }
        for (j, byte) in part.iter().enumerate() {
            match byte {
                b'.' if i == 0 && j == 0 => escaped.push_str("\\x2e"),
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b':' | b'_' | b'.' => {
                    escaped.push(char::from(*byte))
                }
                byte => escaped.push_str(&format!("\\x{byte:02x}")),
            }
        }
    }
    if escaped.is_empty() { "-".into() } else { escaped }
}

/// A state directory that this process holds.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    dir: OwnedFd,
    _lock: File,
}

impl StateDir {
    /// Makes the directory if it is missing, with mode 0700, and takes its exclusive lock.
    ///
    /// # Errors
    /// [`StateError::Locked`] if another process holds it.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        let fail = |action| move |source: io::Error| io_error(action, path, source);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail("make directory"))?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| fail("open")(e.into()))?;
        let mode = rustix::fs::fstat(&dir).map_err(|e| fail("look at")(e.into()))?.st_mode & 0o7777;
        if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            return Err(StateError::Writable { path: path.to_owned(), mode });
        }
        let lock = take_lock(path, dir.as_fd())?;
        let path = std::fs::canonicalize(path).map_err(fail("find"))?;
        Ok(StateDir { path, dir, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Reads a file; None if there is none.
    ///
    /// # Errors
    /// When it can't be read, is damaged, or from a later TDFS.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let text = self.read_bytes(name, FILE_BYTES_MAX)?;
        text.map(|text| parse(&self.path.join(name), &text)).transpose()
    }

    /// Replaces a file; when this returns, it is on the disk.
    ///
    /// # Errors
    /// When it can't be written; what was there stays.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.path.join(name);
        let damaged = |why: String| StateError::Damaged { path: path.clone(), why };
        let mut value = serde_json::to_value(value).map_err(|e| damaged(e.to_string()))?;
        match value.as_object_mut() {
            Some(object) => object.insert("version".into(), STATE.into()),
            None => return Err(damaged("what is to be written has no fields".into())),
        };
        let mut text = serde_json::to_vec_pretty(&value).map_err(|e| damaged(e.to_string()))?;
        text.push(b'\n');
        self.replace(name, &text).map_err(|source| io_error("write", &path, source))
    }

    /// Reads a file of bytes, at most `bytes_max` of them; None if there is none.
    ///
    /// # Errors
    /// When it can't be read, or is longer.
    pub fn read_bytes(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::openat(&self.dir, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(e) => return Err(io_error("open", &path, e.into())),
        };
        check_owner(&file, &path)?;
        let mut bytes = Vec::new();
        let read = file.take(bytes_max + 1).read_to_end(&mut bytes);
        read.map_err(|source| io_error("read", &path, source))?;
        if bytes.len() as u64 > bytes_max {
            return Err(StateError::Damaged { path, why: format!("it is longer than {bytes_max} bytes") });
        }
        Ok(Some(bytes))
    }

    /// Replaces a file of bytes; when this returns, it is on the disk.
    ///
    /// # Errors
    /// When it can't be written; what was there stays.
    pub fn write_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        self.replace(name, bytes).map_err(|source| io_error("write", &self.path.join(name), source))
    }

    /// Removes a file; that it is missing is no error.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let done = match step(|| rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            other => other.and_then(|()| rustix::fs::fsync(&self.dir)),
        };
        done.map_err(|e| io_error("remove", &self.path.join(name), e.into()))
    }

    fn replace(&self, name: &str, text: &[u8]) -> io::Result<()> {
        let new = format!("{name}.new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let create = || step(|| rustix::fs::openat(&self.dir, &new, flags, mode));
        let mut file = File::from(match create() {
            // What a kill left, or what somebody has put there to read along.
            Err(rustix::io::Errno::EXIST) => {
                step(|| rustix::fs::unlinkat(&self.dir, &new, AtFlags::empty()))?;
                create()?
            }
            created => created?,
        });
        step(|| file.write_all(text))?;
        file.sync_all()?;
        step(|| rustix::fs::renameat(&self.dir, &new, &self.dir, name))?;
        Ok(rustix::fs::fsync(&self.dir)?)
    }
}

/// Checks that a state file is this user's, or root's.
pub(crate) fn check_owner(file: impl AsFd, path: &Path) -> Result<(), StateError> {
    let uid = rustix::fs::fstat(file).map_err(|e| io_error("look at", path, e.into()))?.st_uid;
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(StateError::Foreign { path: path.to_owned(), uid });
    }
    Ok(())
}

fn take_lock(path: &Path, dir: BorrowedFd<'_>) -> Result<File, StateError> {
    let file = path.join("lock");
    let fail = |action| move |e: rustix::io::Errno| io_error(action, &path.join("lock"), e.into());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = rustix::fs::openat(dir, "lock", flags, Mode::RUSR | Mode::WUSR).map_err(fail("open"))?;
    let mut lock = File::from(lock);
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let read = lock.take(32).read_to_string(&mut pid);
            let pid = read.ok().map(|_| pid.trim()).filter(|pid| !pid.is_empty()).unwrap_or("?").to_owned();
            return Err(StateError::Locked { path: path.to_owned(), pid });
        }
        Err(e) => return Err(fail("lock")(e)),
    }
    let note = |source| io_error("write", &file, source);
    lock.set_len(0).map_err(note)?;
    writeln!(lock, "{}", std::process::id()).map_err(note)?;
    Ok(lock)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, StateError> {
    let damaged = |why: String| StateError::Damaged { path: path.to_owned(), why };
    let value: Value = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
    match value.get("version").and_then(Value::as_u64) {
        Some(theirs) if theirs > u64::from(STATE) => {
            return Err(StateError::Newer { path: path.to_owned(), theirs });
        }
        Some(1..) => {}
        _ => return Err(damaged("it has no version".into())),
    }
    serde_json::from_value(value).map_err(|e| damaged(e.to_string()))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
