//! The check at start and verify, as a replica does them.

use super::{FILESYSTEM, RESYNC, Scene, create, kill, p, write};
use crate::relay::Replay;
use crate::replica::Replica;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};
use tdfs_wire::Lsn;
use tdfs_wire::answer::Want;
use tdfs_wire::message::{Begin, Check, Difference, Finding, Order, Phase, Plan, Standing};

fn begin_check(scene: &Scene, replica: &mut Replica) {
    replica.begin(FILESYSTEM, &Begin { check: true, ..scene.begin(Plan::Stream) }).unwrap();
}

fn answer(scene: &Scene, replica: &mut Replica, wants: &[Want]) {
    for want in wants {
        let (answer, bulk) = scene.answer(want);
        replica.answer(Lsn::ZERO, &answer, &bulk).unwrap();
    }
}

/// A replica that was equal, with one file that somebody has changed since.
fn changed() -> (Scene, Replica) {
    let scene = Scene::new();
    for name in ["f", "g"] {
        fs::write(scene.master(name), format!("{name} of the master")).unwrap();
    }
    let replica = scene.equal();
    fs::write(scene.replica("f"), "of somebody else").unwrap();
    (scene, replica)
}

/// DESIGN section 7: checking "holds until a difference is found", resyncing is written before the first change.
#[test]
fn a_check_is_durably_resyncing_before_it_changes_anything() {
    let (scene, mut replica) = changed();
    begin_check(&scene, &mut replica);
    let wants = loop {
        let wants = replica.wants();
        if matches!(replica.standing(), Standing::Resyncing { .. }) {
            break wants;
        }
        assert!(replica.report().checking && !replica.report().resyncing);
        assert_eq!(fs::read(scene.replica("f")).unwrap(), b"of somebody else");
        answer(&scene, &mut replica, &wants);
    };
    let kept = fs::read_to_string(scene.dir.path().join("state/replica.json")).unwrap();
    assert!(kept.contains("resyncing"), "{kept}");
    assert_eq!(fs::read(scene.replica("f")).unwrap(), b"of somebody else");
    answer(&scene, &mut replica, &wants);
    scene.answer_all(&mut replica);
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
    assert_eq!((replica.check(), replica.report().divergences), (Check::None, 0));
    assert_eq!(fs::read(scene.replica("f")).unwrap(), b"f of the master");
}

/// Rule 7: "If the set of such files was lost (kill), all files with a ctime since then count."
#[test]
fn a_check_that_was_killed_is_made_again_and_trusts_no_mtime_that_replay_has_set() {
    let (mut scene, mut replica) = changed();
    begin_check(&scene, &mut replica);
    assert_eq!((replica.check(), replica.wants().len()), (Check::Running, 1));
    // The record sets the mtime, and hides that the rest of the content is not the master's.
    let content = b"F of the master";
    fs::write(scene.master("f"), content).unwrap();
    fs::write(scene.replica("f"), "? of somebody e").unwrap();
    let mtime = UNIX_EPOCH + Duration::new(77, 1); // as `write` says
    fs::File::options().write(true).open(scene.master("f")).unwrap().set_modified(mtime).unwrap();
    scene.apply(&mut replica, write("f"), b"F").unwrap();
    kill(replica);
    let mut replica = scene.open();
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
    assert_eq!(replica.check(), Check::Unfinished);
    scene.lsn -= 1;
    begin_check(&scene, &mut replica);
    scene.apply(&mut replica, write("f"), b"F").unwrap();
    scene.answer_all(&mut replica);
    assert_eq!(replica.check(), Check::None);
    assert_eq!(fs::read(scene.replica("f")).unwrap(), content);
}

/// A connection that is lost does not make a check begin again.
#[test]
fn a_check_goes_on_after_a_lost_connection() {
    let (scene, mut replica) = changed();
    begin_check(&scene, &mut replica);
    assert_eq!(replica.wants().len(), 1);
    assert_eq!(replica.check(), Check::Running);
    replica.begin(FILESYSTEM, &scene.begin(Plan::Stream)).unwrap();
    scene.answer_all(&mut replica);
    assert_eq!(replica.check(), Check::None);
    assert_eq!(fs::read(scene.replica("f")).unwrap(), b"f of the master");
}

/// A record that does not fit what a check has not come to yet is no divergence: the master's tree may have
/// changed unseen.
#[test]
fn what_a_check_has_not_come_to_is_no_divergence() {
    let (mut scene, mut replica) = changed();
    fs::create_dir(scene.master("d")).unwrap();
    fs::write(scene.master("d/new"), "").unwrap();
    begin_check(&scene, &mut replica);
    scene.apply(&mut replica, create("d/new"), b"").unwrap();
    assert_eq!(replica.report().divergences, 0);
    scene.answer_all(&mut replica);
    assert!(scene.replica("d/new").exists());
}

/// tdfs(8): verify changes nothing without --repair, and each finding is told once, again where it has to be.
#[test]
fn verify_only_looks() {
    let (scene, mut replica) = changed();
    replica.begin(FILESYSTEM, &scene.begin(Plan::Stream)).unwrap();
    let order = Order::Verify { id: 5, repair: false };
    replica.order(order);
    let wants = replica.wants();
    assert_eq!(replica.report().verify.map(|progress| progress.phase), Some(Phase::Verifying));
    // The order comes again with the next connection.
    replica.begin(FILESYSTEM, &scene.begin(Plan::Stream)).unwrap();
    replica.order(order);
    assert_eq!(replica.wants().len(), wants.len());
    replica.begin(FILESYSTEM, &scene.begin(Plan::Stream)).unwrap();
    scene.answer_all(&mut replica);
    let mut findings = replica.findings();
    let Some(Finding::Ended(ended)) = findings.pop() else { panic!("not ended: {findings:?}") };
    let difference = Finding::Difference { verify: 5, path: p("f"), what: Difference::Content };
    assert_eq!(findings, [difference]);
    assert_eq!((ended.differences, ended.objects), (1, 3));
    assert!(replica.findings().is_empty());
    assert_eq!(fs::read(scene.replica("f")).unwrap(), b"of somebody else");
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
}

/// A comparison waits for a resync, and what was cancelled says no more.
#[test]
fn verify_waits_and_can_be_cancelled() {
    let (scene, mut replica) = changed();
    replica.begin(FILESYSTEM, &scene.begin(RESYNC)).unwrap();
    replica.order(Order::Verify { id: 5, repair: false });
    let wants = replica.wants();
    assert_eq!(replica.report().verify.map(|progress| progress.phase), Some(Phase::Waiting));
    replica.order(Order::Cancel { id: 5 });
    answer(&scene, &mut replica, &wants);
    scene.answer_all(&mut replica);
    assert!(replica.findings().is_empty());
    replica.order(Order::Verify { id: 6, repair: false });
    let on_their_way = replica.wants();
    assert_eq!(on_their_way.len(), 1);
    replica.order(Order::Cancel { id: 6 });
    replica.order(Order::Verify { id: 7, repair: false });
    answer(&scene, &mut replica, &on_their_way);
    scene.answer_all(&mut replica);
    let findings = replica.findings();
    assert!(matches!(&findings[..], [Finding::Ended(ended)] if ended.verify == 7), "{findings:?}");
}
