//! Tests of failed syncs: never forgotten, told, and healed by comparing all content.

use super::*;

impl Scene {
    /// The next sync fails.
    fn fail_sync(&self) {
        fs::write(self.dir.path().join("state/fail-syncfs"), libc::EIO.to_string()).unwrap();
    }

    /// Loses what was written, as the kernel does: the size and the mtime are right.
    fn lose(&self, name: &str) {
        let len = fs::metadata(self.replica(name)).unwrap().len();
        fs::write(self.replica(name), vec![0; usize::try_from(len).unwrap()]).unwrap();
        let file = rustix::fs::open(self.replica(name), OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        object::set_mtime(file.as_fd(), T).unwrap();
    }

    /// The record `op` on both sides, as far as the content of a file goes.
    fn write_both(&mut self, replica: &mut Replica) {
        fs::write(self.master("f"), b"content").unwrap();
        let file = rustix::fs::open(self.master("f"), OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        object::set_mtime(file.as_fd(), T).unwrap();
        object::set_mode(file.as_fd(), 0o644).unwrap();
        self.apply(replica, create("f"), b"").unwrap();
        self.apply(replica, write("f"), b"content").unwrap();
    }
}

/// DESIGN section 8: "a failed syncfs never advances it"; nor does the next one, that knows nothing of the loss.
#[test]
fn what_a_failed_sync_lost_is_found_by_hashes() {
    let mut scene = Scene::new();
    let mut replica = scene.equal();
    scene.write_both(&mut replica);
    let sync = replica.syncer();
    scene.fail_sync();
    assert!(sync().is_err());
    scene.lose("f");
    assert!(sync().is_err(), "the next one must not make it good");
    assert_eq!(replica.durable(), Lsn::ZERO);
    replica.idle();
    assert!(matches!(replica.standing(), Standing::Resyncing { resumable: true, .. }));
    assert!(replica.report().last_error.unwrap().contains("may be lost"));
    scene.answer_all(&mut replica);
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
    assert_eq!(fs::read(scene.replica("f")).unwrap(), b"content");
    assert!(replica.report().last_error.is_some(), "it is told afterwards, too");
    assert_eq!((sync().unwrap(), replica.durable()), (Lsn::new(2), Lsn::new(2)));
}

/// The same over a kill at once, and over a clean end.
#[test]
fn a_failed_sync_is_not_forgotten_by_a_kill() {
    for is_killed in [true, false] {
        let mut scene = Scene::new();
        let mut replica = scene.equal();
        scene.write_both(&mut replica);
        scene.fail_sync();
        assert!(replica.syncer()().is_err());
        scene.lose("f");
        if is_killed {
            kill(replica);
        } else {
            drop(replica);
        }
        let mut replica = scene.open();
        let Standing::Resyncing { applied, resumable: true } = replica.standing() else {
            panic!("killed: {is_killed}: {:?}", replica.standing());
        };
        let begin = Begin { after: applied.lsn, ..scene.begin(Plan::Resume) };
        replica.begin(FILESYSTEM, &begin).unwrap();
        scene.answer_all(&mut replica);
        assert_eq!(fs::read(scene.replica("f")).unwrap(), b"content", "killed: {is_killed}");
        // Once.
        kill(replica);
        assert!(matches!(scene.open().standing(), Standing::Equal { .. }));
    }
}

/// A sync that fails at the end of a resync has to be followed by another one.
#[test]
fn a_resync_whose_sync_fails_is_not_finished() {
    let scene = Scene::new();
    fs::write(scene.master("f"), "content").unwrap();
    let mut replica = scene.open();
    replica.begin(FILESYSTEM, &scene.begin(RESYNC)).unwrap();
    scene.fail_sync();
    scene.answer_all(&mut replica);
    assert!(matches!(replica.standing(), Standing::Resyncing { .. }));
    fs::write(scene.replica("f"), "CONTENT").unwrap();
    replica.idle();
    scene.answer_all(&mut replica);
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
    assert_eq!(fs::read(scene.replica("f")).unwrap(), b"content");
}
