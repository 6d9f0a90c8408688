//! Each op in a record, and with them the record itself.

use crate::values::{Bulk, LSN, MTIME, OTHER_MTIME, PARENT_MTIME, TIME_NS, path, xattr_name};
use crate::{files, variants};
use tdfs_wire::Op;
use tdfs_wire::object::Owner;
use tdfs_wire::op::{AttrOp, DataOp, NamespaceOp, NewObject, Node, RenameMode, XattrOp};
use tdfs_wire::record::{Draft, Owners, Record};

type Example = (&'static str, Op, &'static [u8]);

fn new_object(access_acl_bytes: u32, default_acl_bytes: u32) -> NewObject {
    NewObject {
        path: path("dir/new"),
        mode: 0o2755,
        uid: 1000,
        gid: 1001,
        mtime: MTIME,
        parent_mtime: PARENT_MTIME,
        access_acl_bytes,
        default_acl_bytes,
    }
}

fn mknod(node: Node) -> NamespaceOp {
    NamespaceOp::Mknod { new: new_object(0, 0), node }
}

fn rename(mode: RenameMode) -> NamespaceOp {
    NamespaceOp::Rename {
        from: path("old dir/a"),
        to: path("b"),
        mode,
        from_parent_mtime: PARENT_MTIME,
        to_parent_mtime: OTHER_MTIME,
        links: if mode == RenameMode::Replace { 2 } else { 0 },
    }
}

fn namespace() -> Vec<(&'static str, NamespaceOp, &'static [u8])> {
    let (from, to) = (path("a"), path("dir/b"));
    let parent_mtime = PARENT_MTIME;
    let symlink = NamespaceOp::Symlink { new: new_object(0, 0), target: b"../\xff".to_vec() };
    vec![
        ("op/create", NamespaceOp::Create(new_object(0, 0)), b""),
        ("op/create-with-acl", NamespaceOp::Create(new_object(3, 0)), b"acc"),
        ("op/mkdir-with-acls", NamespaceOp::Mkdir(new_object(3, 4)), b"accdflt"),
        ("op/mknod-fifo", mknod(Node::Fifo), b""),
        ("op/mknod-socket", mknod(Node::Socket), b""),
        ("op/mknod-char", mknod(Node::Char(0x103)), b""),
        ("op/mknod-block", mknod(Node::Block(0x801)), b""),
        ("op/symlink", symlink, b""),
        ("op/link", NamespaceOp::Link { from: from.clone(), to, parent_mtime }, b""),
        ("op/unlink", NamespaceOp::Unlink { path: from.clone(), parent_mtime, links: 3 }, b""),
        ("op/rmdir", NamespaceOp::Rmdir { path: from, parent_mtime }, b""),
        ("op/rename-replace", rename(RenameMode::Replace), b""),
        ("op/rename-no-replace", rename(RenameMode::NoReplace), b""),
        ("op/rename-exchange", rename(RenameMode::Exchange), b""),
    ]
}

fn data() -> Vec<(&'static str, DataOp, &'static [u8])> {
    let (file, mtime) = (path("dir/file"), MTIME);
    let allocate = DataOp::Allocate { path: file.clone(), mode: 3, offset: 10, len: 20, size: 30, mtime };
    let to = path("other");
    let copy = DataOp::Copy { from: file.clone(), from_offset: 1, to, to_offset: 2, len: 4096, mtime };
    vec![
        ("op/write", DataOp::Write { path: file.clone(), offset: 4096, mtime }, b"what was written"),
        ("op/truncate", DataOp::Truncate { path: file, size: 100, mtime }, b""),
        ("op/allocate", allocate, b""),
        ("op/copy", copy, b""),
    ]
}

fn attr() -> Vec<(&'static str, AttrOp, &'static [u8])> {
    let file = path("file");
    vec![
        ("op/mode", AttrOp::Mode { path: tdfs_wire::TreePath::root(), mode: 0o1777 }, b""),
        ("op/owner", AttrOp::Owner { path: file.clone(), uid: 5, gid: 6, mode: 0o644 }, b""),
        ("op/times", AttrOp::Times { path: file, mtime: MTIME }, b""),
    ]
}

fn xattr() -> Vec<(&'static str, XattrOp, &'static [u8])> {
    let (file, name) = (path("file"), xattr_name("user.mime"));
    let acl = xattr_name("system.posix_acl_access");
    vec![
        ("op/set", XattrOp::Set { path: file.clone(), name: name.clone(), mode: None }, b"text/plain"),
        (
            "op/set-acl",
            XattrOp::Set { path: file.clone(), name: acl.clone(), mode: Some(0o640) },
            b"\x02\0\0\0",
        ),
        ("op/remove", XattrOp::Remove { path: file.clone(), name, mode: None }, b""),
        ("op/remove-acl", XattrOp::Remove { path: file, name: acl, mode: Some(0o640) }, b""),
    ]
}

pub fn examples() -> Vec<Example> {
    let mut all: Vec<Example> = Vec::new();
    all.extend(namespace().into_iter().map(|(name, op, bulk)| (name, Op::Namespace(op), bulk)));
    all.extend(data().into_iter().map(|(name, op, bulk)| (name, Op::Data(op), bulk)));
    all.extend(attr().into_iter().map(|(name, op, bulk)| (name, Op::Attr(op), bulk)));
    all.extend(xattr().into_iter().map(|(name, op, bulk)| (name, Op::Xattr(op), bulk)));
    all.push(("op/check", Op::Check { paths: vec![path("a"), path("dir/b")] }, b""));
    all
}

pub fn names() -> Vec<String> {
    examples().into_iter().map(|(name, ..)| name.into()).collect()
}

/// As a master would tell them: of names it tells none.
fn owners(op: &Op) -> Owners {
    let (changed, read) = (Some(Owner { uid: 7, gid: 8 }), Some(Owner { uid: 9, gid: 10 }));
    match op {
        Op::Namespace(_) | Op::Check { .. } => Owners::default(),
        Op::Data(DataOp::Copy { .. }) => Owners { changed, read },
        Op::Data(_) | Op::Attr(_) | Op::Xattr(_) => Owners { changed, read: None },
    }
}

#[test]
fn ops_and_records() {
    for (name, op, bulk) in examples() {
        let owners = owners(&op);
        let mut draft = Draft::owned(&op, owners, bulk).expect("within limits");
        let value = (LSN, TIME_NS, op, owners, Bulk(bulk.to_vec()));
        let encoded = draft.place(LSN, TIME_NS).concat();
        files::check(name, &value, &encoded, |bytes| {
            let (record, used) = Record::parse(bytes).unwrap();
            assert_eq!(used, bytes.len());
            (record.lsn, record.time_ns, record.op, record.owners, Bulk(record.bulk.to_vec()))
        });
    }
}

#[test]
fn each_kind_of_op_has_a_file() {
    variants::check_all_shown(examples().into_iter().map(|(_, op, _)| op));
    variants::check_all_shown(namespace().into_iter().map(|(_, op, _)| op));
    variants::check_all_shown(data().into_iter().map(|(_, op, _)| op));
    variants::check_all_shown(attr().into_iter().map(|(_, op, _)| op));
    variants::check_all_shown(xattr().into_iter().map(|(_, op, _)| op));
    variants::check_all_shown(namespace().into_iter().filter_map(|(_, op, _)| match op {
        NamespaceOp::Mknod { node, .. } => Some(node),
        _ => None,
    }));
    variants::check_all_shown(namespace().into_iter().filter_map(|(_, op, _)| match op {
        NamespaceOp::Rename { mode, .. } => Some(mode),
        _ => None,
    }));
}
