//! A tree that no peer may reach, and nodes that nobody may open.

use harness::compare;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The tree, and how it was.
pub struct Outside {
    pub dir: PathBuf,
    before: PathBuf,
}

impl Outside {
    /// Makes it below `home`, with a copy to compare with.
    pub fn new(home: &Path) -> Outside {
        let outside = Outside { dir: home.join("outside"), before: home.join("outside-before") };
        for dir in [&outside.dir, &outside.before] {
            fs::create_dir_all(dir.join("dir/inner")).unwrap();
            fs::write(dir.join("secret"), "nobody may read this").unwrap();
            fs::write(dir.join("dir/inner/f"), "nor this").unwrap();
            fs::set_permissions(dir.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
            for name in ["secret", "dir/inner/f", "dir/inner", "dir", ""] {
                let path = dir.join(name);
                fs::File::open(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            }
        }
        outside
    }

    /// Content, names and all attributes are as they were.
    #[track_caller]
    pub fn assert_untouched(&self) {
        let found = compare(&self.before, &self.dir).expect("compare the trees");
        assert!(found.is_empty(), "a peer reached outside: {found:?}");
    }
}

/// Notes which objects right in a directory are opened.
pub struct Opens(OwnedFd);

impl Opens {
    pub fn watch(dir: &Path) -> Opens {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("make an inotify");
        inotify::add_watch(&fd, dir, WatchFlags::OPEN).expect("watch a directory");
        Opens(fd)
    }

    /// The names that were opened since this was asked last.
    pub fn names(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 65_536];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut names = Vec::new();
        while let Ok(opened) = reader.next() {
            assert!(!opened.events().contains(ReadFlags::QUEUE_OVERFLOW), "more was opened than can be told");
            names.extend(opened.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        names
    }
}
