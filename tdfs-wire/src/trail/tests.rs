//! A trail beside a naive model: lists of paths, and two trees of which one missed what the trail says.

use super::{Extent, TRAIL_BYTES_MAX, Trail};
use crate::op::{AttrOp, DataOp, NamespaceOp, NewObject, Op, RenameMode};
use crate::{Time, TreePath};
use std::collections::BTreeMap;

fn p(path: &str) -> TreePath {
    TreePath::new(path.as_bytes()).unwrap()
}

fn all(trail: &Trail) -> Vec<String> {
    let mark = |extent| if extent == Extent::All { "*" } else { "" };
    trail.paths().iter().map(|(path, extent)| format!("{path}{}", mark(*extent))).collect()
}

fn followed(ops: &[Op]) -> Trail {
    let mut trail = Trail::new(TRAIL_BYTES_MAX);
    ops.iter().for_each(|op| trail.follow(op));
    trail
}

fn time(sec: i64) -> Time {
    Time { sec, nsec: 0 }
}

fn new(path: &TreePath, now: i64) -> NewObject {
    NewObject {
        path: path.clone(),
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: time(now),
        parent_mtime: time(now),
        access_acl_bytes: 0,
        default_acl_bytes: 0,
    }
}

fn rename(from: &str, to: &str, mode: RenameMode) -> Op {
    let (from_parent_mtime, to_parent_mtime) = (time(1), time(1));
    Op::Namespace(NamespaceOp::Rename {
        from: p(from),
        to: p(to),
        mode,
        from_parent_mtime,
        to_parent_mtime,
        links: 0,
    })
}

fn write(path: &str) -> Op {
    Op::Data(DataOp::Write { path: p(path), offset: 0, mtime: time(1) })
}

fn chmod(path: &str) -> Op {
    Op::Attr(AttrOp::Mode { path: p(path), mode: 0 })
}

#[test]
fn each_op_adds_what_it_changed_and_no_more() {
    let create = Op::Namespace(NamespaceOp::Create(new(&p("d/a"), 1)));
    assert_eq!(all(&followed(&[create])), ["/d", "/d/a*"]);
    let unlink = Op::Namespace(NamespaceOp::Unlink { path: p("a"), parent_mtime: time(1), links: 0 });
    assert_eq!(all(&followed(&[unlink])), ["/", "/a*"], "gone, but the slave has it");
    let link = Op::Namespace(NamespaceOp::Link { from: p("d/a"), to: p("e/b"), parent_mtime: time(1) });
    assert_eq!(all(&followed(&[link])), ["/d/a*", "/e", "/e/b*"]);
    assert_eq!(all(&followed(&[rename("d/a", "e/b", RenameMode::Replace)])), ["/d", "/d/a*", "/e", "/e/b*"]);
    assert_eq!(all(&followed(&[write("d/a")])), ["/d/a*"]);
    assert_eq!(all(&followed(&[chmod("d")])), ["/d"], "not what is in it");
    let (from, to) = (p("d/a"), p("e/b"));
    let copy = DataOp::Copy { from, from_offset: 0, to, to_offset: 0, len: 1, mtime: time(1) };
    assert_eq!(all(&followed(&[Op::Data(copy)])), ["/e/b*"]);
    assert_eq!(all(&followed(&[Op::Check { paths: vec![p("x"), p("y")] }])), ["/x*", "/y*"]);
}

fn link(from: &str, to: &str) -> Op {
    Op::Namespace(NamespaceOp::Link { from: p(from), to: p(to), parent_mtime: time(1) })
}

fn unlink(path: &str, links: u32) -> Op {
    Op::Namespace(NamespaceOp::Unlink { path: p(path), parent_mtime: time(1), links })
}

fn replace(from: &str, to: &str, links: u32) -> Op {
    match rename(from, to, RenameMode::Replace) {
        Op::Namespace(NamespaceOp::Rename { from, to, mode, from_parent_mtime, to_parent_mtime, .. }) => {
            Op::Namespace(NamespaceOp::Rename { from, to, mode, from_parent_mtime, to_parent_mtime, links })
        }
        other => other,
    }
}

/// DESIGN section 8: "and the remaining name of what an unlink or rename-over left linked (!)"
#[test]
fn what_was_changed_by_a_name_that_is_gone_may_be_any_name() {
    let create = |path| Op::Namespace(NamespaceOp::Create(new(&p(path), 1)));
    let no_replace = |from, to| rename(from, to, RenameMode::NoReplace);
    for run in [
        vec![write("d/a"), unlink("d/a", 1)],
        vec![chmod("a"), replace("b", "a", 1)],
        vec![write("a"), no_replace("a", "b"), unlink("b", 1)],
        vec![write("b"), rename("a", "b", RenameMode::Exchange), unlink("a", 1)],
        vec![no_replace("d", "e"), write("e/a"), unlink("e/a", 1)],
        vec![write("a"), link("a", "b"), unlink("a", 2)],
    ] {
        assert_eq!(all(&followed(&run)), ["/*"], "{run:?}");
    }
    for run in [
        vec![write("a"), unlink("a", 0)],
        vec![unlink("a", 1)],
        vec![create("t"), write("t"), link("t", "a"), unlink("t", 1)],
        vec![create("t"), write("t"), replace("t", "a", 1)],
        vec![write("a"), no_replace("a", "b"), unlink("a", 1)],
        vec![write("a"), rename("a", "b", RenameMode::Exchange), unlink("a", 1)],
    ] {
        assert!(all(&followed(&run)).len() > 1, "{run:?}");
    }
}

