//! Listings of large directories: they come in parts, with records in between.

use super::rules::{compared, ends_equal, recorded, twins};
use super::story::{create, p, rename, unlink, write};
use super::world::World;

/// Two of the names `a` to `f` were told, and nothing but records can come before the others are.
fn two_are_told() -> World {
    let mut world = twins(&["a", "b", "c", "d", "e", "f"]);
    world.pace.names_a_part = Some(2);
    world.replica.apply(&create("aa"), &[]).unwrap();
    world.replica.apply(&create("z"), &[]).unwrap();
    compared(&mut world, "");
    world
}

/// "a resync never delays live records by more than a few blocks": what is behind the told names is as it was.
#[test]
fn a_part_of_a_listing_removes_nothing_behind_it() {
    let world = two_are_told();
    assert!(world.replica.get(&p("aa")).is_err());
    assert!(world.replica.get(&p("z")).is_ok());
    assert_eq!(ends_equal(world).resync.progress().differences, 3, "two names and the mtime of the root");
}

#[test]
fn a_listing_goes_on_where_it_was_when_the_connection_is_lost() {
    let mut world = two_are_told();
    let before = world.answered;
    world.send_wants_now();
    world.lose_connection();
    let world = ends_equal(world);
    assert_eq!(world.answered - before, 2, "two more parts");
}

/// A record has to fit where names were told, and need not where they were not.
#[test]
fn records_between_the_parts() {
    for (op, meant) in [
        (write("a", 0), 0),
        (write("f", 0), 0),
        (rename("a", "g"), 0),
        (rename("f", "aaa"), 0),
        (unlink("b"), 0),
        (unlink("d"), 0),
        (create("ab"), 0),
        (create("da"), 0),
    ] {
        let mut world = two_are_told();
        world.send_wants_now();
        recorded(&mut world, op.clone(), b"new");
        world.finish();
        world.assert_equal();
        assert_eq!(world.divergences, meant, "{op:?}");
    }
    for (gone, diverges) in [("a", 1), ("d", 0)] {
        let mut world = two_are_told();
        world.replica.apply(&unlink(gone), &[]).unwrap();
        recorded(&mut world, write(gone, 0), b"new");
        world.finish();
        world.assert_equal();
        assert_eq!(world.divergences, diverges, "{gone}");
    }
}

/// What somebody did to names that were told is found all the same, once a record shows that he was there.
#[test]
fn names_that_were_told_are_compared_again_where_a_record_does_not_fit() {
    let mut world = two_are_told();
    for op in [unlink("a"), unlink("b"), create("ax")] {
        world.replica.apply(&op, &[]).unwrap();
    }
    recorded(&mut world, write("a", 0), b"new");
    world.finish();
    world.assert_equal();
    assert_eq!(world.divergences, 1);
}
