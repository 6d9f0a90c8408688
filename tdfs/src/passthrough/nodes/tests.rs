//! Tests of the node table.

use super::*;

fn path(nodes: &Nodes, ino: u64) -> Option<String> {
    nodes.path(ino).unwrap().map(|path| path.to_string())
}

#[test]
fn a_name_keeps_its_parents_node_alive() {
    let nodes = Nodes::default();
    nodes.remember(10, ROOT, b"a");
    nodes.remember(11, 10, b"b");
    nodes.remember(12, 11, b"c");
    assert!(!nodes.forget(10, 1) && !nodes.forget(11, 1));
    assert_eq!(path(&nodes, 12).as_deref(), Some("/a/b/c"));
    assert!(nodes.forget(12, 1));
    assert_eq!(nodes.len(), 0);
}

#[test]
fn a_node_without_names_keeps_its_path_fd_until_it_is_forgotten() {
    let nodes = Nodes::default();
    nodes.remember(10, ROOT, b"a");
    nodes.remember(10, ROOT, b"b");
    let fd = || Some(std::fs::File::open("/dev/null").unwrap().into());
    nodes.remove_name(10, ROOT, b"a", fd());
    assert!(matches!(nodes.place(10), Ok(Place::Named(name)) if *name.name == *b"b"));
    nodes.remove_name(10, ROOT, b"b", fd());
    assert!(matches!(nodes.place(10), Ok(Place::Nameless(_))));
    assert_eq!(path(&nodes, 10), None);
    assert!(!nodes.forget(10, 1) && nodes.forget(10, 1));
    assert_eq!(nodes.place(10).unwrap_err(), Errno::STALE);
}

#[test]
fn a_node_that_is_held_stays_when_the_kernel_forgets_it() {
    let nodes = Nodes::default();
    nodes.remember(10, ROOT, b"a");
    assert!(nodes.hold(10) && !nodes.forget(10, 1));
    assert_eq!(path(&nodes, 10).as_deref(), Some("/a"));
    assert!(nodes.forget(10, 1) && !nodes.hold(10));
}

#[test]
fn a_renamed_directory_carries_the_paths_below_it() {
    let nodes = Nodes::default();
    nodes.remember(10, ROOT, b"a");
    nodes.remember(11, ROOT, b"d");
    nodes.remember(12, 10, b"f");
    nodes.rename(10, (ROOT, b"a"), (11, b"z"));
    assert_eq!(path(&nodes, 12).as_deref(), Some("/d/z/f"));
}

#[test]
fn a_path_over_the_limit_is_an_error() {
    let nodes = Nodes::default();
    let mut parent = ROOT;
    for ino in 10..10 + 65 {
        nodes.remember(ino, parent, &[b'x'; 255]);
        parent = ino;
    }
    assert_eq!(nodes.path(parent).unwrap_err(), Errno::NAMETOOLONG);
    assert!(nodes.path(parent - 1).unwrap().is_some());
}
