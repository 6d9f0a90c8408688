//! Trees made from a seed, changed behind the daemons' backs, and what is known of the difference of two.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use harness::Rng;
use harness::ops::Names;
use rustix::fs::XattrFlags;

/// Files in each directory.
const FILES_A_DIRECTORY: usize = 40;
/// What a resync compares and sends at once.
const BLOCK: usize = 128 << 10;

/// Plants `count` files of `bytes` in total, with something of every kind among them.
pub fn plant(root: &Path, (count, bytes): (usize, u64), seed: u64) {
    let mut rng = Rng::part(seed, 1);
    let mean = bytes / count as u64;
    let mut before: Option<PathBuf> = None;
    for number in 0..count {
        let path = root.join(directory_of(number)).join(format!("f{}", number % FILES_A_DIRECTORY));
        if number % FILES_A_DIRECTORY == 0 {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        let large = rng.one_in(100);
        let len = if large { mean * 49 + rng.below(mean * 2 + 1) } else { rng.below(mean + 1) };
        match &before {
            Some(before) if rng.one_in(50) => fs::hard_link(before, &path).unwrap(),
            _ => fs::write(&path, rng.bytes(usize::try_from(len).unwrap())).unwrap(),
        }
        adorn(&path, &mut rng);
        before = Some(path);
    }
}

/// What `plant` made, for writers: each name may be in each directory that is one.
pub fn names(root: &Path, count: usize) -> Names {
    let mut directories: Vec<PathBuf> = (0..count).step_by(FILES_A_DIRECTORY).map(directory_of).collect();
    directories.retain(|directory| root.join(directory).symlink_metadata().is_ok_and(|found| found.is_dir()));
    Names::of(directories, (0..FILES_A_DIRECTORY).map(|number| format!("f{number}").into()).collect())
}

fn directory_of(number: usize) -> PathBuf {
    let directory = number / FILES_A_DIRECTORY;
    PathBuf::from(format!("d{}/e{}", directory / 20, directory % 20))
}

/// Now and then a hole, an xattr, a mode, an owner.
fn adorn(path: &Path, rng: &mut Rng) {
    match rng.below(200) {
        0 => {
            let file = File::options().write(true).open(path).unwrap();
            let len = file.metadata().unwrap().len();
            file.set_len(len + (1 << 20)).unwrap();
            file.write_all_at(b"behind a hole", len + (1 << 20)).unwrap();
        }
        1 | 2 => rustix::fs::setxattr(path, "user.mark", &rng.bytes(40), XattrFlags::empty()).unwrap(),
        3 | 4 => fs::set_permissions(path, PermissionsExt::from_mode(*rng.pick(&[0o600, 0o4755]))).unwrap(),
        5 => std::os::unix::fs::chown(path, Some(1000), Some(100)).unwrap(),
        _ => {}
    }
}

/// Changes a tree as days of work unseen would: 5 % of the files edited, renamed, deleted and added each, 1 %
/// of all turned into something else, and hard links, xattrs, holes, modes, directories here and there.
pub fn mutate(root: &Path, seed: u64, tag: &str) {
    let mut rng = Rng::part(seed, tag.bytes().map(u64::from).sum());
    let all = walk(root);
    let (directories, files): (Vec<_>, Vec<_>) = all.iter().partition(|(_, found)| found.is_dir());
    let directories: Vec<PathBuf> = directories.into_iter().map(|(path, _)| root.join(path)).collect();
    let mut before = None;
    for (number, (path, _)) in files.iter().filter(|(_, found)| found.is_file()).enumerate() {
        let path = root.join(path);
        let other = rng.pick(&directories).join(format!("{tag}{number}"));
        match rng.below(1000) {
            0..50 => edit(&path, &mut rng),
            50..100 => fs::rename(&path, other).unwrap(),
            100..150 => fs::remove_file(&path).unwrap(),
            150..200 => {
                let len = rng.index(20_000);
                fs::write(&other, rng.bytes(len)).unwrap();
            }
            200..207 => retype(&path, &mut rng),
            207..212 => {
                fs::hard_link(before.as_ref().unwrap_or(&path), other).unwrap();
                before = Some(path);
            }
            212..217 => split(&path),
            217..300 if rng.one_in(3) => adorn(&path, &mut rng),
            _ => {}
        }
    }
    for (number, directory) in directories.iter().enumerate() {
        // The deep ones only: those above hold twenty of them.
        if directory.parent().is_none_or(|parent| parent == root || !directory.exists()) {
            continue;
        }
        match rng.below(100) {
            0 => {
                fs::remove_dir_all(directory).unwrap();
                fs::write(directory, b"a file by now").unwrap();
            }
            1 => fs::rename(directory, root.join(format!("{tag}-moved{number}"))).unwrap(),
            2 => fs::set_permissions(directory, PermissionsExt::from_mode(0o2750)).unwrap(),
            _ => {}
        }
    }
}

/// Another size, or another content and mtime.
fn edit(path: &Path, rng: &mut Rng) {
    let file = File::options().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let (at, size) = (rng.below(len + 1), 1 + rng.index(3_000));
    match rng.below(3) {
        0 => file.set_len(at).unwrap(),
        _ => file.write_all_at(&rng.bytes(size), at).unwrap(),
    }
}

/// A file becomes a directory with files, or a symlink.
fn retype(path: &Path, rng: &mut Rng) {
    fs::remove_file(path).unwrap();
    if rng.one_in(2) {
        symlink("nowhere/at all", path).unwrap();
    } else {
        fs::create_dir(path).unwrap();
        (0..3).for_each(|number| fs::write(path.join(format!("in{number}")), b"was a file").unwrap());
    }
}

/// The name gets an inode of its own.
fn split(path: &Path) {
    let content = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

/// All objects below `root`, by their paths from there; what goes away meanwhile is left out.
pub fn walk(root: &Path) -> Vec<(PathBuf, Metadata)> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(directory) = open.pop() {
        let listed = match fs::read_dir(root.join(&directory)) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            listed => listed.unwrap(),
        };
        for object in listed {
            let object = object.unwrap();
            let (path, Ok(metadata)) = (directory.join(object.file_name()), object.metadata()) else {
                continue;
            };
            if metadata.is_dir() {
                open.push(path.clone());
            }
            found.push((path, metadata));
        }
    }
    found.sort_by(|left, right| left.0.cmp(&right.0));
    found
}

