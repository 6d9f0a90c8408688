//! Answers wants: reads objects of the backing tree exactly as of an LSN.
//!
//! Called by `ship` on threads of their own. Reads below the order locks of `commit`, changes nothing, and
//! knows no slave. An answer is handed over before the locks are released, so no record that touches the
//! object can come between the answer's LSN and its place in the stream (DESIGN section 7, rule 2).

use crate::commit::{Commit, TreeShared};
use crate::passthrough::{Passthrough, Why};
use crate::ship::{Answerer, Placed};
use rustix::fs::{OFlags, SeekFrom, Statx};
use rustix::io::{Errno, Result};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tdfs_host::object::{self, Listed};
use tdfs_wire::answer::{Answer, BLOCK_BYTES, BLOCKS_MAX, Found, Stretch, Want, Wanted};
use tdfs_wire::frame::{Codec, FRAME_BYTES_MAX};
use tdfs_wire::object::{Child, Kind, Meta};
use tdfs_wire::{Name, TreePath};

/// A part of a listing is cut at about this many encoded bytes: a few blocks of content, so that records do not wait long
/// behind it. All names of the directory are read for each part.
const LISTING_PART_BYTES: usize = 512 * 1024;

/// A child with more bytes of xattrs is told without them: so few fit beside those of its directory.
const CHILD_XATTR_BYTES_MAX: usize = 64 * 1024;

/// A child takes at least so many bytes beside its name.
const CHILD_BYTES: usize = 100;

/// The children of a directory with more names than this are read before it is locked; so many take no longer
/// than a block of content.
const CHILDREN_LOCKED_MAX: usize = 1_000;

/// What an answer's head takes beside paths and xattrs, with a path of full length.
const HEAD_BYTES: usize = 24 * 1024;

/// Answers wants about the tree that `passthrough` serves.
pub struct Answers {
    passthrough: Arc<Passthrough>,
    codec: Codec,
}

/// An object that was found and is locked against changes while this lives.
struct Locked<'a> {
    fd: OwnedFd,
    stat: Statx,
    _lock: crate::commit::Reading<'a>,
}

