//! SETATTR: several attributes in one request, each of them a change of its own.

use super::{Adapter, reply};
use crate::passthrough::{Caller, SetTime, SetTimes};
use fuser::{INodeNo, TimeOrNow};

/// What one SETATTR asks for.
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub times: SetTimes,
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
        if let Some(size) = set.size {
            if caller.lacks_fsetid() {
                fs.kill_privileges(ino, caller)?;
            }
            fs.truncate(ino, size)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
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
}

#[cfg(test)]
mod tests;
