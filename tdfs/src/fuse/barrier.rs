//! Barrier: waits until every write-back that the kernel has begun has arrived here and is recorded.
//!
//! syncfs(2) on a FUSE mount starts the write-back of dirty mapped pages, but does not wait for it (seen on
//! Linux 6.18, whose FUSE mappings give no data integrity to sync). The kernel queues such writes in one
//! line with readahead. So we ask for readahead of a file that only this process can find, once for each
//! FUSE worker: when all workers are in one of those reads at the same time, everything that was queued
//! before is done.

use super::reply;
use fuser::{FileAttr, FileType};
use parking_lot::{Condvar, Mutex};
use rustix::fs::{Advice, Mode, OFlags};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};
use tdfs_wire::Id;

/// nodeid of the file: no file system numbers inodes so high.
pub const BARRIER_NODE: u64 = u64::MAX - 1;
/// Size that the file seems to have.
const SIZE: u64 = 1 << 50;
/// Distance of two reads, so that the kernel does not make one of them.
const STRIDE: u64 = 1 << 20;
/// How long workers wait in their reads for the others; one may sleep in a slow disk.
const HOLD: Duration = Duration::from_millis(50);
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(100);
const PAGE: NonZeroU64 = NonZeroU64::new(4096).expect("not zero");

/// The barrier of one mount.
#[derive(Debug)]
pub struct Barrier {
    name: String,
    workers: u64,
    rounds: Mutex<Round>,
    arrived: Condvar,
    one_at_a_time: Mutex<()>,
}

#[derive(Debug, Default)]
struct Round {
    number: u64,
    arrived: u64,
}

impl Barrier {
    /// A barrier for a mount with so many workers; `secret` makes the file's name unknown to others.
    pub fn new(workers: usize, secret: Id) -> Barrier {
        Barrier {
            name: format!(".tdfs-barrier-{secret}"),
            workers: workers as u64,
            rounds: Mutex::default(),
            arrived: Condvar::new(),
            one_at_a_time: Mutex::default(),
        }
    }

    /// Waits until all that was queued before is done.
    ///
    /// # Errors
    /// When the mount is gone, or the workers did not get there within `timeout`.
    pub fn pass(&self, mountpoint: &Path, timeout: Duration) -> io::Result<()> {
        let _one = self.one_at_a_time.lock();
        let deadline = Instant::now() + timeout;
        let file =
            rustix::fs::open(mountpoint.join(&self.name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        while Instant::now() < deadline {
            let number = {
                let mut round = self.rounds.lock();
                *round = Round { number: round.number + 1, arrived: 0 };
                round.number
            };
            for worker in 0..self.workers {
                rustix::fs::fadvise(&file, self.offset(number, worker), Some(PAGE), Advice::WillNeed)?;
            }
            let mut round = self.rounds.lock();
            let in_time = Instant::now() + HOLD;
            while round.arrived < self.workers {
                if self.arrived.wait_until(&mut round, in_time).timed_out() {
                    break;
                }
            }
            let passed = round.arrived >= self.workers;
            drop(round);
            if passed {
                return self.until_answered(&file, number);
            }
            std::thread::sleep(PAUSE);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the mount is too busy to be synced"))
    }

    /// Waits until the kernel has the answers, so that an unmount does not come before them.
    fn until_answered(&self, file: &OwnedFd, round: u64) -> io::Result<()> {
        for worker in 0..self.workers {
            rustix::io::pread(file, &mut [0u8], self.offset(round, worker))?;
        }
        Ok(())
    }

    fn offset(&self, round: u64, worker: u64) -> u64 {
        (round * self.workers + worker) * STRIDE % SIZE
    }

    /// True for the name of the barrier's file.
    pub fn is_name(&self, name: &[u8]) -> bool {
        name == self.name.as_bytes()
    }

    /// A worker reads the file.
    pub fn arrive(&self, offset: u64) {
        let mut round = self.rounds.lock();
        let number = round.number;
        if offset / STRIDE / self.workers != number {
            return; // of a round that is over
        }
        round.arrived += 1;
        self.arrived.notify_all();
        let in_time = Instant::now() + HOLD;
        while round.number == number && round.arrived < self.workers {
            if self.arrived.wait_until(&mut round, in_time).timed_out() {
                break;
            }
        }
    }

    /// Its attributes: it can be read by this process's user.
    pub fn attr() -> FileAttr {
        let uid = rustix::process::geteuid().as_raw();
        FileAttr {
            size: SIZE,
            kind: FileType::RegularFile,
            perm: 0o400,
            uid,
            nlink: 1,
            ..reply::dots(BARRIER_NODE)
        }
    }
}
