//! Objects whose mode is widened at present: noted before it is done, so that a kill can't leave them so.
//!
//! Owned by `target`, used by `access` alone. The note is a file in the slave's state directory, empty while
//! nothing is widened; as the applied position it outlives a kill, not a power cut.
//!
//! ```text
//! for each object   u64 inode number (0: a path alone), u32 mode before, u32 mode meanwhile,
//!                   u32 length of the path, the path, u32 CRC-32C; all little-endian
//! ```

use crate::replay::failure::{Failure, Step, at};
use crate::replay::target::Target;
use rustix::io::{Errno, Result};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use tdfs_host::object;
use tdfs_host::step::step;
use tdfs_wire::TreePath;

/// Bytes before the path.
const HEAD_BYTES: usize = 20;
const CRC_BYTES: usize = 4;

/// What is widened, in the order in which that was done.
#[derive(Debug, Default)]
pub struct Widened {
    objects: Vec<Object>,
    note: Option<File>,
    note_bytes: u64,
}

#[derive(Debug)]
struct Object {
    /// None: a process that was killed widened it, or it is a mere path.
    fd: Option<Arc<OwnedFd>>,
    /// 0: none, only a path where one of the others may be.
    inode: u64,
    path: TreePath,
    before: u32,
    meanwhile: u32,
}

impl Widened {
    /// Reads what a killed process left widened; from now on what is widened is noted in the file `path`.
    ///
    /// # Errors
    /// When the file can't be read or made.
    pub fn load(path: &Path) -> io::Result<Widened> {
        let note =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = vec![0; usize::try_from(note.metadata()?.len()).unwrap_or(0)];
        note.read_exact_at(&mut bytes, 0)?;
        let mut rest = &bytes[..];
        let mut objects = Vec::new();
        // What is cut off was not widened: it is noted before.
        while let Some((object, len)) = Object::parse(rest) {
            objects.push(object);
            rest = &rest[len..];
        }
        Ok(Widened { objects, note: Some(note), note_bytes: (bytes.len() - rest.len()) as u64 })
    }

    /// Notes the object `fd` with its inode number, and gives it the second mode for the first.
    pub(super) fn widen(
        &mut self,
        (fd, inode): (Arc<OwnedFd>, u64),
        path: &TreePath,
        (before, meanwhile): (u32, u32),
    ) -> Result<()> {
        let path = path.clone();
        self.note(Object { fd: Some(Arc::clone(&fd)), inode, path, before, meanwhile })?;
        object::set_mode(fd.as_fd(), meanwhile)
    }

    /// Notes that what is widened may be at `path` by the time of a kill: the record in hand names it.
    pub(super) fn may_be_at(&mut self, path: &TreePath) -> Result<()> {
        self.note(Object { fd: None, inode: 0, path: path.clone(), before: 0, meanwhile: 0 })
    }

    fn note(&mut self, object: Object) -> Result<()> {
        if let Some(note) = &self.note {
            let bytes = object.to_bytes();
            let noted = step(|| note.write_all_at(&bytes, self.note_bytes));
            noted.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            self.note_bytes += bytes.len() as u64;
        }
        self.objects.push(object);
        Ok(())
    }

    /// Gives back the modes of what is still as it was widened, the last first.
    ///
    /// # Errors
    /// A stall: then the rest is left for the next time.
    pub fn restore(target: &mut Target) -> std::result::Result<(), Failure> {
        while let Some(object) = target.widened().objects.pop() {
            if let Err(errno) = object.restore(target) {
                let failed = at(Step::Mode, "restore the mode of", &object.path)(errno);
                target.widened().objects.push(object);
                return Err(failed);
            }
        }
        target.widened().forget().map_err(at(Step::Mode, "note the modes on the way to", &TreePath::root()))
    }

    fn forget(&mut self) -> Result<()> {
        let Some(note) = self.note.as_ref().filter(|_| self.note_bytes > 0) else { return Ok(()) };
        step(|| rustix::fs::ftruncate(note, 0))?;
        self.note_bytes = 0;
        Ok(())
    }
}

impl Object {
    fn restore(&self, target: &mut Target) -> Result<()> {
        let Some(fd) = self.fd.clone().or_else(|| self.find(target)) else { return Ok(()) };
        if object::permissions(&object::stat(fd.as_fd())?) == self.meanwhile {
            object::set_mode(fd.as_fd(), self.before)?;
        }
        Ok(())
    }

    /// Looks for it where it was, and where the record in hand may have moved it. Not to be reached means not
    /// widened any more, or not yet: what lies above it is restored after it.
    fn find(&self, target: &mut Target) -> Option<Arc<OwnedFd>> {
        let others: Vec<TreePath> = target.widened().objects.iter().map(|other| other.path.clone()).collect();
        [self.path.clone()].into_iter().chain(others).find_map(|path| {
            let fd = target.object(&path).ok()?;
            let stat = object::stat(fd.as_fd()).ok()?;
            (stat.stx_ino == self.inode).then_some(fd)
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let path = self.path.as_bytes();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + path.len() + CRC_BYTES);
        bytes.extend(self.inode.to_le_bytes());
        bytes.extend(self.before.to_le_bytes());
        bytes.extend(self.meanwhile.to_le_bytes());
        // A path has 16 KiB at most.
        bytes.extend(u32::try_from(path.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(path);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// The first object in `bytes`, and how many of them it takes.
    fn parse(bytes: &[u8]) -> Option<(Object, usize)> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let inode = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
        let (before, meanwhile) = (number(8)?, number(12)?);
        let end = HEAD_BYTES.checked_add(usize::try_from(number(16)?).ok()?)?;
        let path = TreePath::new(bytes.get(HEAD_BYTES..end)?).ok()?;
        let is_whole = number(end)? == crc32c::crc32c(&bytes[..end]);
        is_whole.then_some((Object { fd: None, inode, path, before, meanwhile }, end + CRC_BYTES))
    }
}
