//! The work that is timed. Each piece prepares its tree on the backing tree, and is then run once on a mount.
//!
//! Only the work itself is timed: not the preparation, not the mounting, not the slave's last records.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

const BLOCK: [u8; 4096] = [0x5a; 4096];
const WRITES: usize = 20_000;
const CREATES: usize = 5_000;
const ARCHIVE_FILES: usize = 5_000;
const MIXED_FILES: usize = 10_000;
const TREE_DIRS: usize = 100;
const TREE_FILES_PER_DIR: usize = 100;

/// One figure of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// 4 KiB writes, one after the other, into one file.
    Write,
    /// Create, write 4 KiB, close.
    Create,
    /// tar x of a generated archive.
    Untar,
    /// find on a mount that was just made.
    FindCold,
    /// find for the second time.
    FindWarm,
    /// find that looks at each file's attributes, on a mount that was just made.
    StatCold,
    /// The same for the second time.
    StatWarm,
    /// rm -rf.
    Remove,
}

impl Workload {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Write,
        Self::Create,
        Self::Untar,
        Self::FindCold,
        Self::FindWarm,
        Self::StatCold,
        Self::StatWarm,
        Self::Remove,
    ];

    /// Its name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Create => "create",
            Self::Untar => "untar",
            Self::FindCold => "find-cold",
            Self::FindWarm => "find-warm",
            Self::StatCold => "stat-cold",
            Self::StatWarm => "stat-warm",
            Self::Remove => "rm",
        }
    }

    /// What it does, for a reader of the table.
    pub fn what(self) -> &'static str {
        match self {
            Self::Write => "20,000 writes of 4 KiB into one file",
            Self::Create => "create + write 4 KiB + close of 5,000 files",
            Self::Untar => "tar x of about 5,000 files",
            Self::FindCold => "find over 10,000 files, fresh mount",
            Self::FindWarm => "find over 10,000 files, second time",
            Self::StatCold => "find -printf %s over 10,000 files, fresh mount",
            Self::StatWarm => "find -printf %s over 10,000 files, second time",
            Self::Remove => "rm -rf of 10,000 files",
        }
    }

    /// Makes on the backing tree what the work expects to find.
    pub fn prepare(self, backing: &Path) -> anyhow::Result<()> {
        match self {
            Self::Write | Self::Create | Self::Untar => Ok(()),
            _ => make_tree(&backing.join("tree"), TREE_DIRS, TREE_FILES_PER_DIR),
        }
    }

    /// Does the work on `mount` and says how long it took.
    pub fn run(self, mount: &Path, archive: &Archive) -> anyhow::Result<Duration> {
        let tree = mount.join("tree");
        let names = || find(&tree, &[]);
        let sizes = || find(&tree, &["-printf", "%p %s\\n"]);
        match self {
            Self::Write => timed(|| write_blocks(&mount.join("file"))),
            Self::Create => timed(|| create_files(mount)),
            Self::Untar => timed(|| archive.extract(mount)),
            Self::FindCold => timed(names),
            Self::FindWarm => names().and_then(|()| timed(names)),
            Self::StatCold => timed(sizes),
            Self::StatWarm => sizes().and_then(|()| timed(sizes)),
            Self::Remove => timed(|| run(Command::new("rm").arg("-rf").arg(&tree))),
        }
    }
}

/// How long the work takes.
pub fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn write_blocks(path: &Path) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    for _ in 0..WRITES {
        file.write_all(&BLOCK)?;
    }
    Ok(())
}

fn create_files(dir: &Path) -> anyhow::Result<()> {
    for number in 0..CREATES {
        File::create(dir.join(format!("file-{number}")))?.write_all(&BLOCK)?;
    }
    Ok(())
}

/// Runs find(1) over `tree` and throws its output away.
pub fn find(tree: &Path, expression: &[&str]) -> anyhow::Result<()> {
    run(Command::new("find").arg(tree).args(expression))
}

/// Runs a program to its good end and throws its output away.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_owned();
    // Not a pipe, which would make us part of what is measured.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("run {}", name.display()))?;
    ensure!(status.success(), "{} ended with {status}", name.display());
    Ok(())
}

/// Makes `dirs` directories of `files_per_dir` small files each below `root`.
pub fn make_tree(root: &Path, dirs: usize, files_per_dir: usize) -> anyhow::Result<()> {
    fs::create_dir(root)?;
    for dir in 0..dirs {
        let dir = root.join(format!("dir-{dir}"));
        fs::create_dir(&dir)?;
        for file in 0..files_per_dir {
            fs::write(dir.join(format!("file-{file}")), b"small")?;
        }
    }
    Ok(())
}

/// Makes a tree for copying at `root`: 10,000 files of the archive's mix of sizes, about 230 MB, 10 in a directory,
/// with some hard links, symlinks and xattrs.
pub fn make_mixed_tree(root: &Path) -> anyhow::Result<()> {
    for number in 0..MIXED_FILES {
        let dir = root.join(format!("part-{}/sub-{}", number / 200, number / 10 % 20));
        fs::create_dir_all(&dir)?;
        let name = format!("source-{number}.rs");
        let path = dir.join(&name);
        fs::write(&path, source_text(number).repeat(3))?;
        match number % 50 {
            1 => fs::hard_link(&path, dir.join(format!("link-{number}")))?,
            2 => std::os::unix::fs::symlink(&name, dir.join(format!("symlink-{number}")))?,
            3 | 23 => set_xattr(&path)?,
            _ => {}
        }
    }
    Ok(())
}

/// Leaves out what the file system does not carry.
fn set_xattr(path: &Path) -> anyhow::Result<()> {
    match rustix::fs::setxattr(path, "user.mime_type", b"text/rust", rustix::fs::XattrFlags::empty()) {
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        done => done.context("set an xattr"),
    }
}

/// A generated tar archive, the same in every run: about 5,000 files, 1 byte to 64 KiB, 10 in a directory.
pub struct Archive {
    path: PathBuf,
}

impl Archive {
    /// Makes the archive at `stem`.tar.
    pub fn generate(stem: &Path) -> anyhow::Result<Self> {
        fs::create_dir(stem)?;
        for number in 0..ARCHIVE_FILES {
            let dir = stem.join(format!("part-{}/sub-{}", number / 200, number / 10 % 20));
            fs::create_dir_all(&dir)?;
            fs::write(dir.join(format!("source-{number}.rs")), source_text(number))?;
        }
        let path = stem.with_extension("tar");
        run(Command::new("tar").arg("-cf").arg(&path).arg("-C").arg(stem).arg("."))?;
        fs::remove_dir_all(stem)?;
        Ok(Self { path })
    }

    /// Unpacks it.
    pub fn extract(&self, into: &Path) -> anyhow::Result<()> {
        run(Command::new("tar").arg("-xf").arg(&self.path).arg("-C").arg(into))
    }
}

/// Text that shrinks about as source code does; mostly small, one file in 50 large.
fn source_text(number: usize) -> Vec<u8> {
    let lines = match number % 50 {
        0 => 1_200,
        n => 1 + n * 7,
    };
    let mut text = Vec::new();
    for line in 0..lines {
        let mixed = (number * 7_919 + line * 104_729) % 1_000_003;
        text.extend_from_slice(format!("    let value_{line} = call({mixed}, {number});\n").as_bytes());
    }
    text
}