/// What a path names.
enum Resolved<'a> {
    /// The object, locked.
    Object(Locked<'a>),
    /// Nothing: the nearest directory above that exists is locked.
    Nothing(#[expect(dead_code, reason = "held until the answer has its place")] Locked<'a>),
}

/// Children of a directory as they were a moment before it was locked, by name.
type Hints = HashMap<Vec<u8>, Child>;

impl Answers {
    /// Answers in frames with this codec.
    pub fn new(passthrough: Arc<Passthrough>, codec: Codec) -> Answers {
        Answers { passthrough, codec }
    }

    fn commit(&self) -> &Commit {
        self.passthrough.commit()
    }

    fn try_answer(&self, want: &Want, place: &dyn Fn(Placed)) -> Result<()> {
        match &want.what {
            Wanted::Listing { after } => self.answer_listing(want, after.as_ref(), place),
            Wanted::Object { offset, hashes } => {
                let tree = self.commit().order().shared();
                let resolved = self.resolve(&tree, &want.path)?;
                let answer = match &resolved {
                    Resolved::Nothing(_) => (Found::Gone, Vec::new()),
                    Resolved::Object(found) => self.object(&want.path, found, *offset, hashes)?,
                };
                self.tell(want, answer, place)
            }
        }
    }

    /// The children of a large part are read without a lock, and then its names once more with it: nobody can change
    /// anything there, or rename a directory anywhere, while it is held.
    fn answer_listing(&self, want: &Want, after: Option<&Name>, place: &dyn Fn(Placed)) -> Result<()> {
        let mut hints = None;
        loop {
            let tree = self.commit().order().shared();
            let resolved = self.resolve(&tree, &want.path)?;
            let found = match &resolved {
                Resolved::Object(dir) if object::file_type(&dir.stat) == libc::S_IFDIR => {
                    let part = Part::of(self.names(&want.path, dir)?, after);
                    if part.names.len() > CHILDREN_LOCKED_MAX && hints.is_none() {
                        let fd = rustix::io::fcntl_dupfd_cloexec(&dir.fd, 0)?;
                        drop(resolved);
                        drop(tree);
                        hints = Some(self.hints(&want.path, fd.as_fd(), part.names));
                        continue;
                    }
                    self.listing(&want.path, dir, part, hints.unwrap_or_default())?
                }
                Resolved::Object(_) | Resolved::Nothing(_) => Found::Gone,
            };
            return self.tell(want, (found, Vec::new()), place);
        }
    }

    /// Hands over what was found; the locks below which it was found are held.
    fn tell(&self, want: &Want, (found, bulk): (Found, Vec<u8>), place: &dyn Fn(Placed)) -> Result<()> {
        let as_of = self.commit().log().head();
        let content_bytes = content_bytes(&found);
        let answer = Answer { id: want.id, path: want.path.clone(), found };
        let frame = answer.frame(as_of, &bulk, self.codec).map_err(|e| {
            tracing::error!("{} can't be told to a slave: {e}", want.path);
            Errno::TOOBIG
        })?;
        place(Placed { as_of, frame, content_bytes });
        Ok(())
    }

    /// Finds what the path names and locks it. Directories on the way can't move below the tree lock; the
    /// object itself can until it is locked, so we look again.
    fn resolve<'a>(&self, tree: &'a TreeShared<'a>, path: &TreePath) -> Result<Resolved<'a>> {
        loop {
            let mut at = rustix::io::fcntl_dupfd_cloexec(self.passthrough.root(), 0)?;
            let mut above: Option<(OwnedFd, &[u8])> = None;
            let mut missing = false;
            for name in path.components() {
                match object::open_path(at.as_fd(), name) {
                    Ok(next) => above = Some((std::mem::replace(&mut at, next), name)),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV) => {
                        missing = true;
                        above = Some((rustix::io::fcntl_dupfd_cloexec(&at, 0)?, name));
                        break;
                    }
                    Err(e) => return Err(e),
                }
            }
            let found = lock(tree, at)?;
            let now = above.as_ref().map(|(dir, name)| object::stat_at(dir.as_fd(), name));
            match now {
                None => return Ok(Resolved::Object(found)),
                Some(Ok(now)) if !missing && now.stx_ino == found.stat.stx_ino => {
                    let foreign = self.passthrough.is_foreign(&found.stat);
                    return Ok(if foreign { Resolved::Nothing(found) } else { Resolved::Object(found) });
                }
                Some(Err(Errno::NOENT | Errno::NOTDIR)) if missing && found.stat.stx_nlink > 0 => {
                    return Ok(Resolved::Nothing(found));
                }
                Some(Ok(now)) if missing && self.passthrough.is_foreign(&now) => {
                    return Ok(Resolved::Nothing(found));
                }
                Some(Ok(_) | Err(Errno::NOENT | Errno::NOTDIR)) => {} // it moved: look again
                Some(Err(e)) => return Err(e),
            }
        }
    }

    fn object(
        &self,
        path: &TreePath,
        found: &Locked<'_>,
        offset: u64,
        hashes: &[[u8; 32]],
    ) -> Result<(Found, Vec<u8>)> {
        let (ino, links) = (found.stat.stx_ino, found.stat.stx_nlink.into());
        let mut bulk = Vec::new();
        let mut stretches = Vec::new();
        let has_content = object::file_type(&found.stat) == libc::S_IFREG && offset < found.stat.stx_size;
        let file = match has_content.then(|| open_content(&found.fd)).transpose() {
            Err(e) if is_forbidden(e, &found.stat) => {
                self.passthrough.left_out().note(Why::Unreadable, path.clone());
                // What a replica has stays as it is.
                stretches.push(Stretch::Same(found.stat.stx_size - offset));
                None
            }
            file => file?,
        };
        // An open file tells its xattrs at a fraction of the cost.
        let meta = self.meta(path, file.as_ref().unwrap_or(&found.fd).as_fd(), &found.stat)?;
        if let Some(file) = &file {
            let end = offset + blocks_beside(&meta)? * BLOCK_BYTES;
            let mut at = offset;
            while at < meta.size {
                let hole_end = end_of_hole(file, at, meta.size)?;
                if hole_end > at {
                    // However long, and also behind the last block: telling it costs nothing.
                    push(&mut stretches, Stretch::Hole(hole_end - at));
                    at = hole_end;
                    continue;
                }
                if at >= end {
                    break;
                }
                let block_end = meta.size.min(at + BLOCK_BYTES);
                let hash =
                    usize::try_from((at - offset) / BLOCK_BYTES).ok().and_then(|number| hashes.get(number));
                read_block(file, at, block_end, hash, &mut stretches, &mut bulk)?;
                at = block_end;
            }
        }
        Ok((Found::Object { meta, ino, links, stretches }, bulk))
    }

    /// All names of a directory; none where they may not be read.
    fn names(&self, path: &TreePath, dir: &Locked<'_>) -> Result<Vec<Listed>> {
        match object::list(dir.fd.as_fd()) {
            Err(e) if is_forbidden(e, &dir.stat) => {
                self.passthrough.left_out().note(Why::Unreadable, path.clone());
                Ok(Vec::new())
            }
            names => names,
        }
    }

    /// A directory with the part of its names that fits an answer.
    fn listing(&self, path: &TreePath, dir: &Locked<'_>, part: Part, mut hints: Hints) -> Result<Found> {
        let meta = self.meta(path, dir.fd.as_fd(), &dir.stat)?;
        let bytes_max =
            LISTING_PART_BYTES.min(FRAME_BYTES_MAX.saturating_sub(HEAD_BYTES + xattr_bytes(&meta)));
        let (mut children, mut bytes, mut last) = (Vec::new(), 0, !part.more);
        for listed in part.names {
            let child = match hints.remove(&listed.name).filter(|hint| is_of(hint, &listed)) {
                Some(hint) => hint,
                None => match self.child(path, dir.fd.as_fd(), listed.name)? {
                    Some(child) => child,
                    None => continue,
                },
            };
            let child_bytes = encoded_bytes(&child);
            if bytes + child_bytes > bytes_max && bytes > 0 {
                last = false;
                break;
            }
            bytes += child_bytes;
            children.push(child);
        }
        Ok(Found::Listing { meta, children, last })
    }

    /// Reads children without a lock, for [`Answers::listing`] to use where they are still the same objects.
    ///
    /// What is exact in a listing - names, types, inode numbers - is compared once more below the lock. All else
    /// may be older than the answer: the slave asked before it was read, so each record that changed the
    /// child since stands in the stream before the answer. Where the slave could apply it, its object differs
    /// from what is told here or is right; where not, the name counts as touched. Either way the
    /// child is wanted on its own. A symlink's target and a device's number make no such want: those are read
    /// below the lock always.
    fn hints(&self, path: &TreePath, dir: BorrowedFd<'_>, names: Vec<Listed>) -> Hints {
        let seen = names.into_iter().filter_map(|listed| self.child(path, dir, listed.name).ok().flatten());
        seen.map(|child| (child.name.as_bytes().to_vec(), child)).collect()
    }

    /// One name of a directory; None for what is foreign, or may not be looked at.
    fn child(&self, parent: &TreePath, dir: BorrowedFd<'_>, name: Vec<u8>) -> Result<Option<Child>> {
        let note =
            |why| parent.join(&name).into_iter().for_each(|path| self.passthrough.left_out().note(why, path));
        let seen = match object::look_at(dir, &name) {
            Ok(seen) if !self.passthrough.is_foreign(&seen.stat) => seen,
            Ok(_) | Err(Errno::XDEV) => {
                note(Why::Foreign);
                return Ok(None);
            }
            Err(e @ (Errno::ACCESS | Errno::PERM)) => return self.forbidden_child((parent, dir), name, e),
            Err(e) => return Err(e),
        };
        let (ino, links, mut meta) = (seen.stat.stx_ino, seen.stat.stx_nlink.into(), seen.meta);
        if seen.too_many_xattrs {
            note(Why::ManyXattrs);
        }
        if xattr_bytes(&meta) > CHILD_XATTR_BYTES_MAX {
            meta.xattrs.clear(); // only a hint: the difference makes a want
        }
        let name = Name::new(name).map_err(|_| Errno::NAMETOOLONG)?;
        Ok(Some(Child { name, ino, links, meta }))
    }

    /// One name whose object could not be looked at; None where the directory may not be searched.
    fn forbidden_child(
        &self,
        (parent, dir): (&TreePath, BorrowedFd<'_>),
        name: Vec<u8>,
        why: Errno,
    ) -> Result<Option<Child>> {
        let seen = object::open_path(dir, &name).and_then(|fd| Ok((object::stat(fd.as_fd())?, fd)));
        let is_left_out = match &seen {
            Ok((stat, _)) => is_forbidden(why, stat),
            Err(e) => is_forbidden(*e, &object::stat(dir)?),
        };
        if !is_left_out {
            return Err(why);
        }
        parent
            .join(&name)
            .into_iter()
            .for_each(|path| self.passthrough.left_out().note(Why::Unreadable, path));
        let Ok((stat, fd)) = seen else { return Ok(None) };
        let meta = object::bare_meta(fd.as_fd(), &stat)?;
        let name = Name::new(name).map_err(|_| Errno::NAMETOOLONG)?;
        Ok(Some(Child { name, ino: stat.stx_ino, links: stat.stx_nlink.into(), meta }))
    }

    /// What is told of an object; that xattrs are left out is noted.
    fn meta(&self, path: &TreePath, fd: BorrowedFd<'_>, stat: &Statx) -> Result<Meta> {
        let seen = match object::look(fd, stat) {
            Err(e) if is_forbidden(e, stat) => {
                self.passthrough.left_out().note(Why::Unreadable, path.clone());
                return object::bare_meta(fd, stat);
            }
            seen => seen?,
        };
        if seen.too_many_xattrs {
            self.passthrough.left_out().note(Why::ManyXattrs, path.clone());
        }
        Ok(seen.meta)
    }
}

impl Answerer for Answers {
    fn answer(&self, want: &Want, place: &dyn Fn(Placed)) -> std::result::Result<(), String> {
        self.try_answer(want, place).map_err(|e| format!("{} can't be read: {e}", want.path))
    }
}

/// Names of a directory that may fit one answer.
struct Part {
    /// Sorted.
    names: Vec<Listed>,
    /// There are names behind these.
    more: bool,
}

impl Part {
    /// The first of `names` behind `after`.
    fn of(mut names: Vec<Listed>, after: Option<&Name>) -> Part {
        names.retain(|listed| after.is_none_or(|after| listed.name[..] > *after.as_bytes()));
        let fit = LISTING_PART_BYTES / CHILD_BYTES;
        let more = names.len() > fit;
        if more {
            names.select_nth_unstable_by(fit, |a, b| a.name.cmp(&b.name));
            names.truncate(fit);
        }
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Part { names, more }
    }
}

/// True if the hint is about the object that stands there now.
fn is_of(hint: &Child, listed: &Listed) -> bool {
    let file_type = match hint.meta.kind {
        Kind::File => libc::S_IFREG,
        Kind::Directory => libc::S_IFDIR,
        Kind::Fifo => libc::S_IFIFO,
        Kind::Socket => libc::S_IFSOCK,
        Kind::Symlink(_) | Kind::Char(_) | Kind::Block(_) => return false,
    };
    (hint.ino, file_type) == (listed.ino, listed.file_type)
}

fn lock<'a>(tree: &'a TreeShared<'a>, fd: OwnedFd) -> Result<Locked<'a>> {
    let lock = tree.reading(object::stat(fd.as_fd())?.stx_ino);
    let stat = object::stat(fd.as_fd())?;
    Ok(Locked { fd, stat, _lock: lock })
}

/// True if what this stat describes is somebody else's and can't be read without root's rights: waiting does not help. What
/// is our own its owner can make readable, so it is waited for: told otherwise, replicas would lose it.
fn is_forbidden(why: Errno, stat: &Statx) -> bool {
    let user = rustix::process::geteuid();
    matches!(why, Errno::ACCESS | Errno::PERM) && !user.is_root() && user.as_raw() != stat.stx_uid
}

fn open_content(path_fd: &OwnedFd) -> Result<OwnedFd> {
    match object::reopen(path_fd.as_fd(), OFlags::RDONLY | OFlags::NOATIME) {
        Err(Errno::PERM) => object::reopen(path_fd.as_fd(), OFlags::RDONLY),
        file => file,
    }
}

/// How much content was compared or read for an answer.
fn content_bytes(found: &Found) -> u64 {
    let costs = |stretch: &Stretch| if matches!(stretch, Stretch::Hole(_)) { 0 } else { stretch.len() };
    match found {
        Found::Object { stretches, .. } => stretches.iter().map(costs).sum(),
        Found::Gone | Found::Listing { .. } => 0,
    }
}

/// Where the whole blocks end that are a hole from `at` on: `at` where there are none.
fn end_of_hole(file: &OwnedFd, at: u64, size: u64) -> Result<u64> {
    let data = seek(file, SeekFrom::Data(at))?.unwrap_or(size);
    Ok(if data >= size { size } else { at.max(data / BLOCK_BYTES * BLOCK_BYTES) })
}

/// Adds one block: its holes as holes, its data as data unless the slave has the block already.
fn read_block(
    file: &OwnedFd,
    start: u64,
    end: u64,
    hash: Option<&[u8; 32]>,
    stretches: &mut Vec<Stretch>,
    bulk: &mut Vec<u8>,
) -> Result<()> {
    let block = read_range(file, start, end)?;
    let same = hash.is_some_and(|hash| blake3::hash(&block).as_bytes() == hash);
    let mut at = start;
    while at < end {
        let data = seek(file, SeekFrom::Data(at))?.unwrap_or(end).min(end);
        if data > at {
            push(stretches, Stretch::Hole(data - at));
            at = data;
            continue;
        }
        let hole = seek(file, SeekFrom::Hole(at))?.unwrap_or(end).min(end);
        if same {
            push(stretches, Stretch::Same(hole - at));
        } else {
            let range = in_block(at - start)..in_block(hole - start);
            push(stretches, Stretch::Data(u32::try_from(range.len()).unwrap_or(u32::MAX)));
            bulk.extend_from_slice(&block[range]);
        }
        at = hole;
    }
    Ok(())
}

/// An offset inside a block, which fits any usize.
fn in_block(offset: u64) -> usize {
    usize::try_from(offset).expect("a block is 128 KiB")
}

/// Adds a stretch, grown onto the last one where it is of the same kind.
fn push(stretches: &mut Vec<Stretch>, next: Stretch) {
    match (stretches.last_mut(), next) {
        (Some(Stretch::Same(len)), Stretch::Same(more)) | (Some(Stretch::Hole(len)), Stretch::Hole(more)) => {
            *len += more;
        }
        (Some(Stretch::Data(len)), Stretch::Data(more)) => *len += more,
        _ => stretches.push(next),
    }
}

/// Where the next data or hole begins; None for no data any more (ENXIO).
fn seek(file: &OwnedFd, to: SeekFrom) -> Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

fn read_range(file: &OwnedFd, start: u64, end: u64) -> Result<Vec<u8>> {
    let mut block = vec![0; in_block(end - start)];
    let count = object::read_at(file.as_fd(), &mut block, start)?;
    if count < block.len() {
        return Err(Errno::IO); // shorter than its locked inode says
    }
    Ok(block)
}

fn encoded_bytes(child: &Child) -> usize {
    let target = match &child.meta.kind {
        Kind::Symlink(target) => target.len(),
        _ => 0,
    };
    child.name.as_bytes().len() + target + xattr_bytes(&child.meta) + CHILD_BYTES
}

/// How many blocks fit into an answer beside the object's meta. E2BIG where not even one does.
fn blocks_beside(meta: &Meta) -> Result<u64> {
    let room = FRAME_BYTES_MAX.saturating_sub(HEAD_BYTES + xattr_bytes(meta)) as u64 / BLOCK_BYTES;
    if room == 0 { Err(Errno::TOOBIG) } else { Ok(room.min(BLOCKS_MAX as u64)) }
}

fn xattr_bytes(meta: &Meta) -> usize {
    meta.xattrs.iter().map(|xattr| xattr.name.as_bytes().len() + xattr.value.len() + 16).sum()
}

#[cfg(test)]
mod tests;
