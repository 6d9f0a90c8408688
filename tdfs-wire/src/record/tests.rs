//! Records: round trips of each op, limits, and whatever bytes a disk or a peer may hold.

use super::*;
use crate::log::tests::Rng;
use crate::op::{
    AttrOp, COPY_BYTES_MAX, DataOp, NamespaceOp, NewObject, Node, RenameMode, XattrName, XattrOp,
};
use crate::{Time, TreePath};

/// Records that are mutated in all ways; a failing seed is printed.
const SEEDS: u64 = 20_000;

fn path(bytes: &[u8]) -> TreePath {
    TreePath::new(bytes).unwrap()
}

fn bulk_len(op: &Op, nth: usize) -> usize {
    match op {
        Op::Namespace(
            NamespaceOp::Create(_)
            | NamespaceOp::Mkdir(_)
            | NamespaceOp::Mknod { .. }
            | NamespaceOp::Symlink { .. },
        ) => 5,
        Op::Data(DataOp::Write { .. }) | Op::Xattr(XattrOp::Set { .. }) => 1 + nth * 3,
        _ => 0,
    }
}

fn with_bulk((len, op): (usize, Op)) -> (Op, Vec<u8>) {
    (op, vec![0xab; len])
}

/// One op of each kind, with its bulk.
fn ops() -> Vec<(Op, Vec<u8>)> {
    let mtime = Time { sec: -5, nsec: 999_999_999 };
    let new = NewObject {
        path: path(b"a/\xff\xfe"),
        mode: 0o4755,
        uid: 1000,
        gid: u32::MAX - 1,
        mtime,
        parent_mtime: Time { sec: i64::MAX, nsec: 0 },
        access_acl_bytes: 3,
        default_acl_bytes: 2,
    };
    let (from, to) = (path(b"from"), path(&[b'x'; 255]));
    let namespace = [
        NamespaceOp::Create(new.clone()),
        NamespaceOp::Mkdir(new.clone()),
        NamespaceOp::Mknod { new: new.clone(), node: Node::Fifo },
        NamespaceOp::Mknod { new: new.clone(), node: Node::Socket },
        NamespaceOp::Mknod { new: new.clone(), node: Node::Char(u64::MAX) },
        NamespaceOp::Mknod { new: new.clone(), node: Node::Block(0x801) },
        NamespaceOp::Symlink { new, target: b"../\n".to_vec() },
        NamespaceOp::Link { from: from.clone(), to: to.clone(), parent_mtime: mtime },
        NamespaceOp::Unlink { path: to.clone(), parent_mtime: mtime, links: 1 },
        NamespaceOp::Rmdir { path: from.clone(), parent_mtime: mtime },
    ];
    let renames = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange].map(|mode| {
        let (from, to) = (from.clone(), to.clone());
        NamespaceOp::Rename { from, to, mode, from_parent_mtime: mtime, to_parent_mtime: mtime, links: 0 }
    });
    let data = [
        DataOp::Write { path: from.clone(), offset: 1 << 40, mtime },
        DataOp::Truncate { path: from.clone(), size: 7, mtime },
        DataOp::Allocate { path: from.clone(), mode: 3, offset: 1, len: 2, size: 3, mtime },
        DataOp::Copy { from: from.clone(), from_offset: 1, to: to.clone(), to_offset: 2, len: 3, mtime },
    ];
    let attr = [
        AttrOp::Mode { path: TreePath::root(), mode: 0o7777 },
        AttrOp::Owner { path: from.clone(), uid: 0, gid: 1, mode: 0o644 },
        AttrOp::Times { path: from.clone(), mtime },
    ];
    let name = XattrName::new(*b"user.\x01").unwrap();
    let xattr = [
        XattrOp::Set { path: from.clone(), name: name.clone(), mode: None },
        XattrOp::Set { path: from.clone(), name: name.clone(), mode: Some(0o640) },
        XattrOp::Remove { path: from.clone(), name, mode: None },
    ];
    let checks = [vec![], vec![from, to]].map(|paths| Op::Check { paths });
    let mut all: Vec<Op> = namespace.into_iter().chain(renames).map(Op::Namespace).collect();
    all.extend(data.map(Op::Data));
    all.extend(attr.map(Op::Attr));
    all.extend(xattr.map(Op::Xattr));
    all.extend(checks);
    all.into_iter().enumerate().map(|(nth, op)| (bulk_len(&op, nth), op)).map(with_bulk).collect()
}

