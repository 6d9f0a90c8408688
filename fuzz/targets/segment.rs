//! Log segments: recovery of a log whose only segment has these bytes, and of one with a segment before it.

use super::record::sign;
use std::collections::BTreeMap;
use std::io::{self, Error, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use tdfs_wire::log::{Log, LogError, Options, SEGMENT_HEADER_BYTES, SegmentHeader, Storage, StorageFile};
use tdfs_wire::op::AttrOp;
use tdfs_wire::record::{Draft, Record, RecordHeader};
use tdfs_wire::{Epoch, Id, Lsn, Op, Time, TreePath};

/// Of the golden segment.
const EPOCH: Epoch = Epoch { number: 3, id: golden_id() };
const FIRST: &str = "0000000003-00000000000000000001.log";
const OPTIONS: Options = Options { segment_bytes_max: 4096 };

const fn golden_id() -> Id {
    Id(0xa0a1_a2a3_a4a5_a6a7_a8a9_aaab_acad_aeaf_u128.to_be_bytes())
}

/// As it is, and with the header's and the records' checksums made right.
pub fn run(bytes: &[u8]) {
    recover(bytes);
    let mut mended = bytes.to_vec();
    if let Some(head) = mended.first_chunk_mut::<SEGMENT_HEADER_BYTES>() {
        *head = SegmentHeader { epoch: EPOCH, first: Lsn::new(1) }.encode();
    }
    let mut at = SEGMENT_HEADER_BYTES;
    while let Some(Ok(header)) = mended.get(at..).map(RecordHeader::parse) {
        let end = (at + header.len).min(mended.len());
        sign(&mut mended[at..end]);
        at = end;
    }
    recover(&mended);
}

/// What is recovered can be read and continued, and is recovered as the same once more.
fn recover(bytes: &[u8]) {
    let disk = Disk::default();
    disk.lock().insert(FIRST.into(), Arc::new(Mutex::new(bytes.to_vec())));
    let (log, found) = match Log::open_in(Box::new(disk.clone()), EPOCH, OPTIONS) {
        Ok(opened) => opened,
        Err(LogError::Version { .. }) => {
            return assert!(disk.lock().contains_key(FIRST), "nothing is touched");
        }
        Err(_) => return,
    };
    assert!(found.cut_bytes <= bytes.len() as u64);
    assert_eq!(read_all(&log), found.head.get());
    let op = Op::Attr(AttrOp::Times { path: TreePath::root(), mtime: Time::default() });
    let mut draft = Draft::new(&op, &[]).expect("a small op");
    let reservation = log.reserve(draft.len()).expect("room in memory");
    let lsn = log.append(reservation, &mut draft, 5).expect("append to memory");
    assert_eq!(lsn, found.head.next());
    drop(log);
    let (log, again) = Log::open_in(Box::new(disk), EPOCH, OPTIONS).expect("open what was recovered");
    assert_eq!((again.head, again.cut_bytes), (lsn, 0));
    read_all(&log);
}

/// Reads all records; each is the next, by its header. Returns the last.
fn read_all(log: &Log) -> u64 {
    let mut cursor = log.cursor(Lsn::ZERO).expect("the log begins with 1");
    let mut last = 0;
    while let Some(batch) = cursor.read(log.head(), 1000).expect("what was recovered can be read") {
        let mut rest = &batch.bytes[..];
        while !rest.is_empty() {
            let (header, whole) = RecordHeader::parse_whole(rest).expect("whole records");
            last += 1;
            assert_eq!(header.lsn.get(), last);
            let _ = Record::parse(rest); // its op may be anything, and need not be sound
            rest = &rest[whole.len()..];
        }
    }
    last
}

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A directory in memory.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<BTreeMap<String, Bytes>>>);

struct File(Bytes);

impl Disk {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let bytes = Bytes::default();
        match self.lock().insert(name.into(), Arc::clone(&bytes)) {
            Some(_) => Err(Error::from(ErrorKind::AlreadyExists)),
            None => Ok(Box::new(File(bytes))),
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.lock().get(name).cloned();
        Ok(Box::new(File(file.ok_or_else(|| Error::from(ErrorKind::NotFound))?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock().remove(name);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl File {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("an offset in memory")
}

impl StorageFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.lock();
        let rest = bytes.get(place(offset)..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, parts: [&[u8]; 2], offset: u64) -> io::Result<usize> {
        let new = parts.concat();
        let (mut bytes, end) = (self.lock(), place(offset) + new.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[place(offset)..end].copy_from_slice(&new);
        Ok(new.len())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.lock().resize(place(size), 0);
        Ok(())
    }

    fn preallocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
