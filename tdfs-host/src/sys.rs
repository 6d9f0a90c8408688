//! System calls that need `unsafe`: the only module of the workspace where it compiles.
#![allow(unsafe_code)]

use rustix::io::{Errno, Result};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::thread::UnshareFlags;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Most bytes of a file handle (MAX_HANDLE_SZ of the kernel).
const HANDLE_BYTES_MAX: u32 = 128;
/// FS_IOC_GETFSUUID, since Linux 6.9.
const GET_UUID: Opcode = opcode::read::<FsUuid>(0x15, 0);

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