#[test]
fn nothing_is_kept_below_what_counts_with_all_below_it() {
    let run = [write("d/a"), chmod("d/e"), rename("d", "f", RenameMode::NoReplace), write("f/a")];
    assert_eq!(all(&followed(&run)), ["/", "/d*", "/f*"]);
    let swap = [write("a/x"), write("b/y"), rename("a", "b", RenameMode::Exchange), chmod("c/z")];
    assert_eq!(all(&followed(&swap)), ["/", "/a*", "/b*", "/c/z"]);
}

#[test]
fn beyond_its_limit_the_fullest_directories_are_kept_instead() {
    let mut trail = Trail::new(20_000);
    for file in 0..200 {
        trail.add(&p(&format!("full/{file}")), Extent::All);
        assert!(trail.bytes() <= 20_000);
        if file < 5 {
            trail.add(&p(&format!("few/{file}")), Extent::All);
        }
    }
    assert_eq!(all(&trail), ["/few/0*", "/few/1*", "/few/2*", "/few/3*", "/few/4*", "/full*"]);
    let mut tiny = Trail::new(100);
    tiny.add(&p("a/b/c"), Extent::Itself);
    assert_eq!((all(&tiny), tiny.bytes()), (vec!["/*".to_owned()], 0));
    tiny.add(&p("z"), Extent::All);
    assert_eq!(all(&tiny), ["/*"]);
}

#[test]
fn a_long_chain_of_directories_is_no_trouble() {
    let deep = vec!["d"; 8000].join("/");
    let mut trail = followed(&[write(&deep)]);
    let copy = Trail::from_bytes(&trail.to_bytes(), TRAIL_BYTES_MAX).unwrap();
    assert_eq!(all(&copy), all(&trail));
    trail.add(&p("d"), Extent::All);
    assert_eq!((all(&trail), trail.bytes()), (vec!["/d*".to_owned()], copy.nodes[0].children.len() * 161));
}

#[test]
fn damaged_bytes_are_refused() {
    let bytes = followed(&[write("d/a"), write("d/b")]).to_bytes();
    for len in 1..bytes.len() {
        let whole = len == bytes.len() - 6;
        assert_eq!(Trail::from_bytes(&bytes[..len], 1000).is_ok(), whole, "{len}");
    }
    assert!(Trail::from_bytes(&[0, 0, 2, 0, 0], 1000).is_err(), "extent");
    assert!(Trail::from_bytes(&[1, 0, 1, 0, 0], 1000).is_err(), "beyond");
    assert!(Trail::from_bytes(&[0, 0, 1, 2, 0, b'.', b'.'], 1000).is_err(), "path");
}

/// xorshift64*
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % n
    }

    fn path(&mut self) -> TreePath {
        let names: Vec<&str> = (0..=self.below(3)).map(|_| ["a", "b", "c"][self.below(3)]).collect();
        p(&names.join("/"))
    }
}

/// A tree as a map of paths: (is a directory, meta, content).
type Naive = BTreeMap<TreePath, (bool, i64, i64)>;