/// Inode and ctime of everything: equal later means that nothing was touched.
pub fn ctimes(root: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let all = walk(root).into_iter();
    all.map(|(path, found)| (path, (found.ino(), found.ctime(), found.ctime_nsec()))).collect()
}

/// How far a replica is from its master's tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Distance {
    /// Objects of the master's tree.
    pub objects: u64,
    /// Bytes in blocks that the replica does not have at that place of that path.
    pub bytes: u64,
    /// Blocks of the files that have such blocks, or another mtime.
    pub hashes: u64,
}

impl Distance {
    /// Compares content, path by path; several names of one inode count once.
    pub fn between(master: &Path, replica: &Path) -> Distance {
        let mut distance = Distance::default();
        let mut of_inode: HashMap<u64, Distance> = HashMap::new();
        for (path, found) in walk(master) {
            distance.objects += 1;
            if found.is_file() {
                let here = differing(&master.join(&path), &replica.join(&path), &found);
                let there = of_inode.entry(found.ino()).or_default();
                there.bytes = there.bytes.max(here.bytes);
                there.hashes = there.hashes.max(here.hashes);
            }
        }
        for one in of_inode.values() {
            distance.bytes += one.bytes;
            distance.hashes += one.hashes;
        }
        distance
    }

    /// What answers may cost that bring the replica there: 1.1 times the differing blocks, 300 bytes an object of the
    /// tree, 40 bytes a hash.
    pub fn bound(&self) -> u64 {
        self.bytes * 11 / 10 + self.objects * 300 + self.hashes * 40
    }
}

/// How far one file is.
fn differing(master: &Path, replica: &Path, found: &Metadata) -> Distance {
    let there = replica.symlink_metadata().ok().filter(Metadata::is_file);
    let stamp = |of: &Metadata| (of.len(), of.mtime(), of.mtime_nsec());
    if there.as_ref().is_some_and(|there| stamp(there) == stamp(found)) {
        return Distance::default();
    }
    let left = fs::read(master).unwrap();
    let right = if there.is_some() { fs::read(replica).unwrap() } else { Vec::new() };
    // A hole is told, not sent.
    let empty = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let same = |number: usize, block: &[u8]| {
        right.get(number * BLOCK..).is_some_and(|right| right.chunks(BLOCK).next() == Some(block))
    };
    let mut distance = Distance { hashes: left.len().div_ceil(BLOCK) as u64, ..Distance::default() };
    for (number, block) in left.chunks(BLOCK).enumerate() {
        if !empty(block) && !same(number, block) {
            distance.bytes += block.len() as u64;
        }
    }
    distance
}
