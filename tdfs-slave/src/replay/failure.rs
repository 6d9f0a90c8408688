//! What a failed system call means for the record in hand: the one table of errno classes.
//!
//! Used by `replay` and by `resync`. Decides; does no I/O.

use rustix::io::Errno;
use std::fmt;
use tdfs_wire::TreePath;

/// What was being done when a system call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reaching an object, making or taking away names, reading.
    Names,
    /// Making a device node, FIFO or socket.
    Node,
    /// Reading or changing the content of a file.
    Content,
    /// Setting owner and group.
    Owner,
    /// Setting the mode.
    Mode,
    /// Setting the mtime.
    Times,
    /// Setting or removing an xattr or ACL.
    Xattr,
}

/// One thing that went wrong, for a human.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Verb of what was being done, as in "open".
    pub doing: &'static str,
    /// The object.
    pub path: TreePath,
    /// What the kernel said, or would have said.
    pub errno: Errno,
}

/// Why something could not be done in the replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No fault of the record: it is tried again until it can be done (no space, I/O error ...).
    #[error("{0}")]
    Stall(Trouble),
    /// The replica contradicts the record: somebody else wrote to it. Healed by resync of the paths.
    #[error("the replica contradicts the master: {0}")]
    Divergence(Trouble),
    /// The replica's file system or the slave's rights can't carry it: counted, left out.
    #[error("can't be carried here: {0}")]
    NotCarried(Trouble),
}

impl Failure {
    /// The table.
    pub fn of(step: Step, trouble: Trouble) -> Failure {
        match (step, trouble.errno) {
            (Step::Node | Step::Owner, Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {
                Failure::NotCarried(trouble)
            }
            (Step::Xattr, Errno::PERM | Errno::OPNOTSUPP | Errno::TOOBIG | Errno::RANGE | Errno::INVAL) => {
                Failure::NotCarried(trouble)
            }
            (Step::Mode, Errno::OPNOTSUPP) => Failure::Divergence(trouble),
            (
                _,
                Errno::NOENT
                | Errno::EXIST
                | Errno::NOTDIR
                | Errno::ISDIR
                | Errno::NOTEMPTY
                | Errno::LOOP
                | Errno::XDEV
                | Errno::INVAL,
            ) => Failure::Divergence(trouble),
            // ENOSPC, EDQUOT, EIO, EROFS, EMFILE, ENOMEM - and what nobody thought of: never skipped.
            _ => Failure::Stall(trouble),
        }
    }

    /// A replica that is not as the record says it was, found by looking.
    pub fn diverged(doing: &'static str, path: &TreePath, errno: Errno) -> Failure {
        Failure::Divergence(Trouble { doing, path: path.clone(), errno })
    }

    /// What went wrong.
    pub fn trouble(&self) -> &Trouble {
        match self {
            Failure::Stall(trouble) | Failure::Divergence(trouble) | Failure::NotCarried(trouble) => trouble,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = errno_name(self.errno);
        let words = std::io::Error::from(self.errno).to_string();
        write!(f, "{} {}: {name} ({words})", self.doing, self.path)
    }
}

/// The name of the errnos that operators look for; else its number.
pub fn errno_name(errno: Errno) -> String {
    let name = match errno {
        Errno::NOSPC => "ENOSPC",
        Errno::DQUOT => "EDQUOT",
        Errno::IO => "EIO",
        Errno::ROFS => "EROFS",
        Errno::MFILE => "EMFILE",
        Errno::NFILE => "ENFILE",
        Errno::NOMEM => "ENOMEM",
        Errno::ACCESS => "EACCES",
        Errno::PERM => "EPERM",
        Errno::NOENT => "ENOENT",
        Errno::EXIST => "EEXIST",
        Errno::NOTDIR => "ENOTDIR",
        Errno::ISDIR => "EISDIR",
        Errno::NOTEMPTY => "ENOTEMPTY",
        Errno::LOOP => "ELOOP",
        Errno::XDEV => "EXDEV",
        Errno::INVAL => "EINVAL",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::TOOBIG => "E2BIG",
        Errno::TXTBSY => "ETXTBSY",
        Errno::FBIG => "EFBIG",
        Errno::MLINK => "EMLINK",
        Errno::NAMETOOLONG => "ENAMETOOLONG",
        other => return format!("errno {}", other.raw_os_error()),
    };
    name.to_owned()
}

/// For `map_err`: makes the errno of a system call the failure that it means.
pub fn at(step: Step, doing: &'static str, path: &TreePath) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::of(step, Trouble { doing, path: path.clone(), errno })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DESIGN section 8: "errno classes, in one table".
    #[test]
    fn every_errno_has_its_class() {
        let all = [Step::Names, Step::Node, Step::Content, Step::Owner, Step::Mode, Step::Times, Step::Xattr];
        let class = |step, errno| {
            let failure = Failure::of(step, Trouble { doing: "do", path: TreePath::root(), errno });
            match failure {
                Failure::Stall(_) => 's',
                Failure::Divergence(_) => 'd',
                Failure::NotCarried(_) => 'n',
            }
        };
        // In the order of `all`.
        let table = [
            (
                "sssssss",
                &[Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::ROFS, Errno::MFILE, Errno::NFILE][..],
            ),
            (
                "sssssss",
                &[Errno::NOMEM, Errno::ACCESS, Errno::TXTBSY, Errno::FBIG, Errno::MLINK, Errno::BUSY],
            ),
            ("sssssss", &[Errno::NAMETOOLONG, Errno::INTR, Errno::AGAIN, Errno::STALE, Errno::NODATA]),
            ("ddddddd", &[Errno::NOENT, Errno::EXIST, Errno::NOTDIR, Errno::ISDIR, Errno::NOTEMPTY]),
            ("ddddddd", &[Errno::LOOP, Errno::XDEV]),
            ("dndnddn", &[Errno::INVAL]),
            ("snsnssn", &[Errno::PERM]),
            ("snsndsn", &[Errno::OPNOTSUPP]),
            ("ssssssn", &[Errno::TOOBIG, Errno::RANGE]),
        ];
        for (classes, errnos) in table {
            for errno in errnos {
                let found: String = all.iter().map(|step| class(*step, *errno)).collect();
                assert_eq!(found, classes, "{}", errno_name(*errno));
            }
        }
    }
}
