//! The rules of DESIGN section 7, each by the shortest stories that break without it.

use super::story::{
    chmod, collapse, copy, create, exchange, link, mkdir, p, rename, rename_over, rmdir, times, unlink, write,
};
use super::world::World;
use crate::resync::{Resync, WANTS_MAX};
use tdfs_wire::Op;
use tdfs_wire::message::Difference;

/// The same on both sides: files of 16 bytes, and directories where a name ends with a slash.
pub fn twins(names: &[&str]) -> World {
    let mut world = World::new(1, Resync::whole());
    world.pace.stall_one_in = usize::MAX;
    world.pace.names_a_part = Some(usize::MAX);
    for name in names {
        match name.strip_suffix('/') {
            Some(dir) => world.record_both(mkdir(dir), &[]),
            None => {
                world.record_both(create(name), &[]);
                world.record_both(write(name, 0), &[b'm'; 16]);
            }
        }
    }
    world
}

/// As `twins`, with other content in the files `wrong` of the replica.
fn differing(names: &[&str], wrong: &[&str]) -> World {
    let mut world = twins(names);
    for name in wrong {
        world.replica.apply(&write(name, 0), &[b'r'; 16]).unwrap();
    }
    world
}

/// The want about `path` is sent, answered, and the answer delivered.
pub fn compared(world: &mut World, path: &str) {
    world.send_wants_now();
    world.answer_about(&p(path));
    world.deliver_all();
}

pub fn recorded(world: &mut World, op: Op, bulk: &[u8]) {
    world.record(op, bulk);
    world.deliver_all();
}

pub fn ends_equal(mut world: World) -> World {
    world.finish();
    world.assert_equal();
    assert_eq!(world.divergences, 0, "nobody wrote to the replica");
    world
}

/// `a` and `b` hold 16 bytes each on both sides, but `a` other ones in the replica; the root is checked and
/// `a` is wanted, its hashes are on their way.
fn a_is_wanted() -> World {
    let mut world = differing(&["a", "b"], &["a"]);
    compared(&mut world, "");
    world.send_wants_now();
    assert_eq!(world.resync.progress().objects_wanted, 1);
    world
}

/// Rule 0: "Equal content is not sent again after an interruption"
#[test]
fn equal_content_is_not_sent_again_after_a_kill() {
    let mut world = differing(&["a"], &["a"]);
    compared(&mut world, "");
    compared(&mut world, "a");
    assert_eq!(world.resync.progress().bytes_received, 8);
    world.kill_slave();
    assert_eq!(ends_equal(world).resync.progress().bytes_received, 8, "the other half");
}

