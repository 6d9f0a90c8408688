//! Who asks, and what the kernel would let him keep of a file's setgid bit.

use rustix::fs::Statx;
use tdfs_host::object;

/// Who asks (the header of a FUSE request).
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Effective uid for file systems.
    pub uid: u32,
    /// Effective gid for file systems.
    pub gid: u32,
    /// Id of the calling thread; 0 if it is not known here.
    pub pid: u32,
}

impl Caller {
    /// True if the caller's writes clear setuid and setgid. The kernel decides by CAP_FSETID, which a FUSE
    /// request does not carry; root has it.
    pub fn lacks_fsetid(self) -> bool {
        self.uid != 0
    }

    /// True if trusted xattrs are shown to the caller. The kernel decides by CAP_SYS_ADMIN, which a FUSE
    /// request does not carry; root has it.
    pub fn sees_trusted(self) -> bool {
        self.uid == 0
    }

    /// True if an object with the setgid bit loses it when the caller changes what the bit stands for.
    pub fn loses_setgid(self, stat: &Statx) -> bool {
        let setgid = object::permissions(stat) & libc::S_ISGID != 0;
        setgid && self.lacks_fsetid() && !self.is_in_group(stat.stx_gid)
    }

    /// True if the group is the caller's own or a supplementary one. A request does not carry those, but its
    /// caller waits for the answer: they stand in /proc. Who is not found there is in no other group.
    pub fn is_in_group(self, gid: u32) -> bool {
        if self.gid == gid {
            return true;
        }
        // It also has the thread's name, which may be any bytes.
        let status = std::fs::read(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        supplementary_groups(&String::from_utf8_lossy(&status)).any(|group| group == gid)
    }
}

/// The groups that a status file of /proc tells (proc_pid_status(5)).
fn supplementary_groups(status: &str) -> impl Iterator<Item = u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|group| group.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_the_status() {
        let groups = |status| supplementary_groups(status).collect::<Vec<u32>>();
        assert_eq!(groups("Name:\tx\nGroups:\t4 24 4000000000 \nNStgid:\t1\n"), [4, 24, 4_000_000_000]);
        assert!(groups("Name:\tx\nGroups:\t \n").is_empty());
        assert!(groups("").is_empty());
    }

    #[test]
    fn who_is_not_known_is_in_his_own_group_alone() {
        let caller = Caller { uid: 1, gid: 2, pid: 0 };
        assert!(caller.is_in_group(2) && !caller.is_in_group(0) && !caller.is_in_group(1));
    }
}
