//! System calls that need `unsafe`: the only module of the workspace where it compiles.
#![allow(unsafe_code)]

use rustix::io::{Errno, Result};
use rustix::thread::UnshareFlags;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};

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
