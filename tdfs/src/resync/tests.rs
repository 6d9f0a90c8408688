//! Tests of answers on a temporary directory, without FUSE and without a slave.

use super::*;
use crate::commit::Slots;
use rustix::fs::{Mode, open};
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use tdfs_host::state::StateDir;
use tdfs_wire::log::{Log, Options};
use tdfs_wire::{Epoch, Id};

struct Served {
    dir: tempfile::TempDir,
    _log: tempfile::TempDir,
    answers: Answers,
}

fn serve() -> Served {
    let (dir, log_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let epoch = Epoch { number: 1, id: Id::default() };
    let log = Log::create(log_dir.path(), epoch, Options::default()).unwrap();
    let root = open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let state = StateDir::open(&log_dir.path().join("state")).unwrap();
    let slots = Slots::begin(&state, epoch).unwrap();
    let passthrough = Passthrough::new(root, Commit::new(Arc::new(log), slots)).unwrap();
    Served { dir, _log: log_dir, answers: Answers::new(Arc::new(passthrough), Codec::Stored) }
}

impl Served {
    fn answer(&self, want: &Want) -> Found {
        let told = RefCell::new(None);
        let place = |placed: Placed| {
            told.replace(Some(Answer::parse(placed.frame.payload()).unwrap().0.found));
        };
        self.answers.try_answer(want, &place).unwrap();
        told.into_inner().unwrap()
    }
}

fn path_fd(path: &Path) -> OwnedFd {
    open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn children(found: Found) -> (Vec<Child>, bool) {
    match found {
        Found::Listing { children, last, .. } => (children, last),
        other => panic!("no listing: {other:?}"),
    }
}

/// DESIGN section 7, rule 3: "A listing is exact for names, types and inode numbers."
#[test]
fn a_listing_is_exact_whatever_happened_since_its_children_were_read() {
    let served = serve();
    let at = |name: &str| served.dir.path().join(name);
    for name in ["gone", "replaced", "moved", "other-type", "touched", "same"] {
        fs::write(at(name), name).unwrap();
    }
    symlink("old", at("symlink")).unwrap();
    let dir = path_fd(served.dir.path());
    let hints = {
        // Nobody may need a lock here: the tree is locked against all others.
        let _all = served.answers.commit().order().exclusive();
        served.answers.hints(&TreePath::root(), dir.as_fd(), object::list(dir.as_fd()).unwrap())
    };
    fs::remove_file(at("gone")).unwrap();
    fs::write(at("new"), "new").unwrap();
    fs::rename(at("new"), at("replaced")).unwrap();
    fs::rename(at("moved"), at("moved-here")).unwrap();
    fs::remove_file(at("other-type")).unwrap();
    fs::create_dir(at("other-type")).unwrap();
    fs::write(at("touched"), "longer than before").unwrap();
    fs::remove_file(at("symlink")).unwrap();
    symlink("new", at("symlink")).unwrap();
    fs::write(at("added"), "").unwrap();

    let tree = served.answers.commit().order().shared();
    let locked = lock(&tree, dir).unwrap();
    let part = Part::of(object::list(locked.fd.as_fd()).unwrap(), None);
    let (told, last) = children(served.answers.listing(&TreePath::root(), &locked, part, hints).unwrap());
    assert!(last);
    let names: Vec<&[u8]> = told.iter().map(|child| child.name.as_bytes()).collect();
    let there = ["added", "moved-here", "other-type", "replaced", "same", "symlink", "touched"];
    assert_eq!(names, there.map(str::as_bytes));
    for (child, name) in told.iter().zip(there) {
        assert_eq!(child.ino, fs::symlink_metadata(at(name)).unwrap().ino(), "{name}");
    }
    assert_eq!(told[2].meta.kind, Kind::Directory);
    assert_eq!(told[5].meta.kind, Kind::Symlink(b"new".to_vec()));
    assert_eq!((told[3].meta.size, told[4].meta.size), (3, 4));
}

/// DESIGN section 7, rule 2: "An answer is exact as of the log's head n at that moment ... It enters the sender's queue before
/// the locks are released": who changes the object meanwhile waits until then.
#[test]
fn no_record_of_an_object_comes_between_its_state_and_the_answer() {
    let served = serve();
    let fs = Arc::clone(&served.answers.passthrough);
    let caller = crate::passthrough::Caller { uid: 0, gid: 0, pid: 0 };
    let file = fs.mknod((1, b"file"), 0o644, 0, 0, caller).unwrap().nodeid;
    let object = Wanted::Object { offset: 0, hashes: Vec::new() };
    for (path, what) in
        [(TreePath::new(*b"file").unwrap(), object), (TreePath::root(), Wanted::Listing { after: None })]
    {
        let changing = RefCell::new(None);
        let place = |placed: Placed| {
            let (fs, other) = (Arc::clone(&fs), path.is_root());
            let thread = std::thread::spawn(move || match other {
                true => fs.mknod((1, b"another"), 0o644, 0, 0, caller).map(drop),
                false => fs.write(file, 0, b"changed").map(drop),
            });
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(!thread.is_finished(), "{path} was changed before the answer had its place");
            assert_eq!(served.answers.commit().log().head(), placed.as_of);
            changing.replace(Some(thread));
        };
        served.answers.try_answer(&Want { id: 1, path: path.clone(), what }, &place).unwrap();
        changing.take().unwrap().join().unwrap().unwrap();
    }
}

/// "a resync never delays live records by more than a few blocks": no answer is longer than those.
#[test]
fn a_large_directory_is_told_in_parts_and_sorted() {
    let served = serve();
    let count = 2 * LISTING_PART_BYTES / CHILD_BYTES;
    for number in 0..count {
        fs::write(served.dir.path().join(format!("{number:06}")), "").unwrap();
    }
    let (mut told, mut parts, mut after) = (Vec::new(), 0, None);
    loop {
        let want = Want { id: 1, path: TreePath::root(), what: Wanted::Listing { after } };
        let (part, last) = children(served.answer(&want));
        told.extend(part);
        parts += 1;
        if last {
            break;
        }
        after = told.last().map(|child| child.name.clone());
    }
    assert_eq!((told.len(), parts), (count, 3));
    assert!(told.is_sorted_by(|a, b| a.name.as_bytes() < b.name.as_bytes()));
}

/// A hole costs nothing, however long it is: three islands of data in 1 TiB take three wants, not a million.
#[test]
fn holes_are_told_at_once() {
    use std::os::unix::fs::FileExt;
    let (served, block, size) = (serve(), BLOCK_BYTES, 1 << 40);
    let file = fs::File::create(served.dir.path().join("sparse")).unwrap();
    file.set_len(size).unwrap();
    let islands = [3 * block, 1 << 35, size - 1];
    islands.iter().for_each(|&at| file.write_all_at(b"x", at).unwrap());
    let (mut offset, mut wants, mut data) = (0, 0, 0);
    while offset < size {
        let what = Wanted::Object { offset, hashes: Vec::new() };
        let told = served.answer(&Want { id: 1, path: TreePath::new(*b"sparse").unwrap(), what });
        let Found::Object { stretches, .. } = &told else { panic!("{told:?}") };
        let data_of = |stretch: &Stretch| if matches!(stretch, Stretch::Data(_)) { stretch.len() } else { 0 };
        data += stretches.iter().map(data_of).sum::<u64>();
        offset += stretches.iter().map(Stretch::len).sum::<u64>();
        wants += 1;
    }
    assert_eq!(offset, size);
    assert!(wants <= islands.len() && data <= 3 * block, "{wants} wants, {data} bytes of data");
}
