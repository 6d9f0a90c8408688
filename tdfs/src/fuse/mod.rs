//! FUSE, by fuser: unpacks a request, calls `passthrough`, packs the answer - nothing else. The only module
//! that knows fuser's types.
//!
//! What it does not keep: open files and directories. OPEN and OPENDIR are answered ENOSYS, which makes the
//! kernel open by itself and send neither request again, nor RELEASE; CREATE likewise, so a new file is one
//! MKNOD. The kernel caches names, attributes and content for very long, as nobody else changes the tree.

pub mod barrier;
mod freshen;
mod habits;
pub mod mount;
mod offload;
mod opens;
mod reply;
pub mod session;
mod setattr;
pub mod watch;

use crate::passthrough::{Caller, DirItem, Listed, Passthrough, Range, SetTimes};
use barrier::{BARRIER_NODE, Barrier};
use freshen::Freshen;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use habits::Habits;
use offload::Offload;
use opens::Opened;
use reply::TTL;
use setattr::{SetAttr, set_time};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use watch::Watch;

/// What the kernel has to offer, or we can't work (all there since Linux 5.11).
const REQUIRED: InitFlags = InitFlags::FUSE_NO_OPEN_SUPPORT
    .union(InitFlags::FUSE_NO_OPENDIR_SUPPORT)
    .union(InitFlags::FUSE_DONT_MASK)
    .union(InitFlags::FUSE_POSIX_ACL);

/// What we ask for if it is offered. Not `FUSE_ASYNC_DIO`: with it a short direct write, as on a full disk, is EIO to the
/// application (fs/fuse/file.c, `fuse_get_res_by_io`).
const WISHED: InitFlags = InitFlags::FUSE_HANDLE_KILLPRIV_V2
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_READDIRPLUS_AUTO)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_EXPLICIT_INVAL_DATA)
    .union(InitFlags::FUSE_ABORT_ERROR);

/// Requests that the kernel may send ahead (readahead, write-back of mapped pages).
const BACKGROUND_MAX: u16 = 64;

/// The adapter between fuser and `passthrough`.
pub struct Adapter {
    passthrough: Arc<Passthrough>,
    freshen: Arc<Freshen>,
    barrier: Arc<Barrier>,
    habits: Habits,
    offload: Offload,
    /// With `--passthrough`.
    watch: Option<Arc<Watch>>,
}

impl Adapter {
    /// An adapter for one mount. `notifier` is set once the session exists.
    pub fn new(
        passthrough: Arc<Passthrough>,
        notifier: Arc<OnceLock<fuser::Notifier>>,
        barrier: Arc<Barrier>,
        passes: bool,
    ) -> io::Result<Adapter> {
        let freshen = Arc::new(Freshen::start(notifier)?);
        let watch = if passes { Some(Watch::start(&passthrough, &freshen)?) } else { None };
        let (habits, offload) = (Habits::default(), Offload::start()?);
        Ok(Adapter { passthrough, freshen, barrier, habits, offload, watch })
    }

