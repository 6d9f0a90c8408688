//! What of the tree no replica can get: met while it was read, named once in the log and from then on in status.
//!
//! Filled by the operations that come by it and by `resync`, whose check at the start comes by all of the tree.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use tdfs_wire::TreePath;

/// So many objects are remembered; what is met beyond them is left out like the others, and not named.
const KNOWN_MAX: usize = 1_000;
/// So many of a kind are named in status; the rest is counted.
const NAMED_MAX: usize = 10;

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It lies on another file system, or is another subvolume or a bind mount.
    Foreign,
    /// It has more xattrs than the kernel lists, or than fit into an answer.
    ManyXattrs,
    /// It belongs to somebody else, and this process has no right to read it.
    Unreadable,
}

impl Why {
    /// In words, for log and status.
    fn words(self) -> &'static str {
        match self {
            Why::Foreign => "other file systems, subvolumes and mounts in the directory",
            Why::ManyXattrs => "xattrs of objects that have too many",
            Why::Unreadable => "content that this user may not read",
        }
    }
}

/// All that was met since tdfs was started.
#[derive(Debug, Default)]
pub struct LeftOut {
    known: Mutex<BTreeSet<(Why, TreePath)>>,
}

impl LeftOut {
    /// Notes that this object, or a part of it, is left out.
    pub fn note(&self, why: Why, path: TreePath) {
        let mut known = self.known.lock();
        if known.len() < KNOWN_MAX && known.insert((why, path.clone())) {
            tracing::warn!("{path} is left out of all replicas ({})", why.words());
        }
    }

    /// All of it, in words.
    pub fn words(&self) -> Vec<String> {
        let known = self.known.lock();
        let all = [Why::Foreign, Why::ManyXattrs, Why::Unreadable];
        all.into_iter().filter_map(|why| words_of(&known, why)).collect()
    }
}

fn words_of(known: &BTreeSet<(Why, TreePath)>, why: Why) -> Option<String> {
    let paths: Vec<String> =
        known.iter().filter(|known| known.0 == why).map(|(_, path)| path.to_string()).collect();
    let more = paths.len().saturating_sub(NAMED_MAX);
    let named = paths[..paths.len() - more].join(", ");
    match (paths.len(), more) {
        (0, _) => None,
        (_, 0) => Some(format!("{}: {named}", why.words())),
        _ => Some(format!("{}: {named} and {more} more", why.words())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named_once_and_many_are_counted() {
        let left_out = LeftOut::default();
        assert_eq!(left_out.words(), Vec::<String>::new());
        let path = |name: &str| TreePath::new(name.as_bytes()).unwrap();
        for _ in 0..2 {
            left_out.note(Why::ManyXattrs, path("f"));
        }
        assert_eq!(left_out.words(), ["xattrs of objects that have too many: /f"]);
        (0..NAMED_MAX + 3).for_each(|number| left_out.note(Why::Foreign, path(&format!("{number:04}"))));
        assert!(left_out.words()[0].ends_with(", /0009 and 3 more"), "{:?}", left_out.words());
    }
}
