//! Random file-system operations on a tree, from a seed: what applications of every kind might do at once.
//!
//! `generate` draws an operation, `perform` does it. Threads share few names, so that they meet.

mod generate;
mod held;
mod perform;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::Result;

use crate::rng::Rng;

pub use generate::{Names, generate};
pub use held::HeldOp;
pub use perform::{Performer, digest};

/// One operation. Paths are relative to the root of the tree.
#[derive(Clone, Debug)]
pub enum Op {
    /// open(2) with `O_CREAT`.
    Create(PathBuf),
    /// pwrite(2).
    Write(PathBuf, Region),
    /// write(2) with `O_APPEND`.
    Append(PathBuf, usize),
    /// open(2) with `O_TRUNC`.
    Empty(PathBuf),
    /// truncate(2).
    Truncate(PathBuf, u64),
    /// fallocate(2) with these flags.
    Allocate(PathBuf, Region, u32),
    /// `copy_file_range(2)`, from the offset of the region to this one.
    Copy(PathBuf, PathBuf, Region, u64),
    /// Stores into the caller's own file through a shared mapping.
    StoreMapped(PathBuf, Region),
    /// mkdir(2).
    Mkdir(PathBuf, u32),
    /// rmdir(2).
    Rmdir(PathBuf),
    /// unlink(2).
    Unlink(PathBuf),
    /// link(2).
    Link(PathBuf, PathBuf),
    /// symlink(2): target, then name.
    Symlink(PathBuf, PathBuf),
    /// mknod(2) of a FIFO, a socket or /dev/null's twin.
    Mknod(PathBuf, Special),
    /// renameat2(2).
    Rename(PathBuf, PathBuf, Rename),
    /// chmod(2).
    Mode(PathBuf, u32),
    /// lchown(2).
    Owner(PathBuf, u32, u32),
    /// utimensat(2) of a symlink itself: seconds, nanoseconds.
    Times(PathBuf, i64, i64),
    /// lsetxattr(2).
    SetXattr(PathBuf, &'static str, usize),
    /// lremovexattr(2).
    RemoveXattr(PathBuf, &'static str),
    /// setxattr(2) of an ACL: the default one of a directory when true.
    SetAcl(PathBuf, bool, Acl),
    /// Opens a file, with what is given beside the flags, and this mode for a new one, and keeps it open.
    Hold(PathBuf, i32, u32),
    /// Does something with what is held, whether it has a name or not.
    Held(HeldOp),
    /// Closes a file that is held.
    Release,
    /// Lists a directory with all attributes.
    List(PathBuf),
    /// Reads a file.
    Read(PathBuf),
    /// stat(2) of a symlink itself, with its xattrs.
    Stat(PathBuf),
    /// access(2).
    Access(PathBuf, u32),
    /// umask(2).
    Umask(u32),
}

/// Permissions that an ACL gives, each of three bits.
#[derive(Clone, Copy, Debug)]
pub struct Acl {
    /// The owner's.
    pub owner: u8,
    /// User 1000's.
    pub user: u8,
    /// The group's.
    pub group: u8,
    /// What users and groups can get at most.
    pub mask: u8,
    /// Everybody else's.
    pub others: u8,
}

impl Acl {
    /// As the xattr `system.posix_acl_access` holds it.
    pub fn bytes(self) -> Vec<u8> {
        let none = u32::MAX;
        let entries = [
            (1_u16, self.owner, none),
            (2, self.user, 1000),
            (4, self.group, none),
            (0x10, self.mask, none),
            (0x20, self.others, none),
        ];
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(u16::from(rights).to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }
}

/// A part of a file.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: usize,
}

/// What mknod(2) makes.
#[derive(Clone, Copy, Debug)]
pub enum Special {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    Device,
}

/// Flags of renameat2(2).
#[derive(Clone, Copy, Debug)]
pub enum Rename {
    /// None.
    Plain,
    /// `RENAME_NOREPLACE`.
    NoReplace,
    /// `RENAME_EXCHANGE`.
    Exchange,
}

/// Threads that change a tree until they have done enough or are told to stop.
#[derive(Debug)]
pub struct Writers {
    orders: Arc<Orders>,
    threads: Vec<JoinHandle<Result<u64>>>,
}

/// What the threads of `Writers` are told, and tell.
#[derive(Debug, Default)]
struct Orders {
    stop: AtomicBool,
    /// A mount without its daemon ends a thread, and is no failure.
    may_go: AtomicBool,
    done: AtomicU64,
}

impl Writers {
    /// Starts `threads` threads that do `count` operations each (or go on until `stop`) below `root`.
    pub fn start(root: &Path, names: &Names, seed: u64, threads: u64, count: Option<u64>) -> Self {
        names.plant(root).expect("make the directories");
        let orders = Arc::new(Orders::default());
        let start = |number| {
            let (root, names, orders) = (root.to_owned(), names.clone(), Arc::clone(&orders));
            std::thread::spawn(move || write_until(&root, &names, (seed, number), count, &orders))
        };
        let threads = (0..threads).map(start).collect();
        Self { orders, threads }
    }

    /// Number of operations that have changed something so far.
    pub fn done(&self) -> u64 {
        self.orders.done.load(Ordering::SeqCst)
    }

    /// To be called before the daemon of the mount is killed: from here on each thread ends, without a
    /// failure, when the mount says that it is gone. Nothing is written to what lies below a dead mount.
    pub fn let_go(&self) {
        self.orders.may_go.store(true, Ordering::SeqCst);
    }

    /// Lets them finish their count; gives the number of operations that changed something.
    #[track_caller]
    pub fn join(mut self) -> u64 {
        let threads = std::mem::take(&mut self.threads);
        let done = threads.into_iter().map(|thread| thread.join().expect("join a writer"));
        done.map(|result| result.expect("change the tree")).sum()
    }

    /// Tells them to stop, then joins them.
    #[track_caller]
    pub fn stop(self) -> u64 {
        self.orders.stop.store(true, Ordering::SeqCst);
        self.join()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // This test has failed already.
            let _ = thread.join();
        }
    }
}

fn write_until(
    root: &Path,
    names: &Names,
    (seed, number): (u64, u64),
    count: Option<u64>,
    orders: &Orders,
) -> Result<u64> {
    let mut rng = Rng::part(seed, number);
    let mut performer = Performer::new(root);
    let mut changed = 0;
    for _ in 0..count.unwrap_or(u64::MAX) {
        if orders.stop.load(Ordering::SeqCst) {
            break;
        }
        let op = generate(&mut rng, names, number);
        match performer.perform(&op, &mut rng) {
            Ok(false) => {}
            Ok(true) => {
                changed += 1;
                orders.done.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) if orders.may_go.load(Ordering::SeqCst) && perform::is_gone(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::{Names, Writers};
    use crate::TempTree;

    #[test]
    fn eight_threads_on_a_plain_directory_only_fail_as_allowed() {
        let tree = TempTree::new().unwrap();
        let names = Names::few(8, 3);
        let writers = Writers::start(tree.path(), &names, 1, 8, Some(2_000));
        let changed = writers.join();
        assert!(changed > 4_000, "only {changed} of 16,000 operations did anything");
    }

    #[test]
    fn the_same_seed_draws_the_same_operations() {
        let draw = || {
            let mut rng = crate::Rng::part(5, 1);
            let names = Names::few(4, 2);
            (0..500).map(|_| format!("{:?}", super::generate(&mut rng, &names, 1))).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }
}
