//! What this replica can't carry of promise P3: found by probing at start, and by what was refused later.
//!
//! Kept by `replica`, filled by `replay` and `resync`; named in the handshake, in the log (once each) and in
//! status. Never silently: each thing left out is counted.

use crate::confine;
use crate::replay::failure::{Failure, Trouble};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use tdfs_host::object;
use tracing::warn;

/// One thing that can't be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// Owners and groups.
    Owner,
    /// setuid and setgid of files, where owners are not carried: they would give the slave's own rights.
    SetId,
    /// Device nodes.
    Device,
    /// FIFOs and sockets.
    Special,
    /// POSIX ACLs.
    Acl,
    /// `user.` xattrs.
    UserXattr,
    /// `trusted.` xattrs.
    TrustedXattr,
    /// File capabilities.
    Capability,
    /// Xattrs that are too large for the replica's file system.
    LargeXattr,
}

impl Lack {
    /// Which one it is when the xattr `name` can't be set.
    pub fn of_xattr(name: &[u8]) -> Lack {
        if name.starts_with(b"user.") {
            Lack::UserXattr
        } else if name.starts_with(b"trusted.") {
            Lack::TrustedXattr
        } else if name.starts_with(b"system.") {
            Lack::Acl
        } else {
            Lack::Capability
        }
    }

    /// In words, for the handshake and status.
    pub fn words(self) -> &'static str {
        match self {
            Lack::Owner => "owner and group",
            Lack::SetId => "setuid and setgid of files (owners are not carried)",
            Lack::Device => "device nodes",
            Lack::Special => "FIFOs and sockets",
            Lack::Acl => "POSIX ACLs",
            Lack::UserXattr => "user xattrs",
            Lack::TrustedXattr => "trusted xattrs",
            Lack::Capability => "file capabilities",
            Lack::LargeXattr => "xattrs larger than the file system takes",
        }
    }
}

/// What is not carried, and how often that was met.
#[derive(Debug, Default)]
pub struct Lacks {
    counts: BTreeMap<Lack, u64>,
}

impl Lacks {
    /// Asks the file system of `root` and the rights of this process. Changes nothing.
    pub fn probe(root: BorrowedFd<'_>) -> Lacks {
        let mut lacks = Lacks::default();
        let unsupported = |name: &[u8]| matches!(object::get_xattr(root, name), Err(Errno::OPNOTSUPP));
        for (lack, name) in [
            (Lack::UserXattr, &b"user.tdfs"[..]),
            (Lack::TrustedXattr, b"trusted.tdfs"),
            (Lack::Capability, b"security.capability"),
            (Lack::Acl, b"system.posix_acl_access"),
        ] {
            if unsupported(name) {
                lacks.counts.insert(lack, 0);
            }
        }
        let rights = confine::rights();
        for (lack, right) in [
            (Lack::Owner, CapabilitySet::CHOWN),
            (Lack::SetId, CapabilitySet::CHOWN),
            (Lack::Device, CapabilitySet::MKNOD),
            (Lack::TrustedXattr, CapabilitySet::SYS_ADMIN),
            (Lack::Capability, CapabilitySet::SETFCAP),
        ] {
            if !rights.contains(right) {
                lacks.counts.insert(lack, 0);
            }
        }
        lacks
    }

    /// Counts one that was met, and names it in the log if nobody knew of it.
    pub fn note(&mut self, lack: Lack, trouble: &Trouble) {
        if !self.counts.contains_key(&lack) {
            warn!(
                "this replica can't carry {}: {trouble}; left out, here and wherever it comes again",
                lack.words()
            );
        }
        *self.counts.entry(lack).or_default() += 1;
        if lack == Lack::Owner {
            // From now on a setuid bit would give the wrong owner's rights away.
            self.counts.entry(Lack::SetId).or_default();
        }
    }

    /// Lets pass what can't be carried, after counting it.
    pub fn forgive(&mut self, lack: Lack, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::NotCarried(trouble) => {
                self.note(lack, &trouble);
                Ok(())
            }
            other => Err(other),
        }
    }

    /// True if it is known that this can't be carried.
    pub fn has(&self, lack: Lack) -> bool {
        self.counts.contains_key(&lack)
    }

    /// The mode that an object gets here whose mode is `mode` on the master.
    pub fn mode(&self, mode: u32, is_directory: bool) -> u32 {
        if self.has(Lack::SetId) && !is_directory { mode & !0o6000 } else { mode }
    }

    /// All that is not carried, in words.
    pub fn words(&self) -> Vec<String> {
        self.counts.keys().map(|lack| lack.words().to_owned()).collect()
    }

    /// All that is not carried, in words, with the number of times it was met.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(lack, count)| (lack.words(), *count))
    }
}
