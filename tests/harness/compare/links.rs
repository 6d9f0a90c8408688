//! Hard links as a partition of the names: which names share an inode, on either side.

use std::collections::HashMap;

use rustix::fs::Stat;

use super::shown;

type Inode = (u64, u64);

/// What one inode of one side was paired with when its first name was met.
struct Partner {
    inode: Inode,
    first_name: Vec<u8>,
}

/// The pairs met so far. Equal partitions make the pairing one to one in both directions.
#[derive(Default)]
pub struct LinkGroups {
    right_of: HashMap<Inode, Partner>,
    left_of: HashMap<Inode, Partner>,
    found: Vec<String>,
}

impl LinkGroups {
    /// Notes that `path` is this inode on the left and that one on the right.
    pub fn note(&mut self, path: &[u8], left: &Stat, right: &Stat) {
        if left.st_nlink <= 1 && right.st_nlink <= 1 {
            return;
        }
        let (left, right) = ((left.st_dev, left.st_ino), (right.st_dev, right.st_ino));
        let partner = |inode| Partner { inode, first_name: path.to_vec() };
        let split = self.right_of.entry(left).or_insert_with(|| partner(right));
        if split.inode != right {
            let other = shown(&split.first_name);
            self.found.push(format!("{}: hard links: one file with {other} on the left only", shown(path)));
        }
        let joined = self.left_of.entry(right).or_insert_with(|| partner(left));
        if joined.inode != left {
            let other = shown(&joined.first_name);
            self.found.push(format!("{}: hard links: one file with {other} on the right only", shown(path)));
        }
    }

    /// What differs.
    pub fn differences(&mut self) -> Vec<String> {
        std::mem::take(&mut self.found)
    }
}