/// Does the op, if it is possible; each number is given once.
fn apply(tree: &mut Naive, op: &Op, now: i64) -> bool {
    let parent_is_there = |tree: &Naive, path: &TreePath| {
        path.parent().is_some_and(|dir| tree.get(&dir).is_some_and(|it| it.0))
    };
    let is_empty =
        |tree: &Naive, path: &TreePath| !tree.keys().any(|below| below != path && below.is_at_or_below(path));
    let touch = |tree: &mut Naive, path: &TreePath| tree.get_mut(&path.parent().unwrap()).unwrap().1 = now;
    match op {
        Op::Namespace(NamespaceOp::Create(new) | NamespaceOp::Mkdir(new)) => {
            if tree.contains_key(&new.path) || !parent_is_there(tree, &new.path) {
                return false;
            }
            tree.insert(new.path.clone(), (matches!(op, Op::Namespace(NamespaceOp::Mkdir(_))), now, now));
            touch(tree, &new.path);
        }
        Op::Namespace(NamespaceOp::Unlink { path, .. }) => {
            if !tree.contains_key(path) || path.is_root() || !is_empty(tree, path) {
                return false;
            }
            tree.remove(path);
            touch(tree, path);
        }
        Op::Namespace(NamespaceOp::Rename { from, to, mode, .. }) => {
            let related = from.is_at_or_below(to) || to.is_at_or_below(from);
            let there = tree.contains_key(to);
            let exchange = *mode == RenameMode::Exchange;
            if related || !tree.contains_key(from) || !parent_is_there(tree, to) || there != exchange {
                return false;
            }
            let moved = |path: &TreePath| {
                let (old, new) = if path.is_at_or_below(from) { (from, to) } else { (to, from) };
                if !path.is_at_or_below(old) {
                    return path.clone();
                }
                let end = &path.as_bytes()[old.as_bytes().len()..];
                TreePath::new([new.as_bytes(), end].concat()).unwrap()
            };
            *tree = std::mem::take(tree).into_iter().map(|(path, it)| (moved(&path), it)).collect();
            touch(tree, from);
            touch(tree, to);
        }
        Op::Data(DataOp::Write { path, .. }) => match tree.get_mut(path) {
            Some(it) if !it.0 => it.2 = now,
            _ => return false,
        },
        Op::Attr(op) => match tree.get_mut(op.path()) {
            Some(it) => it.1 = now,
            None => return false,
        },
        _ => return false,
    }
    true
}

fn random_op(dice: &mut Dice, now: i64) -> Op {
    let (path, to) = (dice.path(), dice.path());
    let mtime = time(now);
    match dice.below(8) {
        0 => Op::Namespace(NamespaceOp::Create(new(&path, now))),
        1 | 2 => Op::Namespace(NamespaceOp::Mkdir(new(&path, now))),
        3 => Op::Namespace(NamespaceOp::Unlink { path, parent_mtime: mtime, links: 0 }),
        4 => Op::Data(DataOp::Write { path, offset: 0, mtime }),
        5 => Op::Attr(AttrOp::Times { path, mtime }),
        kind => {
            let mode = if kind == 6 { RenameMode::NoReplace } else { RenameMode::Exchange };
            let (from_parent_mtime, to_parent_mtime) = (mtime, mtime);
            Op::Namespace(NamespaceOp::Rename {
                from: path,
                to,
                mode,
                from_parent_mtime,
                to_parent_mtime,
                links: 0,
            })
        }
    }
}

/// What a slave does that compares these paths only.
fn heal(slave: &mut Naive, master: &Naive, paths: &[(TreePath, Extent)]) {
    for (path, extent) in paths {
        if *extent == Extent::All {
            slave.retain(|below, _| !below.is_at_or_below(path));
            let there = master.iter().filter(|(below, _)| below.is_at_or_below(path));
            slave.extend(there.map(|(below, it)| (below.clone(), *it)));
        } else {
            slave.get_mut(path).expect("it was there before, or it came with all below it").1 =
                master[path].1;
        }
    }
}

/// DESIGN section 7, rule 10: "only the paths of lost records are wanted again"
#[test]
fn a_slave_that_compares_the_trail_is_equal() {
    for seed in 1..3000 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let root = (TreePath::root(), (true, 0, 0));
        let (mut master, mut now) = (Naive::from([root]), 0);
        for _ in 0..60 {
            now += 1;
            let op = random_op(&mut dice, now);
            apply(&mut master, &op, now);
        }
        let mut slave = master.clone();
        let bytes_max = if dice.below(3) == 0 { 200 + dice.below(2000) } else { TRAIL_BYTES_MAX };
        let (mut trail, mut names) = (Trail::new(bytes_max), Vec::new());
        for _ in 0..dice.below(40) {
            now += 1;
            let op = random_op(&mut dice, now);
            if apply(&mut master, &op, now) {
                trail.follow(&op);
                names.extend(op.paths().into_iter().cloned());
            }
            assert!(trail.bytes() <= bytes_max);
        }
        let paths = trail.paths();
        for (i, (path, extent)) in paths.iter().enumerate() {
            let below = paths[i + 1..].iter().any(|(below, _)| below.is_at_or_below(path));
            assert!(*extent == Extent::Itself || !below, "{seed}: {paths:?}");
        }
        for name in names {
            let is_in = |(path, extent): &(TreePath, Extent)| {
                *path == name || (*extent == Extent::All && name.is_at_or_below(path))
            };
            assert!(paths.iter().any(is_in), "{seed}: {name} is not in {paths:?}");
        }
        let copy = Trail::from_bytes(&trail.to_bytes(), bytes_max).unwrap();
        assert_eq!(
            (copy.paths(), copy.bytes(), copy.is_empty()),
            (paths.clone(), trail.bytes(), paths.is_empty())
        );
        heal(&mut slave, &master, &paths);
        assert_eq!(slave, master, "{seed}: {paths:?}");
    }
}