    /// What is to be settled before all is recorded, with `--passthrough`.
    pub fn watch(&self) -> Option<Arc<Watch>> {
        self.watch.clone()
    }
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

/// Adds a name to an answer; false if there was no room for it.
fn add_plus(reply: &mut ReplyDirectoryPlus, item: &DirItem<'_>) -> bool {
    let (attr, generation): (FileAttr, Generation) = match &item.seen {
        Some(seen) => (reply::attr(seen), reply::generation(&seen.stat)),
        None => (reply::dots(item.ino), Generation(0)),
    };
    !reply.add(attr.ino, item.next, OsStr::from_bytes(item.name), &TTL, &attr, generation)
}

/// Answers with the value, or the errno.
macro_rules! answer {
    ($operation:literal, $reply:ident, $result:expr, $value:ident => $then:expr) => {
        match $result {
            Ok($value) => $then,
            Err(e) => $reply.error(reply::errno($operation, e)),
        }
    };
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        config.add_capabilities(REQUIRED).map_err(|missing| {
            io::Error::other(format!("this kernel's FUSE is too old for tdfs: it lacks {missing:?}"))
        })?;
        if self.watch.is_some() {
            config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).map_err(|_| {
                io::Error::other("this kernel can't pass reads on: --passthrough needs Linux 6.9")
            })?;
            // The backing tree must not be stacked itself: the kernel then says so at each open, and caches.
            let _ = config.set_max_stack_depth(1);
        }
        let offered = WISHED & config.capabilities();
        config.add_capabilities(offered).map_err(|e| io::Error::other(format!("FUSE: {e:?}")))?;
        // Both may be clipped by the kernel; its maximum is then taken.
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.set_max_readahead(1 << 20);
        let max_write = u32::try_from(crate::passthrough::WRITE_BYTES_MAX).unwrap_or(u32::MAX);
        config
            .set_max_write(max_write)
            .map_err(|most| io::Error::other(format!("max_write above {most}")))?;
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && self.barrier.is_name(name.as_bytes()) {
            return reply.entry(&Duration::ZERO, &Barrier::attr(), Generation(0));
        }
        match self.passthrough.lookup(parent.0, name.as_bytes()) {
            Ok(seen) => {
                let attr = reply::attr(&seen);
                reply.entry(&TTL, &attr, reply::generation(&seen.stat));
                if attr.kind != FileType::Directory {
                    self.habits.looked_up(request.pid(), parent.0);
                }
            }
            // nodeid 0: "there is nothing of that name", to be remembered.
            Err(rustix::io::Errno::NOENT) => reply.entry(&TTL, &reply::nothing(), Generation(0)),
            Err(e) => reply.error(reply::errno("lookup", e)),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.passthrough.forget(ino.0, count);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        if ino.0 == BARRIER_NODE {
            return reply.attr(&Duration::ZERO, &Barrier::attr());
        }
        answer!("getattr", reply, self.passthrough.getattr(ino.0), seen => reply.attr(&TTL, &reply::attr(&seen)));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = SetTimes { atime: atime.map(set_time), mtime: mtime.map(set_time) };
        let set = SetAttr { mode, uid, gid, size, times };
        let done = self.set_attributes(ino.0, caller(request), &set);
        let result = done.and_then(|()| self.passthrough.getattr(ino.0));
        answer!("setattr", reply, result, seen => reply.attr(&TTL, &reply::attr(&seen)));
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        answer!("readlink", reply, self.passthrough.readlink(ino.0), target => reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let spot = (parent.0, name.as_bytes());
        let made = self.passthrough.mknod(spot, mode, umask, reply::decode_device(rdev), caller(request));
        self.freshen.later(parent.0);
        answer!("mknod", reply, made, seen => reply.entry(&TTL, &reply::attr(&seen), reply::generation(&seen.stat)));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.passthrough.mkdir((parent.0, name.as_bytes()), mode, umask, caller(request));
        self.freshen.later(parent.0);
        answer!("mkdir", reply, made, seen => reply.entry(&TTL, &reply::attr(&seen), reply::generation(&seen.stat)));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.passthrough.unlink((parent.0, name.as_bytes()));
        self.freshen.later(parent.0);
        answer!("unlink", reply, done, _done => reply.ok());
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.passthrough.rmdir((parent.0, name.as_bytes()));
        self.freshen.later(parent.0);
        answer!("rmdir", reply, done, _done => reply.ok());
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        let made = self.passthrough.symlink((parent.0, name.as_bytes()), target, caller(request));
        self.freshen.later(parent.0);
        answer!("symlink", reply, made, seen => reply.entry(&TTL, &reply::attr(&seen), reply::generation(&seen.stat)));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
        let done = self.passthrough.rename(from, to, flags.bits());
        self.freshen.later(parent.0);
        self.freshen.later(newparent.0);
        answer!("rename", reply, done, _done => reply.ok());
    }

    fn link(&self, _request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let linked = self.passthrough.link(ino.0, (newparent.0, newname.as_bytes()));
        self.freshen.later(newparent.0);
        answer!("link", reply, linked, seen => reply.entry(&TTL, &reply::attr(&seen), reply::generation(&seen.stat)));
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let Some(watch) = &self.watch else { return reply.error(Errno::ENOSYS) };
        // Opened outside the lock of the opens, where it can be told that it is needed.
        let reads = flags.0 & libc::O_ACCMODE == libc::O_RDONLY && ino.0 != BARRIER_NODE;
        let file = if reads { self.passthrough.open_to_read(ino.0).ok() } else { None };
        let back = || {
            let file = file.clone().or_else(|| self.passthrough.open_to_read(ino.0).ok())?;
            reply.open_backing(&*file).ok()
        };
        match watch.opens.open(ino.0, flags.0, back) {
            Opened::Cached => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Opened::Passed(id) => reply.opened_passthrough(FileHandle(0), FopenFlags::empty(), &id),
            // The kernel opens the backing file, too, and makes an EIO of what stands against it.
            Opened::Direct(id) => match self.passthrough.try_open(ino.0, flags.0) {
                Ok(()) => reply.opened_passthrough(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO, &id),
                Err(e) => {
                    watch.release(ino.0);
                    reply.error(reply::errno("open", e));
                }
            },
            Opened::Refused => reply.error(Errno::ENOMEM),
        }
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
        if let Some(watch) = &self.watch {
            watch.release(ino.0);
        }
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if ino.0 == BARRIER_NODE {
            self.barrier.arrive(offset);
            return reply.data(&vec![0; size as usize]);
        }
        thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size as usize {
                buffer.resize(size as usize, 0);
            }
            let read = self.passthrough.read(ino.0, offset, &mut buffer[..size as usize]);
            answer!("read", reply, read, count => reply.data(&buffer[..count]));
        });
        // Nobody's read fills the kernel's cache: for a splice, as nothing else looks there while the file is passed on.
        if owner.is_none() && self.watch.as_ref().is_some_and(|watch| watch.opens.is_passed(ino.0)) {
            let freshen = self.freshen.clone();
            self.offload.run(move || freshen.pages(ino.0, offset, size));
        }
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let killed = self.kill_privileges(ino, caller(request), kill);
        let written = killed.and_then(|()| self.passthrough.write(ino.0, offset, data));
        if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            self.freshen.later(ino.0);
        }
        let count = match written {
            Ok(count) => u32::try_from(count).unwrap_or(u32::MAX),
            Err(e) => return reply.error(reply::errno("write", e)),
        };
        let data_only = flags.0 & libc::O_SYNC != libc::O_SYNC;
        if flags.0 & libc::O_DSYNC != 0 && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            let passthrough = self.passthrough.clone();
            self.offload.run(move || match passthrough.fsync(ino.0, data_only) {
                Ok(()) => reply.written(count),
                Err(e) => reply.error(reply::errno("fsync", e)),
            });
        } else {
            reply.written(count);
        }
    }

    fn fsync(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let passthrough = self.passthrough.clone();
        let look = self.watch.as_ref().filter(|watch| watch.opens.is_watched(ino.0));
        let look = look.and_then(|watch| watch.look(ino.0));
        self.offload.run(move || {
            let done = passthrough.fsync(ino.0, data_only);
            if let Some(look) = look {
                look.take();
            }
            answer!("fsync", reply, done, _done => reply.ok());
        });
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let passthrough = self.passthrough.clone();
        self.offload
            .run(move || answer!("fsyncdir", reply, passthrough.fsync_dir(ino.0), _done => reply.ok()));
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let read = self.passthrough.read_dir(ino.0, offset, Listed::Names, |item: &DirItem<'_>| {
            let full = reply.add(
                INodeNo(item.ino),
                item.next,
                reply::listed_kind(item.kind),
                OsStr::from_bytes(item.name),
            );
            !full
        });
        answer!("readdir", reply, read, _done => reply.ok());
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut told = 0;
        if offset == 0 && !self.habits.wants_attributes(request.pid(), ino.0) {
            // Only `.` and `..` here; the kernel then asks for the rest by READDIR.
            let read = self.passthrough.read_dir(ino.0, 0, Listed::Dots, |item| {
                told += 1;
                add_plus(&mut reply, item)
            });
            if let Err(e) = read {
                return reply.error(reply::errno("readdirplus", e));
            }
        }
        let read = match told {
            0 => self
                .passthrough
                .read_dir(ino.0, offset, Listed::Attributes, |item| add_plus(&mut reply, item)),
            _ => Ok(()),
        };
        answer!("readdirplus", reply, read, _done => reply.ok());
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        answer!("statfs", reply, self.passthrough.statfs(), s => reply.statfs(
            s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, small(s.f_bsize), small(s.f_namemax),
            small(s.f_frsize),
        ));
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let xattr = (name.as_bytes(), value);
        let set = self.passthrough.set_xattr(ino.0, xattr, flags.cast_unsigned(), caller(request));
        self.freshen.later(ino.0); // an ACL changes the mode
        answer!("setxattr", reply, set, _done => reply.ok());
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.passthrough.get_xattr(ino.0, name.as_bytes());
        answer!("getxattr", reply, value, value => reply::xattr(reply, size, &value));
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.passthrough.list_xattrs(ino.0, caller(request));
        answer!("listxattr", reply, names, names => reply::xattr(reply, size, &names));
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.passthrough.remove_xattr(ino.0, name.as_bytes());
        self.freshen.later(ino.0);
        answer!("removexattr", reply, removed, _done => reply.ok());
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = match self.passthrough.allocate(ino.0, Range { offset, len }, mode.cast_unsigned()) {
            // What the backing file system does not know at all it refuses before it clears anything.
            Err(rustix::io::Errno::OPNOTSUPP) => Err(rustix::io::Errno::OPNOTSUPP),
            done => self.kill_without_fsetid(ino, caller(request)).and(done),
        };
        answer!("fallocate", reply, done, _done => reply.ok());
    }

    fn lseek(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = u64::try_from(offset)
            .map_err(|_| rustix::io::Errno::NXIO)
            .and_then(|offset| self.passthrough.seek(ino.0, offset, whence));
        answer!("lseek", reply, found, at => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)));
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let killed = self.kill_without_fsetid(ino_out, caller(request));
        let copied =
            killed.and_then(|()| self.passthrough.copy(ino_in.0, offset_in, ino_out.0, offset_out, len));
        answer!("copy_file_range", reply, copied, count => reply.written(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    // fuser's own answers to these would each leave a warning in the log.

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _wanted: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS); // the kernel then answers by itself: always ready
    }

    fn bmap(&self, _request: &Request, _ino: INodeNo, _block_size: u32, _index: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }
}
