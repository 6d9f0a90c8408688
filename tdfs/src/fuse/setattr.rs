//! SETATTR: several attributes in one request, each of them a change of its own.

use super::{Adapter, reply};
use crate::passthrough::{CAPABILITY, Caller, SetTime, SetTimes};
use fuser::{INodeNo, TimeOrNow};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;

/// What one SETATTR asks for.
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub times: SetTimes,
}

impl SetAttr {
    fn is_empty(&self) -> bool {
        let sets = self.mode.is_some() || self.uid.is_some() || self.gid.is_some() || self.size.is_some();
        !sets && self.times.atime.is_none() && self.times.mtime.is_none()
    }
}

/// As the kernel tells it.
pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(reply::time_from_fuser(time)),
    }
}

impl Adapter {
    /// Clears setuid, setgid and capabilities for a caller who may not keep them. The kernel is told before it
    /// gets its answer: it would go on with the old mode.
    pub fn kill_privileges(&self, ino: INodeNo, caller: Caller, kill: bool) -> rustix::io::Result<()> {
        if kill && self.passthrough.kill_privileges(ino.0, caller)? {
            self.freshen.now(ino.0);
        }
        Ok(())
    }

    /// The same for a request that does not tell whether the caller may keep them.
    pub fn kill_without_fsetid(&self, ino: INodeNo, caller: Caller) -> rustix::io::Result<()> {
        self.kill_privileges(ino, caller, caller.lacks_fsetid())
    }

    /// Sets all of it.
    pub fn set_attributes(&self, ino: u64, caller: Caller, set: &SetAttr) -> rustix::io::Result<()> {
        let fs = &self.passthrough;
        let stripped = self.stripped.take(caller.pid) == Some(ino);
        let to_none = set.is_empty() && self.is_chown_to_none(ino, caller, stripped)?;
        if let Some(size) = set.size {
            if caller.lacks_fsetid() {
                fs.kill_privileges(ino, caller)?;
            }
            fs.truncate(ino, size)?;
        }
        if set.uid.is_some() || set.gid.is_some() || to_none {
            fs.chown(ino, set.uid, set.gid, caller)?;
        }
        if let Some(mode) = set.mode {
            fs.chmod(ino, mode)?;
        }
        if set.times.atime.is_some() || set.times.mtime.is_some() {
            fs.set_times(ino, set.times)?;
        }
        Ok(())
    }

    /// Whether a SETATTR of nothing is a chown(2) with -1 and -1, which changes the ctime and clears set bits. The kernel
    /// sends the same ahead of what clears set bits itself, and of a change of a file whose capability it has just
    /// removed. Who owns the file loses the bits by either, but root, who loses them by a chown alone. Somebody else
    /// has no right to chown; the kernel would tell him so.
    fn is_chown_to_none(&self, ino: u64, caller: Caller, stripped: bool) -> rustix::io::Result<bool> {
        Ok(caller.owns(&self.passthrough.getattr(ino)?.stat) && (caller.lacks_fsetid() || !stripped))
    }
}

/// So many threads are remembered.
const THREADS_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Which file a thread has removed the capability of, until its next SETATTR.
pub struct Stripped {
    threads: Mutex<LruCache<u32, u64>>,
}

impl Default for Stripped {
    fn default() -> Stripped {
        Stripped { threads: Mutex::new(LruCache::new(THREADS_MAX)) }
    }
}

impl Stripped {
    /// A thread removes an xattr, or the kernel does it for one.
    pub fn note(&self, thread: u32, ino: u64, xattr: &[u8]) {
        if xattr == CAPABILITY {
            self.threads.lock().put(thread, ino);
        }
    }

    fn take(&self, thread: u32) -> Option<u64> {
        self.threads.lock().pop(&thread)
    }
}

#[cfg(test)]
mod tests;
