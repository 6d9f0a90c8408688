//! Tests of a SETATTR that is refused when a part of it is done.

use super::*;
use crate::fuse::barrier::Barrier;
use crate::passthrough::tests::serve;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::sync::Arc;
use tdfs_wire::Id;
use tdfs_wire::op::{DataOp, Op};

const ROOT: u64 = 1;

/// DESIGN section 4: "An operation that fails after it changed something (... half a SETATTR) is undone under the locks, or
/// its outcome is recorded; the application gets its errno."
#[test]
fn half_a_setattr_is_recorded_as_it_ended() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let served = serve();
    let file = served.create(ROOT, "file");
    let barrier = Arc::new(Barrier::new(1, Id::default()));
    let adapter = Adapter::new(Arc::clone(&served.fs), Arc::default(), barrier, false).unwrap();
    // This thread alone may not chown(2).
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::CHOWN);
    set_capabilities(None, sets).unwrap();
    let times = SetTimes { atime: None, mtime: Some(SetTime::Now) };
    let set = SetAttr { mode: Some(0o600), uid: Some(7), gid: None, size: Some(100), times };
    let done = adapter.set_attributes(file, Caller { uid: 0, gid: 0, pid: 0 }, &set);
    assert_eq!(done, Err(Errno::PERM));
    let ops = served.ops();
    let [Op::Namespace(_), Op::Data(DataOp::Truncate { size: 100, .. })] = &ops[..] else {
        panic!("{ops:?}")
    };
}