/// Rule 1: "The slave drives ..., in a bounded window."
#[test]
fn wants_on_their_way_are_bounded() {
    let names: Vec<String> = (0..100).map(|i| format!("f{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = differing(&names, &names);
    compared(&mut world, "");
    for _ in 0..3 {
        world.send_wants_now();
        assert_eq!(world.wanted().len(), WANTS_MAX);
    }
    ends_equal(world);
}

/// Rule 3: "Attributes of children in it are hints": they may be older than a record before the listing, or
/// newer than the listing, and are never set; "a difference makes a Want".
#[test]
fn hint_that_raced_with_a_write_makes_a_want_and_changes_nothing() {
    for older in [false, true] {
        let mut world = twins(&["a"]);
        world.send_wants_now();
        let (before, op) = (world.master.clone(), write("a", 14));
        if older {
            world.record(op, b"new");
            let after = std::mem::replace(&mut world.master, before);
            world.answer_about(&p(""));
            world.master = after;
        } else {
            world.master.apply(&op, b"new").unwrap();
            world.answer_about(&p(""));
            world.deliver_one();
            assert!(before.same(&world.replica), "the hint is newer");
            world.record(op, b"new");
        }
        world.deliver_all();
        world.assert_equal();
        assert_eq!(world.resync.progress().objects_wanted, 1);
        ends_equal(world);
    }
}

/// Rule 4: "An object that is being filled gets its mtime last."
#[test]
fn half_filled_file_does_not_look_finished() {
    let mut world = twins(&[]);
    world.record_both(mkdir("d"), &[]);
    world.master.apply(&create("d/a"), &[]).unwrap();
    world.master.apply(&write("d/a", 0), &[b'm'; 16]).unwrap();
    compared(&mut world, "");
    compared(&mut world, "d");
    compared(&mut world, "d/a");
    let (here, there) = (world.replica.get(&p("d/a")).unwrap(), world.master.get(&p("d/a")).unwrap());
    assert_eq!((here.data.len(), there.data.len()), (8, 16));
    assert_ne!(here.meta.mtime, there.meta.mtime);
    ends_equal(world);
}

/// Rule 5: "A record whose object is missing is forgiven if none of the parents it names has been checked"
#[test]
fn record_in_an_unchecked_directory_is_forgiven() {
    let mut world = twins(&["d/", "d/a"]);
    world.replica.remove_all(&p("d/a")).unwrap();
    compared(&mut world, "");
    recorded(&mut world, write("d/a", 2), b"new");
    let wanted = world.resync.progress().objects_wanted;
    assert_eq!((world.divergences, wanted), (0, 1), "nothing but the listing of d");
    ends_equal(world);
}

/// Rule 5: "otherwise each checked parent and each path it names goes on the want list."
#[test]
fn record_in_a_checked_directory_wants_its_paths_and_their_parents() {
    let mut world = World::new(1, Resync::paths(Vec::new()));
    for op in [mkdir("d"), create("d/a"), create("d/b")] {
        world.record_both(op, &[]);
    }
    world.replica.remove_all(&p("d")).unwrap();
    world.replica.apply(&create("stranger"), &[]).unwrap();
    recorded(&mut world, rename("d/a", "a"), &[]);
    assert_eq!(world.divergences, 1);
    // Without the parent "d/b" would stay away; without the root the stranger would stay.
    world.finish();
    world.assert_equal();
}

/// Rule 6: "rename ... whose source is unchecked ..., and whose target is in a checked part"
#[test]
fn rename_out_of_an_unchecked_directory_wants_the_target() {
    let mut world = differing(&["d/", "d/a", "e/"], &["d/a"]);
    compared(&mut world, "");
    compared(&mut world, "e");
    recorded(&mut world, rename("d/a", "e/a"), &[]);
    ends_equal(world);
}

/// Rule 6: the other way, what is not compared any more must not count as checked.
#[test]
fn rename_into_an_unchecked_directory_is_listed_there() {
    let mut world = differing(&["d/", "e/", "e/a"], &["e/a"]);
    compared(&mut world, "");
    compared(&mut world, "e");
    world.send_wants_now();
    recorded(&mut world, rename("e/a", "d/a"), &[]);
    recorded(&mut world, rename("e", "d/e"), &[]);
    recorded(&mut world, create("d/e/new"), &[]);
    ends_equal(world);
}

/// Rule 6: "exchange": both objects change sides.
#[test]
fn exchange_across_the_frontier_wants_what_arrived() {
    let mut world = differing(&["d/", "d/a", "e/", "e/a"], &["d/a", "e/a"]);
    compared(&mut world, "");
    compared(&mut world, "e");
    compared(&mut world, "e/a");
    compared(&mut world, "e/a");
    recorded(&mut world, exchange("d/a", "e/a"), &[]);
    recorded(&mut world, exchange("d", "e"), &[]);
    ends_equal(world);
}

/// Rule 6: "link": the new name is as wrong as the object.
#[test]
fn link_of_an_unchecked_file_wants_the_target() {
    let mut world = differing(&["d/", "d/a", "e/"], &["d/a"]);
    compared(&mut world, "");
    compared(&mut world, "e");
    recorded(&mut world, link("d/a", "e/a"), &[]);
    recorded(&mut world, unlink("d/a"), &[]);
    ends_equal(world);
}

/// Rule 6: "copy whose source is unchecked ...: the target goes on the want list."
#[test]
fn copy_of_an_unchecked_file_wants_the_target() {
    let mut world = differing(&["d/", "d/a", "e/", "e/b"], &["d/a"]);
    compared(&mut world, "");
    compared(&mut world, "e");
    recorded(&mut world, copy("d/a", "e/b", 8), &[]);
    ends_equal(world);
}

/// Rule 6: "copy whose source is ... wanted ...: the target goes on the want list."
#[test]
fn copy_from_a_wanted_file_wants_the_target() {
    let mut world = a_is_wanted();
    recorded(&mut world, copy("a", "b", 8), &[]);
    ends_equal(world);
}

/// Rules 6 and 8: the further name shares the inode, and what is wrong with it.
#[test]
fn copy_from_a_link_of_a_wanted_file_wants_the_target() {
    let mut world = a_is_wanted();
    recorded(&mut world, link("a", "c"), &[]);
    recorded(&mut world, copy("c", "b", 8), &[]);
    ends_equal(world);
}

/// Rule 6: "Pending wants below a renamed directory move with it."
#[test]
fn wants_below_a_renamed_directory_move_with_it() {
    let mut world = differing(&["d/", "d/a"], &["d/a"]);
    compared(&mut world, "");
    compared(&mut world, "d");
    world.send_wants_now();
    world.record(rename("d", "e"), &[]);
    // Asked under a name that is not there any more.
    world.answer_about(&p("d/a"));
    world.deliver_all();
    world.send_wants_now();
    assert_eq!(world.wanted(), [p("e/a")]);
    ends_equal(world);
}

/// Rule 6: the same, at once: what was asked by the old name is not waited for.
#[test]
fn wants_below_a_renamed_directory_are_asked_anew() {
    let mut world = differing(&["d/", "d/a"], &["d/a"]);
    compared(&mut world, "");
    compared(&mut world, "d");
    world.send_wants_now();
    recorded(&mut world, rename("d", "e"), &[]);
    world.send_wants_now();
    assert_eq!(world.wanted(), [p("d/a"), p("e/a")]);
    ends_equal(world);
}

/// Rule 6: "A want that no longer exists is answered Gone."
#[test]
fn what_is_gone_is_removed() {
    let mut world = World::new(1, Resync::paths(Vec::new()));
    for op in [mkdir("d"), create("d/a")] {
        world.tamper_with(&op, &[]);
    }
    world.resync.want(p("d"));
    ends_equal(world);
}

/// Rule 7: "A file that a record touched since the check began is compared by hashes, whatever the quick
/// check says: replay has set its mtime."
#[test]
fn file_that_a_record_touched_is_compared_by_hashes() {
    let mut world = differing(&["a"], &["a"]);
    recorded(&mut world, write("a", 12), b"new");
    ends_equal(world);
}

/// Rule 7: the same, where the record came by a name that is gone before it was compared.
#[test]
fn file_that_a_record_touched_by_another_name_is_compared_by_hashes() {
    let mut world = differing(&["a"], &[]);
    world.record_both(link("a", "b"), &[]);
    world.replica.apply(&write("a", 0), &[b'r'; 16]).unwrap();
    world.send_wants_now();
    recorded(&mut world, write("a", 12), b"new");
    recorded(&mut world, unlink("a"), &[]);
    ends_equal(world);
}

/// Rule 7: "If the set of such files was lost (kill), all files with a ctime since then count."
#[test]
fn set_of_touched_files_may_be_lost() {
    let mut world = differing(&["a"], &["a"]);
    world.send_wants_now();
    recorded(&mut world, write("a", 12), b"new");
    world.kill_slave();
    ends_equal(world);
}

/// Rule 8: "a checked name may share its inode only with checked names of the same master inode, others are
/// split at once"
#[test]
fn names_of_two_objects_are_split() {
    let mut world = twins(&["a"]);
    world.replica.apply(&link("a", "b"), &[]).unwrap();
    world.master.apply(&create("b"), &[]).unwrap();
    world.master.apply(&write("b", 0), &[b'm'; 16]).unwrap();
    ends_equal(world);
}

/// Rule 8: "joining a name to a group wants the group's content and attributes again."
#[test]
fn names_of_one_object_are_joined() {
    let mut world = twins(&["a"]);
    world.master.apply(&link("a", "b"), &[]).unwrap();
    world.replica.apply(&create("b"), &[]).unwrap();
    world.replica.apply(&write("b", 0), &[b'r'; 16]).unwrap();
    world.replica.apply(&chmod("b", 0o777), &[]).unwrap();
    ends_equal(world);
}

/// Rule 8, and records meanwhile: the name that comes later brings nothing of its own.
#[test]
fn joined_name_brings_nothing_of_its_own() {
    let mut world = twins(&["d/", "d/a", "e/"]);
    world.record_both(link("d/a", "e/b"), &[]);
    world.replica.remove_all(&p("e/b")).unwrap();
    world.replica.apply(&create("e/b"), &[]).unwrap();
    compared(&mut world, "");
    compared(&mut world, "e");
    recorded(&mut world, write("e/b", 4), b"new");
    recorded(&mut world, times("d/a"), &[]);
    ends_equal(world);
}

/// Rule 8: what a touched name that is gone did to a group is not copied on before it is compared.
#[test]
fn copy_from_a_name_that_is_compared_again_wants_the_target() {
    let mut world = twins(&["a", "c/", "d/"]);
    world.record_both(link("a", "d/b"), &[]);
    world.record_both(create("c/t"), &[]);
    // In the replica d/b is another object, so what is written there must come to a by the comparison.
    world.replica.remove_all(&p("d/b")).unwrap();
    compared(&mut world, "");
    compared(&mut world, "c");
    recorded(&mut world, write("d/b", 0), b"new");
    recorded(&mut world, unlink("d/b"), &[]);
    recorded(&mut world, copy("a", "c/t", 8), &[]);
    ends_equal(world);
}

/// Rule 6: a copy takes what its source should have got by a name that is not checked.
#[test]
fn copy_from_a_name_whose_other_name_missed_a_record_wants_the_target() {
    let mut world = twins(&["a", "c/", "d/"]);
    world.record_both(link("a", "d/b"), &[]);
    world.record_both(create("c/t"), &[]);
    world.replica.remove_all(&p("d/b")).unwrap();
    compared(&mut world, "");
    compared(&mut world, "c");
    recorded(&mut world, write("d/b", 0), b"new");
    recorded(&mut world, copy("a", "c/t", 8), &[]);
    ends_equal(world);
}

/// Rule 8: an inode of another object is not given to further names.
#[test]
fn moved_over_name_does_not_merge_two_objects() {
    let mut world = twins(&["a", "d/", "d/b", "d/c"]);
    world.record_both(link("a", "e"), &[]);
    world.record_both(link("d/b", "d/e"), &[]);
    world.replica.apply(&write("d/b", 0), &[b'r'; 16]).unwrap();
    compared(&mut world, "");
    compared(&mut world, "d");
    for path in world.tamper_with(&rename_over("a", "d/b"), &[]) {
        world.resync.want(path);
    }
    world.finish();
    world.assert_equal();
}

/// Rule 8: the name of a group that is known longest may be the one that has to join the others.
#[test]
fn names_of_one_object_are_joined_whichever_is_known_first() {
    let mut world = equal(&["a", "gone"]);
    world.record_both(link("a", "b"), &[]);
    for op in [unlink("b"), create("b")] {
        world.tamper_with(&op, &[]);
    }
    // Records link c and d with what b is here; d is compared, for b may be what was wrong with what is gone.
    recorded(&mut world, link("b", "c"), &[]);
    world.resync.want(p("gone"));
    recorded(&mut world, unlink("gone"), &[]);
    recorded(&mut world, link("b", "d"), &[]);
    for path in ["a", "d", "a"] {
        world.resync.want(p(path));
        compared(&mut world, path);
    }
    ends_equal(world);
}

/// An op that moves bytes while hashes are on their way makes "same" mean another place.
#[test]
fn shifted_file_is_compared_once_more() {
    let mut world = a_is_wanted();
    compared(&mut world, "a");
    world.send_wants_now();
    recorded(&mut world, collapse("a", 2, 6, 16), &[]);
    ends_equal(world);
}

/// What is unfinished in a directory that goes is not asked for any more.
#[test]
fn removed_directory_is_forgotten() {
    let mut world = differing(&["d/", "d/a"], &["d/a"]);
    compared(&mut world, "");
    compared(&mut world, "d");
    recorded(&mut world, unlink("d/a"), &[]);
    recorded(&mut world, rmdir("d"), &[]);
    ends_equal(world);
}

/// An equal replica of which nothing is wanted.
fn equal(names: &[&str]) -> World {
    let mut world = twins(names);
    world.begin(Resync::paths(Vec::new()));
    world
}

/// Rule 10: "an overflow keeps what was checked; only the paths of lost records are wanted again"
#[test]
fn lost_records_cost_their_paths() {
    let mut world = equal(&["a", "d/", "d/b", "d/c", "e/", "e/f"]);
    for op in [unlink("a"), rename("d/b", "e/b"), create("d/g"), chmod("e/f", 0o640), chmod("e", 0o711)] {
        world.record(op, &[]);
    }
    world.record(write("d/g", 0), b"new");
    assert_eq!(world.lose_records(6), 6);
    let mut wanted = world.wanted();
    wanted.sort();
    assert_eq!(wanted, ["", "a", "d", "d/b", "d/g", "e", "e/b", "e/f"].map(p));
    recorded(&mut world, write("d/c", 0), b"the stream goes on");
    assert_eq!(ends_equal(world).resync.progress().widened, 0);
}

/// Rule 10, while the whole tree is compared: what was checked stays checked.
#[test]
fn lost_records_leave_what_was_checked() {
    let mut world = twins(&["a", "d/", "d/b", "e/", "e/f"]);
    compared(&mut world, "");
    compared(&mut world, "e");
    world.record(write("a", 0), b"new");
    world.record(write("d/b", 0), b"new");
    world.lose_records(2);
    assert_eq!(world.wanted().into_iter().filter(|path| *path != p("d")).collect::<Vec<_>>(), [p("a")]);
    ends_equal(world);
}

/// Rule 10: what a name that is gone missed is looked for where the replica has it by another name.
#[test]
fn lost_records_of_a_name_that_is_gone_are_not_forgotten() {
    for dir in [false, true] {
        let mut world = equal(&["d/", "d/a", "e/"]);
        world.record_both(link("d/a", "e/b"), &[]);
        world.record(write("d/a", 0), b"new");
        world.record(unlink("d/a"), &[]);
        if dir {
            world.record(rmdir("d"), &[]);
            world.record(mkdir("d"), &[]);
        }
        world.lose_records(4);
        assert_eq!(ends_equal(world).resync.progress().widened, 1);
    }
}

/// Rule 10: behind the gap a record sets the mtime of what missed one before it.
#[test]
fn lost_record_before_one_that_came_is_not_hidden() {
    let mut world = equal(&["d/", "d/a", "e/"]);
    world.record_both(link("d/a", "e/b"), &[]);
    world.record(write("d/a", 0), b"new");
    world.record(rename("d", "f"), &[]);
    world.record(rename("f", "d"), &[]);
    world.lose_records(3);
    recorded(&mut world, write("e/b", 8), b"new");
    ends_equal(world);
}

/// Rules 6 and 8: what a rename that could not be done should have replaced gets the records about its name,
/// and by that its other names do, which count as equal.
#[test]
fn rename_of_what_is_missing_leaves_the_target_to_its_other_names() {
    let mut world = equal(&["a"]);
    world.record_both(link("a", "b"), &[]);
    world.record(mkdir("d"), &[]);
    world.lose_records(1);
    for op in [create("d/a"), rename_over("d/a", "a"), times("a")] {
        recorded(&mut world, op, &[]);
    }
    ends_equal(world);
}

/// Rule 10: what was linked into a part that was not compared then, and missed a record by that name.
#[test]
fn lost_record_by_a_name_in_an_unchecked_directory_is_looked_for_by_others() {
    for listed in [false, true] {
        let mut world = twins(&["a", "d/"]);
        compared(&mut world, "");
        recorded(&mut world, link("a", "d/b"), &[]);
        if listed {
            compared(&mut world, "d");
        }
        world.record(chmod("d/b", 0o640), &[]);
        world.lose_records(1);
        recorded(&mut world, unlink("d/b"), &[]);
        ends_equal(world);
    }
}

/// The name `a` goes, at once or from a directory that is not compared.
fn goes(world: &mut World, moved: bool) {
    if moved {
        recorded(world, mkdir("u"), &[]);
        world.resync.want(p("u"));
        recorded(world, rename("a", "u/a"), &[]);
    }
    recorded(world, unlink(if moved { "u/a" } else { "a" }), &[]);
}

/// Rule 10: a name whose group is compared once more at the end goes before that; what it alone got by a
/// record is known by no other name.
#[test]
fn name_that_is_to_be_compared_again_is_not_forgotten() {
    for moved in [false, true] {
        let mut world = twins(&["a", "d/"]);
        compared(&mut world, "");
        compared(&mut world, "d");
        recorded(&mut world, link("a", "d/b"), &[]);
        world.record(rename("d", "e"), &[]);
        world.lose_records(1);
        // From here on e/b is an object of its own in the replica.
        for path in ["d", "e", "e", "e/b", "e/b"] {
            compared(&mut world, path);
        }
        recorded(&mut world, write("a", 0), b"new");
        goes(&mut world, moved);
        ends_equal(world);
    }
}

/// What a look has found of a name that goes is wanted by its other names.
#[test]
fn what_was_found_is_healed_by_another_name() {
    for moved in [false, true] {
        let mut world = equal(&["a"]);
        world.replica.apply(&chmod("a", 0o777), &[]).unwrap();
        world.resync.want_found(&p("a"), Difference::Attributes);
        recorded(&mut world, link("a", "b"), &[]);
        goes(&mut world, moved);
        ends_equal(world);
    }
}

/// Rule 10: a directory that is replaced by another kind of object in the gap.
#[test]
fn lost_records_may_change_what_a_name_is() {
    let mut world = equal(&["d/", "d/a", "f"]);
    for op in [unlink("d/a"), rmdir("d"), create("d"), unlink("f"), mkdir("f"), create("f/a")] {
        world.record(op, &[]);
    }
    world.lose_records(6);
    assert_eq!(ends_equal(world).resync.progress().widened, 0);
}
