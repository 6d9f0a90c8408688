//! Storage: where segments are kept. The trait, and its form for a real directory.
//!
//! Called by the rest of `log` alone. Knows names and bytes; never what a segment or a record is.

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::retry_on_intr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A flat directory of files. Tests put a faulty one in its place.
pub trait Storage: Send + Sync {
    /// The names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file that was not there and opens it to read and write.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Opens a file to read and write.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Removes a name, or finds it gone; whoever has the file open can go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names that came and went durable.
    fn sync(&self) -> io::Result<()>;
}

/// An open file of a [`Storage`].
pub trait StorageFile: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Reads up to `buffer.len()` bytes from `offset` on; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes the two parts one after the other from `offset` on; returns how many bytes were taken, which
    /// can be fewer than were given.
    fn write_at(&self, parts: [&[u8]; 2], offset: u64) -> io::Result<usize>;
    /// Cuts (or, with holes, extends) it to `size` bytes and gives up what was preallocated beyond.
    fn truncate(&self, size: u64) -> io::Result<()>;
    /// Takes disk space for `len` bytes from `offset` on and leaves the size as it is; does nothing where
    /// the storage has no such thing.
    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes its bytes durable.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Debug)]
pub struct FileStorage {
    dir: PathBuf,
}

impl FileStorage {
    /// Uses `dir`, which is made (0700, parents too) if it is missing.
    pub fn new(dir: &Path) -> io::Result<FileStorage> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(FileStorage { dir: dir.to_owned() })
    }
}

impl Storage for FileStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Box::new(options.open(self.dir.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(self.dir.join(name))?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.dir.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl StorageFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, parts: [&[u8]; 2], offset: u64) -> io::Result<usize> {
        match parts {
            [head, []] => FileExt::write_at(self, head, offset),
            [head, bulk] => Ok(rustix::io::pwritev(self, &[IoSlice::new(head), IoSlice::new(bulk)], offset)?),
        }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        // tmpfs says EINTR when a signal comes.
        match retry_on_intr(|| fallocate(self, FallocateFlags::KEEP_SIZE, offset, len)) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            done => Ok(done?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Fills all of `buffer` from `offset` on; an end before that is `UnexpectedEof`.
pub(super) fn read_exact_at(file: &dyn StorageFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => done += bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes all of both parts from `offset` on. After an error any prefix of them may have been written.
pub(super) fn write_all_at(file: &dyn StorageFile, mut parts: [&[u8]; 2], mut offset: u64) -> io::Result<()> {
    while !(parts[0].is_empty() && parts[1].is_empty()) {
        let taken = match file.write_at(parts, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let of_first = taken.min(parts[0].len());
        parts = [&parts[0][of_first..], &parts[1][taken - of_first..]];
        offset += taken as u64;
    }
    Ok(())
}
