//! The system calls that need `unsafe`, each behind a safe function. The only place with unsafe code.
#![allow(unsafe_code, reason = "these calls have no safe wrapper")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use memmap2::{Mmap, MmapMut, MmapOptions};

/// A mapping of a file that other processes may change under us, as memory always is in these tests.
#[derive(Debug)]
pub struct Mapping(MmapMut);

impl Mapping {
    /// Maps `len` bytes of `file` shared: stores reach the file.
    pub fn shared(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: only bytes are read and written through it, by copies; any value is a valid byte. A file
        // that another test thread truncates meanwhile would raise SIGBUS: callers map files of their own.
        unsafe { MmapOptions::new().len(len).map_mut(file) }.map(Self)
    }

    /// Maps `len` bytes of `file` privately: stores stay in this process.
    pub fn private(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: as for `shared`.
        unsafe { MmapOptions::new().len(len).map_copy(file) }.map(Self)
    }

    /// Stores `bytes` at `offset`.
    pub fn store(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Loads the bytes of `range`.
    pub fn load(&self, range: Range<usize>) -> Vec<u8> {
        self.0[range].to_vec()
    }

    /// msync(2).
    pub fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A shared mapping to read only: it shows what others do with the file.
#[derive(Debug)]
pub struct Shown(Mmap);

impl Shown {
    /// Maps `len` bytes of `file`.
    pub fn of(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: as for `Mapping::shared`.
        unsafe { MmapOptions::new().len(len).map(file) }.map(Self)
    }

    /// Loads the bytes of `range`.
    pub fn load(&self, range: Range<usize>) -> Vec<u8> {
        self.0[range].to_vec()
    }
}

/// A kind of record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordLock {
    /// Belongs to the process.
    Process,
    /// Belongs to the open file (OFD).
    OpenFile,
}

/// Sets (or with `exclusive` None removes) a record lock on `range` of `file`, without waiting.
pub fn lock_range(
    file: &File,
    kind: RecordLock,
    range: Range<i64>,
    exclusive: Option<bool>,
) -> io::Result<()> {
    let lock_type = match exclusive {
        Some(true) => libc::F_WRLCK,
        Some(false) => libc::F_RDLCK,
        None => libc::F_UNLCK,
    };
    let command = match kind {
        RecordLock::Process => libc::F_SETLK,
        RecordLock::OpenFile => libc::F_OFD_SETLK,
    };
    let lock = libc::flock {
        l_type: i16::try_from(lock_type).expect("fit a lock type into 16 bits"),
        l_whence: 0,
        l_start: range.start,
        l_len: range.end - range.start,
        l_pid: 0,
    };
    // SAFETY: the fd is open while `file` is borrowed and `lock` outlives the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives the calling thread a umask and a working directory of its own.
pub fn own_umask_and_directory() -> io::Result<()> {
    // SAFETY: CLONE_FS parts neither file descriptors nor memory, so no invariant of std is touched.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.map_err(io::Error::from)
}

/// Shuts the file system of `file` down without writing its journal out, as a power cut does: `EXT4_IOC_SHUTDOWN` and
/// `XFS_IOC_GOINGDOWN`, which have the same number.
pub fn shut_file_system_down(file: &File) -> io::Result<()> {
    const SHUTDOWN: libc::c_ulong = 0x8004_587d;
    let no_log_flush: u32 = 2;
    // SAFETY: the kernel reads four bytes there, and they live until it returns.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), SHUTDOWN, &raw const no_log_flush) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// From here on unlinkat(2) fails with EPERM for the calling thread and the programs that it starts, and unlink(2) and
/// rmdir(2) don't: what a suite removes to tidy up stays, and what it tests by removing goes.
pub fn forbid_unlinkat() -> io::Result<()> {
    let (load, compare, give) = (0x20, 0x15, 0x06); // BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    let step = |code, skip, value| libc::sock_filter { code, jt: 0, jf: skip, k: value };
    let number = u32::try_from(libc::SYS_unlinkat).expect("fit the number of a system call");
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let mut steps = [
        step(load, 0, 0),
        step(compare, 1, number),
        step(give, 0, refused),
        step(give, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the kernel copies the program, which lives until the call returns; the filter forbids one call that this
    // thread makes no more.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
