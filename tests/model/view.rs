//! What a tree shows: each object with all that an application can ask of it.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use harness::compare::data_extents;
use harness::ops::digest;

/// What `Op::Times` sets: everything else depends on the clock.
const SET_SECONDS: [i64; 4] = [0, 1, 1_700_000_000, 4_000_000_000];

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    Attributes,
    Content,
}

/// What of it is compared.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub depth: Depth,
    pub capabilities: bool,
}

/// One tree, as it looked.
#[derive(Debug, Default)]
pub struct View {
    objects: BTreeMap<PathBuf, Shown>,
}

#[derive(Debug)]
struct Shown {
    described: String,
    content: Option<String>,
    ino: u64,
    times: [(i64, i64); 2],
}

impl View {
    /// Looks at the tree below `root`.
    pub fn of(root: &Path, wanted: Wanted) -> Self {
        let mut view = Self::default();
        let mut groups = BTreeMap::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let place = root.join(&path);
            let meta = place.symlink_metadata().unwrap();
            if meta.is_dir() {
                let names = std::fs::read_dir(&place).unwrap();
                let mut names: Vec<_> = names.map(|found| found.unwrap().file_name()).collect();
                names.sort_unstable();
                pending.extend(names.iter().rev().map(|name| path.join(name)));
            }
            let group = groups.entry(meta.ino()).or_insert_with(|| path.clone()).clone();
            let shown = Shown::of(&place, &meta, &group, wanted);
            view.objects.insert(path, shown);
        }
        view
    }

    /// The first difference between two trees; with `holes` also in where files have holes.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let paths = self.objects.keys().chain(other.objects.keys());
        paths.into_iter().find_map(|path| {
            let of = |view: &Self| {
                view.objects.get(path).map(|shown| (shown.described.clone(), shown.content.clone()))
            };
            let (left, right) = (of(self), of(other));
            (left != right).then(|| format!("{}: {left:?} | {right:?}", path.display()))
        })
    }

    /// The first object whose times moved between two looks at one tree and did not at the other one.
    pub fn times_differ(now: [&Self; 2], before: [&Self; 2]) -> Option<String> {
        now[0].objects.keys().find_map(|path| {
            let moved = |side: usize| {
                let (now, before) = (now[side].objects.get(path)?, before[side].objects.get(path)?);
                let is_same = |which: usize| now.ino == before.ino && now.times[which] == before.times[which];
                Some(format!("mtime moved: {}, ctime moved: {}", !is_same(0), !is_same(1)))
            };
            let (left, right) = (moved(0), moved(1));
            (left != right).then(|| format!("{}: {left:?} | {right:?}", path.display()))
        })
    }

    /// The first object that has not the same times and inode number on both sides: of the mount and what lies below.
    pub fn inexact(&self, other: &Self) -> Option<String> {
        self.objects.iter().find_map(|(path, shown)| {
            let below = other.objects.get(path)?;
            let (here, there) = ((shown.ino, shown.times), (below.ino, below.times));
            (here != there).then(|| format!("{}: {here:?} | {there:?}", path.display()))
        })
    }
}

impl Shown {
    fn of(place: &Path, meta: &Metadata, group: &Path, wanted: Wanted) -> Self {
        let kind = meta.file_type();
        let size = if kind.is_dir() { 0 } else { meta.size() };
        let mut described = format!(
            "{:o} {}:{} links {} size {size} device {:x} with {}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.rdev(),
            group.display()
        );
        if SET_SECONDS.contains(&meta.mtime()) {
            described += &format!(" mtime {}.{}", meta.mtime(), meta.mtime_nsec());
        }
        if kind.is_symlink() {
            described += &format!(" -> {}", place.read_link().unwrap().display());
        }
        described += &xattrs(place, wanted);
        let content = (kind.is_file() && wanted.depth == Depth::Content).then(|| content(place, meta.size()));
        let times = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
        Self { described, content, ino: meta.ino(), times }
    }
}

fn xattrs(place: &Path, wanted: Wanted) -> String {
    let mut list = [0; 4096];
    let len = rustix::fs::llistxattr(place, &mut list[..]).unwrap();
    let mut names: Vec<&[u8]> =
        list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut shown = String::new();
    let is_wanted = |name: &&&[u8]| wanted.capabilities || **name != b"security.capability";
    for name in names.iter().filter(is_wanted) {
        let mut value = [0; 4096];
        let len = rustix::fs::lgetxattr(place, *name, &mut value[..]).unwrap();
        shown += &format!(" {}={}", name.escape_ascii(), digest(&value[..len]));
    }
    shown
}

fn content(place: &Path, size: u64) -> String {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(place).unwrap();
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let mut beyond = [0];
    assert_eq!(file.read_at(&mut beyond, size).unwrap(), 0, "{} has more than its size", place.display());
    format!("{} in {:?}", digest(&bytes), data_extents(&file, size).unwrap())
}
