//! Random ops: what a busy master's users do, and what somebody does to a replica.

use super::model::{Tree, time};
use tdfs_wire::object::Kind;
use tdfs_wire::op::{AttrOp, DataOp, NamespaceOp, NewObject, Node, Op, RenameMode, XattrName, XattrOp};
use tdfs_wire::{Time, TreePath};

/// xorshift64*: repeatable from its seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

/// Makes ops on trees. Each mtime is given once, so that equal size and mtime mean equal content: a master's
/// user who sets both back fools any quick check.
pub struct Users {
    pub dice: Dice,
    clock: i64,
}

impl Users {
    pub fn new(seed: u64) -> Users {
        Users { dice: Dice::new(seed), clock: 10_000 }
    }

    fn tick(&mut self) -> Time {
        self.clock += 1;
        time(self.clock)
    }

    /// A path that is there (the root at most by chance), found by walking down.
    pub fn some_path(&mut self, tree: &Tree) -> TreePath {
        let mut path = TreePath::root();
        loop {
            let children = &tree.get(&path).unwrap().children;
            if children.is_empty() || (!path.is_root() && self.dice.chance(4)) {
                return path;
            }
            let name = children.keys().nth(self.dice.below(children.len())).unwrap();
            path = path.join(name).unwrap();
        }
    }

    /// A path in a directory that is there.
    fn new_path(&mut self, tree: &Tree) -> TreePath {
        let mut dir = if self.dice.chance(6) { TreePath::root() } else { self.some_path(tree) };
        while dir.components().count() > 3 || tree.get(&dir).unwrap().meta.kind != Kind::Directory {
            dir = dir.parent().unwrap();
        }
        dir.join(&[b"abcdefgh"[self.dice.below(5)]]).unwrap()
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let len = 1 + self.dice.below(max);
        (0..len).map(|_| b"\0xyz"[self.dice.below(4)]).collect()
    }

    /// An op that may or may not be possible on `tree`.
    pub fn op(&mut self, tree: &Tree) -> (Op, Vec<u8>) {
        let (path, other, fresh) = (self.some_path(tree), self.some_path(tree), self.new_path(tree));
        let to = if self.dice.chance(2) { other } else { fresh.clone() };
        let (mtime, parent_mtime) = (self.tick(), self.tick());
        let links_left = |path: &TreePath| match tree.get(path) {
            Ok(inode) if inode.meta.kind != Kind::Directory => inode.links as u32 - 1,
            _ => 0,
        };
        let new = NewObject {
            path: fresh,
            mode: 0o640,
            uid: 7,
            gid: 7,
            mtime,
            parent_mtime,
            access_acl_bytes: 0,
            default_acl_bytes: 0,
        };
        let op = match self.dice.below(24) {
            0..=2 => Op::Namespace(NamespaceOp::Create(new)),
            3 | 4 => Op::Namespace(NamespaceOp::Mkdir(new)),
            5 if self.dice.chance(2) => Op::Namespace(NamespaceOp::Symlink {
                new,
                target: b"target"[..1 + self.dice.below(3)].to_vec(),
            }),
            5 => Op::Namespace(NamespaceOp::Mknod { new, node: Node::Char(self.dice.below(2) as u64) }),
            6 | 7 => Op::Namespace(NamespaceOp::Link { from: path, to: new.path, parent_mtime }),
            8 | 9 => Op::Namespace(NamespaceOp::Unlink { links: links_left(&path), path, parent_mtime }),
            10 => Op::Namespace(NamespaceOp::Rmdir { path, parent_mtime }),
            11..=14 => {
                let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
                let mode = modes[self.dice.below(3)];
                let same = path.parent() == to.parent();
                let to_parent_mtime = if same { mtime } else { parent_mtime };
                Op::Namespace(NamespaceOp::Rename {
                    links: if mode == RenameMode::Replace { links_left(&to) } else { 0 },
                    from: path,
                    to,
                    mode,
                    from_parent_mtime: mtime,
                    to_parent_mtime,
                })
            }
            15..=19 => return self.random_data(path, to, mtime),
            20 => Op::Attr(AttrOp::Mode { path, mode: [0o600, 0o644, 0o4755][self.dice.below(3)] }),
            21 => Op::Attr(AttrOp::Owner { path, uid: self.dice.below(3) as u32, gid: 0, mode: 0o700 }),
            22 => Op::Attr(AttrOp::Times { path, mtime }),
            _ => {
                let name = XattrName::new(*b"user.x").unwrap();
                let set = self.dice.chance(2);
                let op = if set {
                    XattrOp::Set { path, name, mode: None }
                } else {
                    XattrOp::Remove { path, name, mode: None }
                };
                return (Op::Xattr(op), if set { self.bytes(3) } else { Vec::new() });
            }
        };
        (op, Vec::new())
    }

    fn random_data(&mut self, path: TreePath, to: TreePath, mtime: Time) -> (Op, Vec<u8>) {
        let (offset, size) = (self.dice.below(16) as u64, self.dice.below(30) as u64);
        match self.dice.below(6) {
            0..=2 => (Op::Data(DataOp::Write { path, offset, mtime }), self.bytes(12)),
            3 => (Op::Data(DataOp::Truncate { path, size, mtime }), Vec::new()),
            4 => {
                let len = 1 + self.dice.below(6) as u64;
                let mode = [0, 0x03, 0x08, 0x10, 0x20][self.dice.below(5)];
                let size = if mode & 0x28 == 0 { offset + len } else { 0 };
                (Op::Data(DataOp::Allocate { path, mode, offset, len, size, mtime }), Vec::new())
            }
            _ => {
                let (from_offset, len) = (self.dice.below(6) as u64, 1 + self.dice.below(8) as u64);
                let copy = DataOp::Copy { from: path, from_offset, to, to_offset: offset, len, mtime };
                (Op::Data(copy), Vec::new())
            }
        }
    }
}
