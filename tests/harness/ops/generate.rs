//! Draws the next operation.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use super::{Acl, Op, Region, Rename, Special, held};
use crate::rng::Rng;

/// Names of xattrs that are set and removed.
const XATTRS: [&str; 4] = ["user.one", "user.two", "trusted.three", "user.a name with spaces"];
/// Modes that are set. None is sticky and open to all: there `fs.protected_regular` would refuse `O_CREAT`.
const MODES: [u32; 8] = [0o644, 0o600, 0o755, 0o4755, 0o2755, 0o1755, 0o000, 0o6711];

/// The names that all threads share.
#[derive(Clone, Debug)]
pub struct Names {
    directories: Vec<PathBuf>,
    names: Vec<PathBuf>,
    /// The largest offset of a write.
    pub offset_max: u64,
    /// Stores through mappings are drawn too. Without its daemon a mount answers them by SIGBUS.
    mapped: bool,
    /// Nobody acts at the same time: any file may be mapped, and what is seen is decided.
    in_turn: bool,
}

impl Names {
    /// So many names in each of so many directories.
    pub fn few(names: usize, directories: usize) -> Self {
        let name = |start: &str, number| PathBuf::from(format!("{start}{number}"));
        Self {
            directories: (0..directories).map(|number| name("dir", number)).collect(),
            names: (0..names).map(|number| name("n", number)).collect(),
            offset_max: 128 << 10,
            mapped: true,
            in_turn: false,
        }
    }

    /// The same for callers that act one after another.
    #[must_use]
    pub fn in_turn(self) -> Self {
        Self { in_turn: true, ..self }
    }

    /// The same without stores through mappings: for a mount that is going to lose its daemon.
    #[must_use]
    pub fn without_mappings(self) -> Self {
        Self { mapped: false, ..self }
    }

    /// Names that are there already: each of `names` may be in each of `directories`.
    pub fn of(directories: Vec<PathBuf>, names: Vec<PathBuf>) -> Self {
        Self { directories, names, ..Self::few(0, 0) }
    }

    /// Makes the directories, where they are missing.
    pub fn plant(&self, root: &Path) -> std::io::Result<()> {
        self.directories.iter().try_for_each(|name| match std::fs::create_dir_all(root.join(name)) {
            // Earlier operations have exchanged it with something else.
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory) => {
                Ok(())
            }
            made => made,
        })
    }

    fn directory(&self, rng: &mut Rng) -> PathBuf {
        rng.pick(&self.directories).clone()
    }

    /// Mostly `directory/name`, at times deeper or the name of a directory.
    fn path(&self, rng: &mut Rng) -> PathBuf {
        let path = self.directory(rng).join(rng.pick(&self.names));
        match rng.below(10) {
            0 if rng.one_in(2) => path.join(rng.pick(&self.names)),
            1 if rng.one_in(4) => path.join(rng.pick(&self.directories)).join(rng.pick(&self.names)),
            _ => path,
        }
    }

    /// One that may well be a directory.
    fn maybe_directory(&self, rng: &mut Rng) -> PathBuf {
        if rng.one_in(8) { self.directory(rng) } else { self.path(rng) }
    }

    fn region(&self, rng: &mut Rng) -> Region {
        let len_max = if rng.one_in(20) { 300_000 } else { 12_000 };
        Region { offset: rng.below(self.offset_max), len: 1 + rng.index(len_max) }
    }
}

/// Draws an operation of thread `number`.
pub fn generate(rng: &mut Rng, names: &Names, number: u64) -> Op {
    match rng.below(100) {
        0..28 => namespace(rng, names),
        28..40 => removal(rng, names),
        40..70 => data(rng, names, number),
        70..82 => attributes(rng, names),
        82..93 => hold(rng, names),
        _ => look(rng, names),
    }
}

fn look(rng: &mut Rng, names: &Names) -> Op {
    match rng.below(8) {
        0..3 => Op::List(names.maybe_directory(rng)),
        3..5 => Op::Read(names.path(rng)),
        5 => Op::Stat(names.maybe_directory(rng)),
        6 if names.in_turn => Op::Umask(*rng.pick(&[0, 0o002, 0o022, 0o077])),
        _ => Op::Access(names.maybe_directory(rng), *rng.pick(&[1, 2, 4, 6])),
    }
}

fn namespace(rng: &mut Rng, names: &Names) -> Op {
    match rng.below(20) {
        0..6 => Op::Create(names.path(rng)),
        6..7 => Op::Mkdir(names.path(rng), *rng.pick(&[0o755, 0o2775, 0o700])),
        7..9 => Op::Mkdir(names.directory(rng), 0o755),
        9..11 => Op::Link(names.path(rng), names.path(rng)),
        11..12 => Op::Symlink(rng.pick(&names.names).clone(), names.path(rng)),
        12..13 => Op::Mknod(names.path(rng), *rng.pick(&[Special::Fifo, Special::Socket, Special::Device])),
        13..17 => Op::Rename(names.path(rng), names.path(rng), Rename::Plain),
        17..18 => Op::Rename(names.path(rng), names.path(rng), Rename::NoReplace),
        18..19 => Op::Rename(names.path(rng), names.path(rng), Rename::Exchange),
        _ if rng.one_in(8) => Op::Rename(names.directory(rng), names.path(rng), Rename::Plain),
        _ => Op::Rename(names.directory(rng), names.directory(rng), Rename::Exchange),
    }
}

