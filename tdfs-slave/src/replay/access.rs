//! A slave without root's rights adds u+rwx to get in, works, and restores: also after a kill.
//!
//! Called by `replay` around each op, and by `resync`. Does nothing until something fails with EACCES.
//! Only touches what lies on the way to the named objects and what the slave's own user owns.

use crate::replay::failure::{Failure, Step, at};
use crate::replay::target::Target;
use crate::replay::widened::Widened;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tdfs_host::object;
use tdfs_wire::TreePath;
use tdfs_wire::op::{AttrOp, NamespaceOp, Op, XattrOp};

/// Does `act`; where that fails with EACCES, opens the way to each of `paths` and the objects themselves,
/// does it again, and restores the modes that `act` has not changed.
///
/// # Errors
/// Those of `act`; a stall where a mode could not be changed or restored.
pub fn with_access<T>(
    target: &mut Target,
    paths: impl FnOnce() -> Vec<TreePath>,
    mut act: impl FnMut(&mut Target) -> Result<T, Failure>,
) -> Result<T, Failure> {
    Widened::restore(target)?; // where that failed before, or a kill came between
    match act(target) {
        Err(failure) if failure.trouble().errno == Errno::ACCESS => {}
        done => return done,
    }
    let paths = paths();
    let noted = paths.iter().try_for_each(|path| {
        target.widened().may_be_at(path).map_err(at(Step::Mode, "note the way to", path))
    });
    let ways = noted.and_then(|()| paths.iter().try_for_each(|path| open_way(target, path)));
    let done = ways.and_then(|()| act(target));
    Widened::restore(target)?;
    done
}

/// What must be open for `op`: not the object whose mode is about to change, only the way to it.
pub(super) fn objects_to_open(op: &Op) -> Vec<TreePath> {
    match op {
        Op::Attr(AttrOp::Mode { path, .. } | AttrOp::Owner { path, .. } | AttrOp::Times { path, .. }) => {
            vec![super::parent_of(path)]
        }
        Op::Xattr(XattrOp::Set { path, name, .. } | XattrOp::Remove { path, name, .. }) if name.is_acl() => {
            vec![super::parent_of(path)]
        }
        Op::Namespace(NamespaceOp::Rename { from, to, .. }) => {
            let mut paths = vec![super::parent_of(from), super::parent_of(to)];
            paths.extend([from.clone(), to.clone()]);
            paths
        }
        // The redo of a new directory looks into it, whatever mode it has by then.
        Op::Namespace(NamespaceOp::Mkdir(new)) => vec![new.path.clone()],
        Op::Namespace(op) => op.paths().into_iter().map(super::parent_of).collect(),
        Op::Data(_) | Op::Xattr(_) => op.paths().into_iter().cloned().collect(),
        Op::Check { .. } => Vec::new(),
    }
}

/// Widens what needs it from the root to `path`; stops where nothing is there.
fn open_way(target: &mut Target, path: &TreePath) -> Result<(), Failure> {
    let mut at_path = TreePath::root();
    let root = target.object(&at_path);
    widen(target, root, &at_path)?;
    for name in path.components() {
        let Ok(next) = at_path.join(name) else { break };
        at_path = next;
        match target.object(&at_path) {
            Err(Errno::NOENT | Errno::NOTDIR) => break,
            object => widen(target, object, &at_path)?,
        }
    }
    Ok(())
}

fn widen(
    target: &mut Target,
    object: rustix::io::Result<Arc<OwnedFd>>,
    path: &TreePath,
) -> Result<(), Failure> {
    let fd = object.map_err(at(Step::Names, "open the way to", path))?;
    let stat = object::stat(fd.as_fd()).map_err(at(Step::Names, "stat", path))?;
    let needed = match object::file_type(&stat) {
        libc::S_IFDIR => 0o700,
        libc::S_IFREG => 0o600,
        _ => return Ok(()),
    };
    let before = object::permissions(&stat);
    let own = stat.stx_uid == rustix::process::geteuid().as_raw();
    if own && before & needed != needed {
        // The sticky bit tells it from the mode that the record or answer in hand may give: `before` with u+rwx.
        let meanwhile = (before | needed) ^ 0o1000;
        let widened = target.widened().widen((fd, stat.stx_ino), path, (before, meanwhile));
        widened.map_err(at(Step::Mode, "open the way to", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
