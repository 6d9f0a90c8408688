//! Looks: the check at start and verify, over trees in memory with random schedules. Seeds as in `random`.

use super::random::{CHANGES, each_seed, equal};
use super::story::{chmod, create, link, mkdir, p, rename, unlink, write};
use super::world::World;
use crate::resync::Resync;
use std::collections::BTreeSet;
use tdfs_wire::TreePath;
use tdfs_wire::message::Difference;
use tdfs_wire::object::Kind;

fn look(distrust: bool) -> Resync {
    let mut look = Resync::look(None);
    if distrust {
        look.distrust_all();
    }
    look
}

/// tdfs(8): "exact as of a record, under full write load without one false alarm".
#[test]
fn an_equal_replica_raises_no_alarm_under_load() {
    each_seed(|seed| {
        let mut world = equal(seed);
        world.look = Some(look(seed % 2 == 0));
        while world.changes < CHANGES {
            world.look_on();
            if world.is_over() {
                world.look = Some(Resync::look(world.look.take()));
                world.look.iter_mut().filter(|_| seed % 2 == 0).for_each(Resync::distrust_all);
            }
            if world.users.dice.chance(300) {
                world.lose_connection();
            }
            world.step(true);
        }
        world.finish();
        if !world.found.is_empty() {
            world.tell();
        }
        assert_eq!(world.found, []);
        assert_eq!(world.divergences, 0);
        world.assert_equal();
    });
}

/// tdfs(8): verify "finds each" object whose content was changed, also where its mtime was kept.
#[test]
fn verify_finds_each_flipped_byte() {
    each_seed(|seed| {
        let mut world = equal(seed);
        let mut flipped = BTreeSet::new();
        for path in world.replica.paths() {
            let Ok(ino) = world.replica.ino(&path) else { continue };
            let inode = world.replica.inodes.get_mut(&ino).unwrap();
            if inode.meta.kind == Kind::File && inode.links == 1 && !inode.data.is_empty() {
                let at = usize::try_from(seed).unwrap() % inode.data.len();
                inode.data[at] ^= 0x55;
                flipped.insert(path);
            }
        }
        let before = world.replica.clone();
        (world.look, world.heals) = (Some(look(true)), false);
        world.finish();
        let found: BTreeSet<TreePath> = world.found.iter().map(|(path, _)| path.clone()).collect();
        if found != flipped {
            world.tell();
        }
        assert_eq!(found, flipped);
        assert_eq!(world.found.len(), found.len(), "each once");
        assert!(before.same(&world.replica), "a look changes nothing");
    });
}

/// DESIGN section 7: what changed in either tree while nobody saw it is found by the check, and made equal
/// while records stream.
#[test]
fn a_check_heals_under_load() {
    each_seed(|seed| {
        let mut world = equal(seed);
        let (there, here) = (world.users.dice.below(20), world.users.dice.below(20));
        (0..there).for_each(|_| world.prepare_master());
        (0..here).for_each(|_| world.change_replica());
        world.look = Some(look(false));
        while world.changes < CHANGES {
            world.look_on();
            if world.is_over() {
                world.assert_exact();
                world.look = Some(look(false));
            }
            world.step(true);
        }
        world.finish();
        world.assert_equal();
    });
}

/// The same of a check that finds so much that a resync of the whole tree takes it over.
#[test]
fn a_check_is_taken_over_under_load() {
    each_seed(|seed| {
        let mut world = equal(seed);
        let (there, here) = (world.users.dice.below(20), world.users.dice.below(20));
        (0..there).for_each(|_| world.prepare_master());
        (0..here).for_each(|_| world.change_replica());
        world.look = Some(look(false));
        world.much = Some(1 + seed % 4);
        while world.changes < CHANGES {
            world.look_on();
            if world.is_over() {
                world.assert_exact();
                world.found.clear();
                let damages = world.users.dice.below(4);
                (0..damages).for_each(|_| world.change_replica());
                (world.resync, world.look) = (Resync::paths(Vec::new()), Some(look(false)));
            }
            world.step(true);
        }
        world.finish();
        world.assert_equal();
    });
}