fn removal(rng: &mut Rng, names: &Names) -> Op {
    if rng.one_in(4) { Op::Rmdir(names.maybe_directory(rng)) } else { Op::Unlink(names.path(rng)) }
}

fn data(rng: &mut Rng, names: &Names, number: u64) -> Op {
    let region = names.region(rng);
    match rng.below(20) {
        0..8 => Op::Write(names.path(rng), region),
        8..11 => Op::Append(names.path(rng), 1 + rng.index(3_000)),
        11..13 => Op::Truncate(names.path(rng), rng.below(names.offset_max)),
        13 => Op::Empty(names.path(rng)),
        14..17 => Op::Allocate(names.path(rng), region, allocate_flags(rng, names)),
        17..19 => Op::Copy(names.path(rng), names.path(rng), region, rng.below(names.offset_max)),
        _ if !names.mapped => Op::Write(names.path(rng), region),
        _ => {
            // Nobody else truncates it: a store beyond the end would end the test by SIGBUS.
            Op::StoreMapped(PathBuf::from(format!("mapped{number}")), region)
        }
    }
}

pub(super) fn mode(rng: &mut Rng) -> u32 {
    *rng.pick(&MODES)
}

pub(super) fn allocate_flags(rng: &mut Rng, names: &Names) -> u32 {
    let keep = FallocateFlags::KEEP_SIZE;
    let all = [
        FallocateFlags::empty(),
        keep,
        FallocateFlags::PUNCH_HOLE | keep,
        FallocateFlags::PUNCH_HOLE | keep,
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::ZERO_RANGE | keep,
        FallocateFlags::COLLAPSE_RANGE,
        FallocateFlags::INSERT_RANGE,
    ];
    // FUSE does not pass the last two on.
    let known = if names.in_turn { &all[..6] } else { &all[..] };
    rng.pick(known).bits()
}

fn attributes(rng: &mut Rng, names: &Names) -> Op {
    let path = names.maybe_directory(rng);
    match rng.below(12) {
        9 => Op::RemoveXattr(path, rng.pick::<&str>(&XATTRS)),
        10 => Op::SetAcl(path, rng.one_in(2), acl(rng)),
        11 if rng.one_in(2) => {
            let acls = ["system.posix_acl_access", "system.posix_acl_default"];
            Op::RemoveXattr(path, rng.pick::<&str>(&acls))
        }
        11 => Op::SetXattr(path, "security.capability", 0),
        0..3 => Op::Mode(path, mode(rng)),
        3..5 => Op::Owner(path, *rng.pick(&[0, 1000, 65534]), *rng.pick(&[0, 1000, 65534])),
        5..7 => {
            let seconds = *rng.pick(&[0, 1, 1_700_000_000, 4_000_000_000]);
            Op::Times(path, seconds, i64::try_from(rng.below(1_000_000_000)).expect("fit nanoseconds"))
        }
        _ => Op::SetXattr(path, rng.pick::<&str>(&XATTRS), rng.index(2_000)),
    }
}

fn acl(rng: &mut Rng) -> Acl {
    let mut rights = || u8::try_from(rng.below(8)).expect("fit three bits");
    Acl { owner: 7, user: rights(), group: rights(), mask: rights(), others: rights() }
}

fn hold(rng: &mut Rng, names: &Names) -> Op {
    match rng.below(if names.in_turn { 12 } else { 8 }) {
        0 => Op::Hold(names.path(rng), libc::O_RDWR, 0),
        1 | 2 => Op::Hold(names.maybe_directory(rng), flags(rng), mode(rng)),
        3 => Op::Release,
        8.. if names.mapped && rng.one_in(2) => {
            let region = Region { offset: rng.below(names.offset_max), len: 5_000 };
            Op::Held(held::draw_mapped(rng, region))
        }
        _ => {
            let region = names.region(rng);
            Op::Held(held::draw(rng, region, names))
        }
    }
}

fn flags(rng: &mut Rng) -> i32 {
    let access = *rng.pick(&[libc::O_RDONLY, libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR]);
    let more = [0, 0, libc::O_APPEND, libc::O_DIRECT, libc::O_SYNC, libc::O_NOFOLLOW, libc::O_PATH];
    let more = *rng.pick(&more);
    let new = [0, 0, libc::O_CREAT, libc::O_CREAT | libc::O_EXCL, libc::O_TRUNC, libc::O_DIRECTORY];
    let new = *rng.pick(&new);
    // O_RDONLY with O_TRUNC is undefined.
    if new == libc::O_TRUNC { libc::O_RDWR | more | new } else { access | more | new }
}
