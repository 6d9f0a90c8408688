//! The largest number of links, which pjdfstest can't learn of a FUSE mount (KNOWN.md), on ext4.

use std::fs::{File, hard_link};
use std::path::Path;

use harness::crash_disk::in_own_mounts;
use harness::long_form;
use harness::temp_tree::unmount_below;

use crate::fsx::compare;
use harness::modes::{Backing, Mode};

/// `EXT4_LINK_MAX`.
const LINK_MAX: u64 = 65_000;
/// Made through the mount; the others on the backing file system, which is faster.
const THROUGH_THE_MOUNT: u64 = 10;

fn link(root: &Path, number: u64) -> std::io::Result<()> {
    hard_link(root.join("0"), root.join(number.to_string()))
}

/// pjdfstest, `link::link_count_max`: "link returns EMLINK if the link count of the file named by name1 would exceed
/// {LINK_MAX}".
#[test]
fn one_link_too_many_is_emlink() {
    if !long_form() || !harness::require("one_link_too_many_is_emlink", "mkfs.ext4", "e2fsprogs") {
        return;
    }
    in_own_mounts("links::one_link_too_many_is_emlink", || {
        let builder =
            Mode::ALL[0].builder(harness::binaries!()).prepare(Backing::Ext4.prepare()).prepare(|paths| {
                File::create(paths.backing.join("0")).expect("make a file");
                for number in 1..LINK_MAX - THROUGH_THE_MOUNT {
                    link(&paths.backing, number).expect("link below the mount");
                }
            });
        let mut cluster = builder.start();
        for number in LINK_MAX - THROUGH_THE_MOUNT..LINK_MAX {
            link(cluster.mount(), number).expect("link through the mount");
        }
        let refused = link(cluster.mount(), LINK_MAX).expect_err("one link too many");
        assert_eq!(refused.raw_os_error(), Some(libc::EMLINK));
        compare(&cluster);
        cluster.master.stop();
        unmount_below(cluster.tree.path());
        cluster.stop();
    });
}
