//! Tests of the caches.

use super::*;
use rustix::fs::Mode;

fn target() -> (tempfile::TempDir, Target) {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::open(dir.path()).unwrap();
    (dir, target)
}

fn p(path: &str) -> TreePath {
    TreePath::new(path.as_bytes()).unwrap()
}

#[test]
fn the_root_is_a_directory_without_a_parent() {
    let (_dir, mut target) = target();
    assert_eq!(target.parent(&TreePath::root()).unwrap_err(), Errno::INVAL);
    let root = target.dir(&TreePath::root()).unwrap();
    assert!(object::same_object(root, target.root()).unwrap());
}

#[test]
fn what_is_dropped_is_looked_up_again_and_nothing_else() {
    let (dir, mut target) = target();
    std::fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
    std::fs::create_dir_all(dir.path().join("ab")).unwrap();
    target.dir(&p("a/b/c")).unwrap();
    target.dir(&p("ab")).unwrap();
    std::fs::rename(dir.path().join("a"), dir.path().join("z")).unwrap();
    std::fs::remove_dir(dir.path().join("ab")).unwrap();
    target.drop_at_or_below(&p("a"));
    assert_eq!(target.dir(&p("a/b/c")).unwrap_err(), Errno::NOENT);
    assert!(target.dir(&p("ab")).is_ok(), "a name that only begins the same is still cached");
    target.drop_all();
    assert_eq!(target.dir(&p("ab")).unwrap_err(), Errno::NOENT);
}

#[test]
fn caches_have_a_limit() {
    let (dir, mut target) = target();
    for i in 0..DIRS_MAX.max(FILES_MAX) + 50 {
        rustix::fs::mkdir(dir.path().join(i.to_string()), Mode::from_raw_mode(0o700)).unwrap();
        std::fs::write(dir.path().join(format!("f{i}")), "").unwrap();
        target.dir(&p(&i.to_string())).unwrap();
        target.file(&p(&format!("f{i}"))).unwrap();
    }
    assert_eq!((target.dirs.len(), target.files.len()), (DIRS_MAX, FILES_MAX));
}

#[test]
fn a_directory_is_no_file() {
    let (dir, mut target) = target();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    assert_eq!(target.file(&p("d")).unwrap_err(), Errno::ISDIR);
    assert!(target.file_to_read(&p("d")).is_err());
}
