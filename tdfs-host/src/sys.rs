//! System calls that need `unsafe`: the only module of the workspace where it compiles.
#![allow(unsafe_code)]

use rustix::io::{Errno, Result};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::thread::UnshareFlags;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::AtomicU64;

/// Most bytes of a file handle (MAX_HANDLE_SZ of the kernel).
const HANDLE_BYTES_MAX: u32 = 128;
/// FS_IOC_GETFSUUID, since Linux 6.9.
const GET_UUID: Opcode = opcode::read::<FsUuid>(0x15, 0);

/// The command of fcntl(2), as on every CPU; libc names it on a few only.
const F_SETSIG: libc::c_int = 10;

/// struct fsuuid2 of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FsUuid {
    len: u8,
    uuid: [u8; 16],
}

/// A struct file_handle of the kernel with the space behind it.
#[repr(C)]
struct Handle {
    head: libc::file_handle,
    bytes: [u8; HANDLE_BYTES_MAX as usize],
}

/// The system calls of Linux 6.13, as numbered on every CPU but Alpha; libc names them on a few only.
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;

/// `struct xattr_args` of linux/xattr.h.
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Gives the calling thread a umask and working directory of its own (unshare(2), CLONE_FS), so that it
/// can create objects under a caller's umask without a race with other threads.
pub fn unshare_umask() -> Result<()> {
    // SAFETY: CLONE_FS separates umask, root and working directory; no fd or memory of others changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}

/// The UUID of the file system on which `fd` (no path fd) is open.
///
/// # Errors
/// ENOTTY where the file system has none or the kernel does not tell it.
pub fn file_system_uuid(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut found = FsUuid::default();
    // SAFETY: the opcode is the one of struct fsuuid2, which `FsUuid` lays out; the kernel writes no more.
    unsafe { ioctl(fd, Updater::<GET_UUID, FsUuid>::new(&mut found))? };
    Ok(found.uuid.get(..usize::from(found.len)).ok_or(Errno::PROTO)?.to_vec())
}

/// The file handle of what `fd` names (a path fd will do): its type and its bytes.
///
/// # Errors
/// EOPNOTSUPP where the file system has no handles.
pub fn file_handle(fd: BorrowedFd<'_>) -> Result<(i32, Vec<u8>)> {
    let head = libc::file_handle { handle_bytes: HANDLE_BYTES_MAX, handle_type: 0, f_handle: [] };
    let mut handle = Handle { head, bytes: [0; HANDLE_BYTES_MAX as usize] };
    let mut mount_id = 0;
    // SAFETY: `handle_bytes` says how much space lies behind the head, and the path is an empty C string; the
    // kernel writes into these two and keeps neither.
    let done = unsafe {
        libc::name_to_handle_at(
            fd.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if done != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    let len = usize::try_from(handle.head.handle_bytes).unwrap_or(usize::MAX);
    Ok((handle.head.handle_type, handle.bytes.get(..len).ok_or(Errno::PROTO)?.to_vec()))
}

/// The names of the xattrs of the object `name` in `dir`, each ended by NUL; of a symlink itself.
///
/// # Errors
/// ENOSYS before Linux 6.13, ERANGE where the buffer is too small; else those of listxattr(2).
pub fn list_xattrs_at(dir: BorrowedFd<'_>, name: &[u8], buffer: &mut [u8]) -> Result<usize> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    // SAFETY: `name` ends with NUL, the kernel writes at most `len` bytes to `buffer`; both outlive the call.
    let got = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    bytes_or_errno(got)
}

/// The value of an xattr of the object `name` in `dir`; of a symlink itself.
///
/// # Errors
/// ENOSYS before Linux 6.13, ERANGE where the buffer is too small; else those of getxattr(2).
pub fn get_xattr_at(dir: BorrowedFd<'_>, name: &[u8], xattr: &[u8], buffer: &mut [u8]) -> Result<usize> {
    let (name, xattr) = match (CString::new(name), CString::new(xattr)) {
        (Ok(name), Ok(xattr)) => (name, xattr),
        _ => return Err(Errno::INVAL),
    };
    let size = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
    let args = XattrArgs { value: buffer.as_mut_ptr().expose_provenance() as u64, size, flags: 0 };
    // SAFETY: both names end with NUL, `args` is of the size that is told and names at most all of `buffer`;
    // all outlive the call.
    let got = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            xattr.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    };
    bytes_or_errno(got)
}

fn bytes_or_errno(got: libc::c_long) -> Result<usize> {
    usize::try_from(got).map_err(|_| {
        let error = std::io::Error::last_os_error();
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    })
}

/// True if the file that `own` is open on is open or mapped anywhere else. Nobody else uses the descriptor `own`.
///
/// Only who is alone gets a lease to write, and a mapping holds the open file that it was made of (fs/locks.c,
/// `check_conflicting_open`). The lease is given back at once; who opens the file meanwhile waits for that.
///
/// # Errors
/// Those of fcntl(2), F_SETLEASE: EINVAL where the file system has no leases, EACCES on another's file without CAP_LEASE.
pub fn is_used_elsewhere(own: BorrowedFd<'_>) -> Result<bool> {
    let set = |what, value: libc::c_int| {
        // SAFETY: these commands take a number, and the fd is open while it is borrowed.
        match unsafe { libc::fcntl(own.as_raw_fd(), what, value) } {
            -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
            _ => Ok(()),
        }
    };
    // Who opens the file meanwhile sends us a signal: one that is ignored unless somebody asks for it; SIGIO would end us.
    set(F_SETSIG, libc::SIGURG)?;
    match set(libc::F_SETLEASE, libc::F_WRLCK) {
        Err(Errno::AGAIN) => return Ok(true),
        taken => taken?,
    }
    set(libc::F_SETLEASE, libc::F_UNLCK)?;
    Ok(false)
}

/// The beginning of a file, mapped shared: its 64-bit words. What is stored there is in the page cache at once,
/// without a system call; it outlives the process, not the machine.
pub struct MappedWords {
    begin: *mut libc::c_void,
    count: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is reached through atomics alone.
unsafe impl Send for MappedWords {}
// SAFETY: as above.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps the first `count` words of `file`, which must be that long and must never be cut: a word behind its
    /// end would end the process by SIGBUS.
    ///
    /// # Errors
    /// Those of mmap(2); EINVAL where the file is shorter.
    pub fn map(file: BorrowedFd<'_>, count: usize) -> Result<MappedWords> {
        let bytes = count.checked_mul(size_of::<AtomicU64>()).ok_or(Errno::INVAL)?;
        let size = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
        if size < bytes as u64 {
            return Err(Errno::INVAL);
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let begin =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if begin == libc::MAP_FAILED {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        Ok(MappedWords { begin, count })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `begin` is the start of a page and so aligned; `count` words are mapped to read and write for
        // as long as `self` lives, any bytes are a u64, and nobody reaches them but through atomics.
        unsafe { std::slice::from_raw_parts(self.begin.cast::<AtomicU64>(), self.count) }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `map` with this length, and no reference to its words outlives `self`.
        unsafe { libc::munmap(self.begin, self.count * size_of::<AtomicU64>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::path::Path;

    fn is_used(path: &Path) -> bool {
        is_used_elsewhere(File::open(path).unwrap().as_fd()).unwrap()
    }

    /// Open files count, to read or to write, and mappings that outlive them.
    #[test]
    fn who_uses_a_file_is_seen() {
        for place in ["/tmp", "/dev/shm"] {
            let dir = tempfile::tempdir_in(place).unwrap();
            let path = dir.path().join("file");
            std::fs::write(&path, [0; 4096]).unwrap();
            assert!(!is_used(&path));
            let open = File::open(&path).unwrap();
            assert!(is_used(&path));
            drop(open);
            let open = File::options().read(true).write(true).open(&path).unwrap();
            let mapped = MappedWords::map(open.as_fd(), 1).unwrap();
            drop(open);
            assert!(is_used(&path));
            drop(mapped);
            assert!(!is_used(&path));
        }
    }

    /// Who opens the file while the lease is held waits for its end, and no signal ends this process.
    #[test]
    fn who_opens_a_file_meanwhile_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..20_000).filter(|_| is_used(&path)).count());
            scope.spawn(|| (0..20_000).for_each(|_| drop(File::options().write(true).open(&path).unwrap())));
        });
        assert!(!is_used(&path));
    }
}
