//! Tests of the state directory.

use super::{Side, StateDir, StateError, absolute, escape, name_of};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Example {
    number: u64,
}

#[test]
fn paths_are_escaped_as_systemd_does() {
    assert_eq!(escape(Path::new("/")), "-");
    assert_eq!(escape(Path::new("/srv/web data")), "srv-web\\x20data");
    assert_eq!(escape(Path::new("//a//b-c/")), "a-b\\x2dc");
    assert_eq!(escape(Path::new("/.hidden/.x")), "\\x2ehidden-.x");
    assert_eq!(name_of(Side::Master, Path::new("/data")), "master-data");
}

#[test]
fn long_paths_get_short_names_that_differ() {
    let long = |end: &str| format!("/{}/{end}", "x".repeat(300));
    let (a, b) = (name_of(Side::Slave, Path::new(&long("a"))), name_of(Side::Slave, Path::new(&long("b"))));
    assert_eq!((a.len(), b.len()), (255, 255));
    assert_ne!(a, b);
}

#[test]
fn a_second_holder_is_refused_and_told_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/state");
    let state = StateDir::open(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    match StateDir::open(&path) {
        Err(StateError::Locked { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
        other => panic!("{other:?}"),
    }
    drop(state);
    StateDir::open(&path).unwrap();
}

#[test]
fn files_are_read_as_written_and_strange_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    assert_eq!(state.read::<Example>("e.json").unwrap(), None);
    state.write("e.json", &Example { number: 5 }).unwrap();
    assert_eq!(state.read("e.json").unwrap(), Some(Example { number: 5 }));
    std::fs::write(dir.path().join("e.json"), br#"{"version":2,"number":5}"#).unwrap();
    assert!(matches!(state.read::<Example>("e.json"), Err(StateError::Newer { theirs: 2, .. })));
    for bad in ["", "{}", r#"{"version":1}"#, r#"{"version":1,"number":"#] {
        std::fs::write(dir.path().join("e.json"), bad).unwrap();
        let error = state.read::<Example>("e.json").unwrap_err();
        assert!(error.to_string().contains("e.json is damaged"), "{error}");
    }
    state.remove("e.json").unwrap();
    state.remove("e.json").unwrap();
    assert_eq!(state.read::<Example>("e.json").unwrap(), None);
}

#[test]
fn absolute_follows_links_but_needs_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let real = std::fs::canonicalize(dir.path()).unwrap();
    std::os::unix::fs::symlink("target", real.join("link")).unwrap();
    assert_eq!(absolute(&real.join("link")).unwrap(), real.join("target"));
    assert_eq!(absolute(&real.join("./none/../missing")).ok(), None);
    assert_eq!(absolute(&real.join("missing")).unwrap(), real.join("missing"));
}

/// What others put into a state directory that lets them (a tmpfs has the sticky bit) is neither read nor written to; one in
/// which they could replace files is refused.
#[test]
fn what_others_have_put_there_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let chmod = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o777, 0o770, 0o702] {
        chmod(mode);
        let error = StateDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, StateError::Writable { .. }), "{error}");
    }
    chmod(0o1777);
    let state = StateDir::open(dir.path()).unwrap();
    let (planted, new) = (dir.path().join("e.json"), dir.path().join("e.json.new"));
    std::fs::write(&new, "planted").unwrap();
    let kept_open = std::fs::File::open(&new).unwrap();
    state.write("e.json", &Example { number: 5 }).unwrap();
    assert_eq!(std::io::read_to_string(kept_open).unwrap(), "planted");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&planted, Some(65534), None).unwrap();
        assert!(matches!(state.read::<Example>("e.json"), Err(StateError::Foreign { uid: 65534, .. })));
    }
}