/// Rule 0: what a check has found in plenty is not sent for the check, and once more for the resync.
#[test]
fn what_a_check_finds_in_plenty_is_sent_once() {
    const FILES: usize = 1_000;
    let mut world = World::new(1, Resync::paths(Vec::new()));
    let name = |number: usize| format!("d{}/f{}", number / 10, number % 10);
    for number in 0..FILES {
        if number % 10 == 0 {
            world.record_both(mkdir(&format!("d{}", number / 10)), &[]);
        }
        world.record_both(create(&name(number)), &[]);
        world.record_both(write(&name(number), 0), b"some content");
        world.replica.apply(&write(&name(number), 0), b"other content").unwrap();
    }
    world.look = Some(look(false));
    world.look_on();
    world.answer_about(&p(""));
    world.deliver_all();
    for number in 0..FILES {
        world.record(write(&name(number), 14), b"x");
    }
    world.deliver_all();
    world.finish();
    world.assert_equal();
    let each = world.master.get(&p(&name(0))).unwrap().data.len() as u64;
    // The first hundred come twice, and what was on its way then.
    assert!(world.sent <= FILES as u64 * each * 5 / 4, "{} bytes, of {FILES} times {each}", world.sent);
}

/// Rule 7, where a resync of the whole tree takes the check over. An example: what fails without it is
/// `what_a_check_finds_in_plenty_is_sent_once`.
#[test]
fn what_a_record_touched_before_a_check_found_anything_is_compared() {
    let mut world = World::new(1, Resync::paths(Vec::new()));
    for op in [mkdir("d"), create("d/a"), write("d/a", 0)] {
        world.record_both(op, b"some content");
    }
    world.replica.apply(&write("d/a", 0), b"other content").unwrap();
    world.replica.apply(&create("extra"), &[]).unwrap();
    (world.look, world.much) = (Some(look(false)), Some(1));
    world.look_on();
    world.record(write("d/a", 14), b"x");
    world.answer_about(&p(""));
    world.deliver_all();
    world.look_on();
    assert!(world.look.is_none(), "taken over");
    world.finish();
    world.assert_equal();
}

/// DESIGN section 7, rule 7: "replay has set its mtime", by another name that goes before it is compared.
#[test]
fn a_look_compares_what_a_record_touched_by_another_name() {
    for listed_late in [false, true] {
        let mut world = World::new(1, Resync::paths(Vec::new()));
        for op in [mkdir("d"), create("d/a"), write("d/a", 0), link("d/a", "b")] {
            world.record_both(op, &[]);
        }
        world.replica.apply(&write("b", 0), b"other content").unwrap();
        world.look = Some(look(false));
        world.look_on();
        world.answer_about(&p(""));
        world.deliver_all();
        world.look_on();
        if !listed_late {
            world.answer_about(&p("d"));
            world.deliver_all();
            world.look_on();
        }
        world.record(write("b", 14), b"x");
        let about = if listed_late { "d" } else { "d/a" };
        world.answer_about(&p(about));
        world.record(unlink("b"), &[]);
        world.finish();
        world.assert_equal();
        assert_eq!(world.found, [(p("d/a"), Difference::Content)], "{about}");
    }
}

/// Rule 7, where something else differs beside what the record's mtime hides.
#[test]
fn a_look_that_finds_other_attributes_compares_what_a_record_touched() {
    let mut world = World::new(1, Resync::paths(Vec::new()));
    for op in [create("a"), write("a", 0)] {
        world.record_both(op, b"some content");
    }
    world.replica.apply(&write("a", 0), b"other content").unwrap();
    world.replica.apply(&chmod("a", 0o640), &[]).unwrap();
    world.look = Some(look(false));
    world.look_on();
    world.answer_about(&p(""));
    world.deliver_all();
    world.look_on();
    world.record(write("a", 14), b"x");
    world.finish();
    world.assert_equal();
    assert_eq!(world.found, [(p("a"), Difference::Content)]);
}

/// Rule 7, where what differs moves on to a directory that is not listed yet.
#[test]
fn a_look_compares_what_differed_before_it_moved() {
    let mut world = World::new(1, Resync::paths(Vec::new()));
    for op in [mkdir("d"), create("a"), write("a", 0)] {
        world.record_both(op, &[]);
    }
    world.replica.apply(&write("a", 0), b"other content").unwrap();
    world.look = Some(look(false));
    world.look_on();
    world.answer_about(&p(""));
    world.deliver_all();
    for op in [write("a", 14), rename("a", "d/a")] {
        world.record(op, b"x");
        world.deliver_all();
    }
    world.finish();
    world.assert_equal();
    assert_eq!(world.found, [(p("d/a"), Difference::Content)]);
}