fn owners(number: u64) -> Owners {
    let owner = |told: bool| told.then_some(Owner { uid: 1000, gid: 4_294_967_294 });
    Owners { changed: owner(number & 1 != 0), read: owner(number & 2 != 0) }
}

fn encode(op: &Op, bulk: &[u8], lsn: Lsn, time_ns: i64) -> Vec<u8> {
    let mut draft = Draft::new(op, bulk).unwrap();
    let bytes = draft.place(lsn, time_ns).concat();
    assert_eq!(bytes.len(), draft.len());
    bytes
}

/// Makes the checksum of a record right whatever it holds.
fn sign(bytes: &mut [u8]) {
    if bytes.len() >= RECORD_HEADER_BYTES {
        let payload = crc32c::crc32c(&bytes[RECORD_HEADER_BYTES..]);
        let crc = crc32c::crc32c_append(payload, &bytes[8..RECORD_HEADER_BYTES]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

fn is_incomplete(bytes: &[u8]) -> bool {
    matches!(Record::parse(bytes), Err(RecordError::Incomplete))
}

fn is_corrupt(bytes: &[u8]) -> bool {
    matches!(Record::parse(bytes), Err(RecordError::Corrupt(_)))
}

#[test]
fn each_op_comes_back_as_it_went() {
    for (nth, (op, bulk)) in ops().into_iter().enumerate() {
        let (lsn, time_ns) = (Lsn::new(nth as u64 + 1), -1 - i64::try_from(nth).unwrap());
        let owners = owners(lsn.get());
        let mut bytes = Draft::owned(&op, owners, &bulk).unwrap().place(lsn, time_ns).concat();
        let len = bytes.len();
        bytes.extend_from_slice(b"what follows does not matter");
        let (record, used) = Record::parse(&bytes).unwrap();
        assert_eq!(used, len);
        assert_eq!(record, Record { lsn, time_ns, crc: record.crc, op, owners, bulk: &bulk });
    }
}

#[test]
fn a_draft_can_be_placed_again() {
    let (op, bulk) = ops().remove(0);
    let mut draft = Draft::new(&op, &bulk).unwrap();
    let _ = draft.place(Lsn::new(1), 1);
    let bytes = draft.place(Lsn::new(2), 3).concat();
    assert_eq!(bytes, encode(&op, &bulk, Lsn::new(2), 3));
}

#[test]
fn each_prefix_is_incomplete() {
    for (op, bulk) in ops() {
        let bytes = encode(&op, &bulk, Lsn::new(9), 9);
        for len in 0..bytes.len() {
            assert!(is_incomplete(&bytes[..len]), "{op:?} cut at {len}");
        }
    }
}

#[test]
fn each_flipped_bit_is_corrupt() {
    for (op, bulk) in ops() {
        let mut bytes = encode(&op, &bulk, Lsn::new(9), 9);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert!(is_corrupt(&bytes), "{op:?}, byte {at}, bit {bit}");
                bytes[at] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn the_largest_record_fits_and_no_larger_one() {
    let bulk = vec![1; BULK_BYTES_MAX + 1];
    let long = || {
        let components: Vec<_> = std::iter::repeat_n(&[b'n'; 255][..], 64).collect();
        path(&components.join(&b'/')[..])
    };
    let (mode, mtime) = (RenameMode::Replace, Time::default());
    let (from, to) = (long(), long());
    let op = Op::Namespace(NamespaceOp::Rename {
        from,
        to,
        mode,
        from_parent_mtime: mtime,
        to_parent_mtime: mtime,
        links: 0,
    });
    let bytes = encode(&op, &bulk[1..], Lsn::new(1), 1);
    assert!(bytes.len() <= RECORD_BYTES_MAX);
    assert_eq!(RecordHeader::parse_whole(&bytes).unwrap().0.len, bytes.len());
    assert!(is_corrupt(&bytes), "a rename has no bulk");
    assert!(matches!(Draft::new(&op, &bulk), Err(CodecError::TooLong { what: "bulk", .. })));
    let op = Op::Check { paths: vec![long(); 5] };
    assert!(matches!(Draft::new(&op, &[]), Err(CodecError::TooLong { what: "op", .. })));
}

/// Lengths beyond the limits are refused from the header alone, before anything is waited for.
#[test]
fn lengths_beyond_the_limits_are_corrupt() {
    let header = |len: usize, op_len: usize, bulk_len: usize| {
        let mut bytes = vec![0; RECORD_HEADER_BYTES];
        put_u32(&mut bytes, 0, len);
        put_u32(&mut bytes, 24, op_len);
        put_u32(&mut bytes, 28, bulk_len);
        bytes
    };
    let whole = |op_len, bulk_len| header(RECORD_HEADER_BYTES + op_len + bulk_len, op_len, bulk_len);
    assert!(is_incomplete(&whole(OP_BYTES_MAX, BULK_BYTES_MAX)));
    assert!(is_corrupt(&whole(OP_BYTES_MAX + 1, 0)));
    assert!(is_corrupt(&whole(1, BULK_BYTES_MAX + 1)));
    assert!(is_corrupt(&header(RECORD_HEADER_BYTES + 3, 1, 1)));
    assert!(is_corrupt(&header(0, 0, 0)));
    let max = u32::MAX as usize;
    assert!(is_corrupt(&header(max, max, max)));
}

/// FACTS.md: "bincode 2.0.1 without a limit aborts the process". With a right checksum, a length inside the op that
/// promises more than there is must be refused without being allocated.
#[test]
fn lengths_inside_an_op_are_not_believed() {
    for (op, _) in ops() {
        let whole = encode(&op, &[], Lsn::new(1), 1);
        for at in RECORD_HEADER_BYTES..whole.len().saturating_sub(7) {
            for claim in [u64::MAX, u64::MAX / 2, 1 << 60, 1 << 47, 1 << 32, 65_537, 65_536, 40_000] {
                let mut bytes = whole.clone();
                bytes[at..at + 8].copy_from_slice(&claim.to_le_bytes());
                sign(&mut bytes);
                if let Ok((record, _)) = Record::parse(&bytes) {
                    assert_eq!(encode(&record.op, &[], record.lsn, record.time_ns), bytes);
                }
            }
        }
    }
}

#[test]
fn a_path_that_would_leave_the_tree_is_no_path() {
    let op = Op::Attr(AttrOp::Mode { path: path(b"a/bb/c"), mode: 0 });
    for wrong in [b"../b/c", b"a/../c", b"a//b/c", b"/a/b/c", b"a/b/./", b"a/bb/.", b"a\0bb/c"] {
        let mut bytes = encode(&op, &[], Lsn::new(1), 1);
        let at = bytes.windows(6).position(|window| window == b"a/bb/c").unwrap();
        bytes[at..at + 6].copy_from_slice(wrong);
        sign(&mut bytes);
        assert!(is_corrupt(&bytes), "{}", wrong.escape_ascii());
    }
}

/// What no master makes is damage: it would mean something else to a system call, or never end.
#[test]
fn what_no_master_makes_is_corrupt() {
    let (file, root, time) = (path(b"f"), TreePath::root(), Time::default());
    let new = NewObject {
        path: file.clone(),
        mode: 0o644,
        uid: 1,
        gid: 1,
        mtime: time,
        parent_mtime: time,
        access_acl_bytes: 0,
        default_acl_bytes: 0,
    };
    let create = |new: NewObject| Op::Namespace(NamespaceOp::Create(new));
    let symlink =
        |target: &[u8]| Op::Namespace(NamespaceOp::Symlink { new: new.clone(), target: target.to_vec() });
    let copy = |from_offset, to_offset, len| {
        let (from, to) = (file.clone(), path(b"g"));
        Op::Data(DataOp::Copy { from, from_offset, to, to_offset, len, mtime: time })
    };
    let owner = |uid, gid| Op::Attr(AttrOp::Owner { path: file.clone(), uid, gid, mode: 0 });
    let allocate = |offset, len, size| {
        Op::Data(DataOp::Allocate { path: file.clone(), mode: 0x20, offset, len, size, mtime: time })
    };
    let max = i64::MAX.cast_unsigned();
    let write = |offset| Op::Data(DataOp::Write { path: file.clone(), offset, mtime: time });
    for (op, bulk_len) in [(create(new.clone()), 0), (symlink(b"/../.."), 0), (copy(0, max - 5, 5), 0)] {
        let bytes = encode(&op, &vec![1; bulk_len], Lsn::new(1), 1);
        assert!(Record::parse(&bytes).is_ok(), "{op:?}");
    }
    for (op, bulk_len) in [
        (create(NewObject { path: root.clone(), ..new.clone() }), 0),
        (create(NewObject { mode: 0o10_0644, ..new.clone() }), 0),
        (create(NewObject { uid: u32::MAX, ..new.clone() }), 0),
        (create(NewObject { access_acl_bytes: u32::MAX, default_acl_bytes: 2, ..new.clone() }), 1),
        (create(new.clone()), 1),
        (symlink(b""), 0),
        (symlink(b"a\0b"), 0),
        (symlink(&[b'x'; 4096]), 0),
        (Op::Namespace(NamespaceOp::Unlink { path: root.clone(), parent_mtime: time, links: 0 }), 0),
        (Op::Namespace(NamespaceOp::Link { from: file.clone(), to: root, parent_mtime: time }), 0),
        (copy(0, 0, COPY_BYTES_MAX + 1), 0),
        (copy(max, 0, 1), 0),
        (copy(0, max, 1), 0),
        (owner(u32::MAX, 0), 0),
        (owner(0, u32::MAX), 0),
        (allocate(max, 1, 0), 0),
        (allocate(u64::MAX, u64::MAX, 0), 0),
        (allocate(0, 1, u64::MAX), 0),
        (Op::Data(DataOp::Truncate { path: file.clone(), size: max + 1, mtime: time }), 0),
        (write(max - 3), 4),
        (write(u64::MAX), 4),
        (Op::Attr(AttrOp::Times { path: file.clone(), mtime: Time { sec: 0, nsec: 1_000_000_000 } }), 0),
        (Op::Attr(AttrOp::Times { path: file.clone(), mtime: Time { sec: 0, nsec: 0x3fff_ffff } }), 0),
    ] {
        let bytes = encode(&op, &vec![1; bulk_len], Lsn::new(1), 1);
        assert!(is_corrupt(&bytes), "{op:?}");
    }
    let op = create(new.clone());
    assert!(is_corrupt(&encode(&op, &[], Lsn::new(u64::MAX), 1)), "an LSN that no log comes to");
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len());
        match rng.below(6) {
            0 => bytes[at] = rng.byte(),
            1 => bytes[at] ^= 1 << rng.below(8),
            2 => bytes[at] = [0, 1, 0x7f, 0xff][rng.below(4)],
            3 => bytes.insert(at, rng.byte()),
            4 if bytes.len() > 1 => drop(bytes.remove(at)),
            _ => {
                let from = rng.below(bytes.len());
                let len = rng.below(bytes.len() - from.max(at)).min(16);
                bytes.copy_within(from..from + len, at);
            }
        }
    }
}

/// Whatever is made of the bytes: no panic; and what is accepted is exactly what would be written.
#[test]
fn random_damage_never_panics_and_has_one_reading() {
    let (ops, mut accepted) = (ops(), 0);
    for seed in 0..SEEDS {
        let mut rng = Rng(seed);
        let (op, bulk) = &ops[rng.below(ops.len())];
        let mut bytes = encode(op, bulk, Lsn::new(rng.next() / 2), rng.next().cast_signed());
        let op_bytes = bytes.len() - RECORD_HEADER_BYTES - bulk.len();
        let mut payload = bytes.split_off(RECORD_HEADER_BYTES);
        mutate(&mut rng, if seed % 8 == 0 { &mut bytes } else { &mut payload });
        bytes.extend_from_slice(&payload);
        if seed % 4 == 2 {
            // Lengths that fit, so that the decoder gets to see it.
            let (len, op_len) = (bytes.len(), op_bytes.min(payload.len()));
            put_u32(&mut bytes, 0, len);
            put_u32(&mut bytes, 24, op_len);
            put_u32(&mut bytes, 28, len - RECORD_HEADER_BYTES - op_len);
        }
        sign(&mut bytes);
        if let Ok((record, used)) = Record::parse(&bytes) {
            let mut again = Draft::owned(&record.op, record.owners, record.bulk).unwrap();
            let again = again.place(record.lsn, record.time_ns).concat();
            assert_eq!(again, bytes[..used], "seed {seed}");
            accepted += 1;
        }
    }
    assert!(accepted > 500, "only {accepted} of {SEEDS} got past the checks: the mutations are too wild");
}
