//! Each kind of frame, whole.

use crate::files;
use crate::values::{Bulk, LSN};
use tdfs_wire::Frame;
use tdfs_wire::frame::{Codec, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, FrameKind};

const SEQUENCE: u64 = 0x1112_1314_1516_1718;

/// A kind that is not in this list does not compile in `name`.
fn kinds() -> [FrameKind; 3] {
    [
        FrameKind::Message,
        FrameKind::Records { first: LSN, count: 0x2122_2324 },
        FrameKind::Answer { as_of: LSN },
    ]
}

fn name(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Message => "frame/message",
        FrameKind::Records { .. } => "frame/records",
        FrameKind::Answer { .. } => "frame/answer",
    }
}

const LZF: &str = "frame/lzf";

pub fn names() -> Vec<String> {
    let kinds = kinds().map(name);
    kinds.iter().chain(&[LZF]).map(|&name| name.into()).collect()
}

fn encode(frame: &Frame) -> Vec<u8> {
    [&frame.header(SEQUENCE), frame.payload()].concat()
}

fn decode(bytes: &[u8]) -> (FrameKind, Bulk) {
    let (head, payload) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().expect("a header");
    let header = FrameHeader::parse(*head, SEQUENCE, FRAME_BYTES_MAX).expect("a frame");
    (header.kind(), Bulk(header.open(payload.to_vec()).expect("a payload")))
}

#[test]
fn frames() {
    for kind in kinds() {
        let payload = b"the payload".to_vec();
        let frame = Frame::new(kind, Codec::Stored, payload.clone());
        files::check(name(kind), &(kind, Bulk(payload)), &encode(&frame), decode);
    }
}

/// Should another version of the lzf crate find another way to say the same, write this file anew: that is
/// no change of the format, as long as the old file was still decoded.
#[test]
fn compressed_frame() {
    let payload = b"0123456789abcdef".repeat(40);
    let frame = Frame::new(FrameKind::Message, Codec::Lzf, payload.clone());
    assert!(frame.payload().len() < payload.len());
    files::check(LZF, &(FrameKind::Message, Bulk(payload)), &encode(&frame), decode);
}
