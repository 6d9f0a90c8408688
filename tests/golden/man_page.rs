//! man/tdfs-wire.5, the specification, names what the sources have: each limit with its value, each variant.

use std::fs;
use std::path::Path;
use tdfs_wire::answer::{BLOCK_BYTES, BLOCKS_MAX};
use tdfs_wire::frame::{FRAME_BYTES_MAX, FRAME_BYTES_MAX_HANDSHAKE, FRAME_HEADER_BYTES};
use tdfs_wire::log::SEGMENT_HEADER_BYTES;
use tdfs_wire::message::{LINEAGE_MAX, TEXT_BYTES_MAX};
use tdfs_wire::op::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use tdfs_wire::record::{BULK_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADER_BYTES};
use tdfs_wire::version::{LOG, PROTOCOL};
use tdfs_wire::{NAME_BYTES_MAX, PATH_BYTES_MAX};

pub fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../man/tdfs-wire.5");
    fs::read_to_string(path).expect("read man/tdfs-wire.5")
}

#[test]
fn the_man_page_tells_the_limits() {
    let text = text();
    for (what, limit) in [
        ("bulk", BULK_BYTES_MAX),
        ("record, with its header", RECORD_BYTES_MAX),
        ("op", RECORD_BYTES_MAX - BULK_BYTES_MAX - RECORD_HEADER_BYTES),
        ("payload of a frame", FRAME_BYTES_MAX),
        ("payload of a frame before the handshake is done", FRAME_BYTES_MAX_HANDSHAKE),
        ("text in a message, as senders cut it", TEXT_BYTES_MAX),
        ("branches in a hello", LINEAGE_MAX),
        ("hashes in a want", BLOCKS_MAX),
        ("path", PATH_BYTES_MAX),
        ("name, xattr-name", NAME_BYTES_MAX.max(XATTR_NAME_BYTES_MAX)),
        ("value of an xattr", XATTR_VALUE_BYTES_MAX),
    ] {
        assert!(text.contains(&format!("\n.It {what} Ta {limit}\n")), "tdfs-wire.5: {what} is {limit}");
    }
    for layout_end in [
        format!("{FRAME_HEADER_BYTES}           payload"),
        format!("{RECORD_HEADER_BYTES}           op (codec)"),
        format!("{SEGMENT_HEADER_BYTES}           records"),
        format!("{BLOCK_BYTES}, the length of a block"),
    ] {
        assert!(text.replace('\n', " ").contains(&layout_end), "tdfs-wire.5: {layout_end}");
    }
}

#[test]
fn the_man_page_tells_the_versions() {
    let versions = format!("protocol version {PROTOCOL}, log layout version {LOG}.");
    assert!(text().replace('\n', " ").contains(&versions), "tdfs-wire.5: {versions}");
}
