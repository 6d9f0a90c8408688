//! What a resync may cost while the master keeps changing: it has an end, and what was compared is not compared
//! again because something else changed.

use super::rules::{compared, ends_equal, recorded, twins};
use super::story::{create, exchange, link, mkdir, p, times, unlink, write};
use super::world::World;

/// So many files with two names each, all in the root.
const PAIRS: usize = 40;

fn pairs(more: &[&str]) -> World {
    let mut world = twins(more);
    for number in 0..PAIRS {
        let (one, other) = (format!("a{number}"), format!("b{number}"));
        world.record_both(create(&one), &[]);
        world.record_both(write(&one, 0), &[b'm'; 16]);
        world.record_both(link(&one, &other), &[]);
    }
    world
}

/// Rule 7: a touched name that goes before it was compared, and was the only one of its object, concerns nothing else.
#[test]
fn single_name_that_goes_has_nothing_compared_again() {
    let mut world = pairs(&["d/", "d/a", "d/b", "d/c"]);
    compared(&mut world, "");
    for name in ["d/a", "d/b", "d/c"] {
        recorded(&mut world, write(name, 4), b"new");
        recorded(&mut world, unlink(name), &[]);
    }
    assert_eq!(ends_equal(world).answered, 2, "the listings of both directories");
}

/// Rules 7 and 8: one of several names that goes concerns the objects that it may have been a name of.
#[test]
fn one_of_two_names_that_goes_has_its_object_compared_again_and_no_other() {
    let mut world = pairs(&["d/", "d/x"]);
    compared(&mut world, "");
    compared(&mut world, "d");
    for number in 0..PAIRS {
        // All names are known once the object itself was asked about.
        world.resync.want(p(&format!("a{number}")));
    }
    while world.resync.progress().objects_wanted > 2 {
        world.send_wants_now();
        world.answer_one();
        world.deliver_all();
    }
    let before = world.answered;
    world.resync.want(p("b7"));
    recorded(&mut world, unlink("b7"), &[]);
    let answered = ends_equal(world).answered - before;
    assert!(answered <= 10, "{answered} answers because one name went");
}

/// DESIGN section 7: "It runs while the master keeps changing": however long that goes on, it has an end. Each
/// time an answer comes, one of the names that are being compared goes, and comes back.
#[test]
fn a_resync_ends_though_names_come_and_go_all_the_time() {
    let mut world = pairs(&["d/", "d/x", "d/y"]);
    world.record_both(link("d/x", "d/z"), &[]);
    world.replica.apply(&write("a3", 0), &[b'r'; 16]).unwrap();
    compared(&mut world, "");
    // Something is in doubt, so that hard links are compared once more.
    recorded(&mut world, write("d/x", 4), b"new");
    recorded(&mut world, unlink("d/x"), &[]);
    for turn in 0..5_000 {
        world.send_wants_now();
        if world.is_over() {
            println!("over after {turn} turns, {} answers", world.answered);
            assert!(world.answered <= 8 * PAIRS as u64, "{} answers", world.answered);
            world.assert_untouched();
            return world.assert_exact();
        }
        let number = world.users.dice.below(PAIRS);
        let (one, other) = (format!("a{number}"), format!("b{number}"));
        for op in [times(&one), unlink(&one), link(&other, &one)] {
            recorded(&mut world, op, &[]);
        }
        world.answer_one();
        world.deliver_all();
    }
    panic!("no end: {} answers, {:?}", world.answered, world.resync.progress());
}

/// "Equal content is not sent": also not of what the master exchanges with something that the replica lacks.
#[test]
fn what_is_exchanged_with_what_the_replica_lacks_is_not_sent() {
    for (a, b) in [("d", "e"), ("e", "d")] {
        let mut world = twins(&["d/", "d/a", "d/b"]);
        world.master.apply(&mkdir("e"), &[]).unwrap();
        recorded(&mut world, exchange(a, b), &[]);
        assert!(world.replica.get(&p("e/a")).is_ok());
        let progress = ends_equal(world).resync.progress();
        assert_eq!(progress.bytes_received, 0, "{progress:?}");
    }
}
